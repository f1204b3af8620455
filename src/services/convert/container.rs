//! Containers: a ContainerConfig becomes a `ContainerSpec`.

use std::collections::BTreeMap;

use api::runtime as cri;
use model::{
    ImageId,
    container::{BindMount, ContainerKey, ContainerSpec, EnvVar, ImageVolume},
    pod::PodSpec,
};

use super::{
    Result, absolute, annotations, invalid, labels, mount, no_climbing, plain, resources, security, shown, signal, userns,
};

/// CDI devices of one container at most.
const CDI_DEVICES_MAX: usize = 1024;

/// A container as asked for, in this pod. The request's own copy of the pod's configuration is not trusted: only what
/// the pod was made with counts.
pub(crate) fn spec(config: Option<cri::ContainerConfig>, pod: &PodSpec) -> Result<ContainerSpec> {
    let config = config.ok_or_else(|| invalid("config", "missing"))?;
    let image = config.image.filter(|image| !image.image.is_empty()).ok_or_else(|| invalid("config.image", "missing"))?;
    let linux = config.linux.unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    userns::check_container("linux.security_context", context.namespace_options.as_ref(), pod.userns)?;
    userns::check_mounts("config.mounts", &config.mounts, pod.userns)?;
    let security = security::container(context, pod.namespaces.pid)?;
    if security.privileged && !pod.privileged {
        return Err(invalid("config.linux.security_context.privileged", "the pod was not made for privileged containers"));
    }
    let (mounts, image_volumes) = volumes(config.mounts)?;
    let key = key(config.metadata)?;
    let class = |kind| class(kind, &key.name, &config.annotations, &pod.annotations);
    Ok(ContainerSpec {
        block_io_class: class("blockio"),
        rdt_class: class("rdt"),
        key,
        image: image.image,
        user_specified_image: image.user_specified_image,
        command: words("config.command", config.command)?,
        args: words("config.args", config.args)?,
        working_dir: working_dir(config.working_dir)?,
        envs: config.envs.into_iter().map(env).collect::<Result<_>>()?,
        mounts,
        image_volumes,
        cdi_devices: cdi_devices(config.cdi_devices)?,
        devices: numbered("config.devices", config.devices, mount::device)?,
        labels: labels("config.labels", config.labels)?,
        annotations: annotations("config.annotations", config.annotations)?,
        log_path: log_path(config.log_path)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        stop_signal: signal::from_proto("config.stop_signal", config.stop_signal)?,
        resources: resources::from_proto("config.linux.resources", linux.resources)?,
        security,
        image_annotations: annotations("config.image.annotations", image.annotations)?,
        own: None,
    })
}

/// The mounts of a container as they were asked for; `images` are those of its image volumes.
pub(crate) fn mounts(spec: &ContainerSpec, images: &[ImageId]) -> Vec<cri::Mount> {
    let volumes = spec.image_volumes.iter().enumerate();
    let volumes = volumes.map(|(index, volume)| mount::image_to_proto(volume, images.get(index)));
    spec.mounts.iter().map(mount::to_proto).chain(volumes).collect()
}

/// Devices by their CDI names. Annotations that say such names (`cdi.k8s.io/..`) are not read: anybody who may annotate a
/// pod would be given devices (CVE-2026-53492).
fn cdi_devices(asked: Vec<cri::CdiDevice>) -> Result<Vec<String>> {
    if asked.len() > CDI_DEVICES_MAX {
        return Err(invalid("config.CDI_devices", format_args!("{} devices, more than {CDI_DEVICES_MAX}", asked.len())));
    }
    match asked.iter().find(|device| device.name.is_empty() || device.name.len() > 1024) {
        Some(bad) => Err(invalid("config.CDI_devices", format_args!("{}: not the name of a device", shown(&bad.name)))),
        None => Ok(asked.into_iter().map(|device| device.name).collect()),
    }
}

/// Mounts of the host's files, and those of images.
fn volumes(asked: Vec<cri::Mount>) -> Result<(Vec<BindMount>, Vec<ImageVolume>)> {
    let (mut mounts, mut images) = (Vec::new(), Vec::new());
    for (index, mut one) in asked.into_iter().enumerate() {
        let field = format!("config.mounts[{index}]");
        match one.image.take() {
            Some(image) => images.push(mount::image_volume(&field, one, image)?),
            None => mounts.push(mount::bind(&field, one)?),
        }
    }
    Ok((mounts, images))
}

/// The class of a container by the annotations that Kubernetes has for it: CRI has no field. The administrator says what
/// a class is; nothing else in annotations means anything to this engine.
fn class(kind: &str, container: &str, own: &BTreeMap<String, String>, pod: &BTreeMap<String, String>) -> Option<String> {
    let of_pod = |key: &str| pod.get(&format!("{kind}.resources.beta.kubernetes.io/{key}"));
    let class = own.get(&format!("io.kubernetes.cri.{kind}-class"));
    class.or_else(|| of_pod(&format!("container.{container}"))).or_else(|| of_pod("pod")).cloned()
}

fn key(metadata: Option<cri::ContainerMetadata>) -> Result<ContainerKey> {
    let metadata = metadata.ok_or_else(|| invalid("config.metadata", "missing"))?;
    if metadata.name.is_empty() || metadata.name.len() > 512 {
        return Err(invalid("config.metadata.name", "missing, or more than 512 bytes"));
    }
    Ok(ContainerKey { name: metadata.name, attempt: metadata.attempt })
}

fn numbered<A, B>(field: &str, list: Vec<A>, convert: impl Fn(&str, A) -> Result<B>) -> Result<Vec<B>> {
    list.into_iter().enumerate().map(|(index, one)| convert(&format!("{field}[{index}]"), one)).collect()
}

/// execve(2) ends a word at a NUL.
fn words(field: &str, words: Vec<String>) -> Result<Vec<String>> {
    match words.iter().find(|word| word.contains('\0')) {
        Some(bad) => Err(invalid(field, format_args!("{}: contains a NUL", shown(bad)))),
        None => Ok(words),
    }
}

fn working_dir(path: String) -> Result<String> {
    if path.is_empty() { Ok(path) } else { absolute("config.working_dir", path) }
}

fn env(variable: cri::KeyValue) -> Result<EnvVar> {
    let cri::KeyValue { key, value } = variable;
    if key.is_empty() || key.contains(['=', '\0']) {
        return Err(invalid("config.envs", format_args!("{}: not a variable's name", shown(&key))));
    }
    if value.contains(&0) {
        return Err(invalid("config.envs", format_args!("{}: the value contains a NUL", shown(&key))));
    }
    Ok(EnvVar { name: key, value: value.into() })
}

/// Joined to the pod's log directory later, so it must stay below it (CVE-2025-0750).
fn log_path(path: String) -> Result<String> {
    if path.starts_with('/') || path.ends_with('/') {
        return Err(invalid("config.log_path", format_args!("{}: not a file relative to the pod's log directory", shown(&path))));
    }
    no_climbing("config.log_path", plain("config.log_path", path)?)
}

#[cfg(test)]
mod tests {
    use model::{Signal, container::SeccompSpec};

    use super::*;

    type Config = cri::ContainerConfig;

    fn pod(privileged: bool) -> PodSpec {
        let metadata = cri::PodSandboxMetadata { name: "n".into(), ..Default::default() };
        let config = cri::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
        PodSpec { privileged, ..super::super::pod::spec(Some(config), String::new()).unwrap() }
    }

    fn good() -> Config {
        Config {
            metadata: Some(cri::ContainerMetadata { name: "c".into(), attempt: 1 }),
            image: Some(cri::ImageSpec { image: "busybox".into(), ..Default::default() }),
            ..Config::default()
        }
    }

    fn converted(config: Config) -> Result<ContainerSpec> {
        spec(Some(config), &pod(false))
    }

    fn env(key: &str, value: &[u8]) -> Config {
        Config { envs: vec![cri::KeyValue { key: key.into(), value: value.into() }], ..good() }
    }

    #[test]
    fn what_is_said_arrives() {
        let config = Config {
            command: vec!["sh".into()],
            log_path: "c/1.log".into(),
            stop_signal: cri::Signal::Sigusr1.into(),
            tty: true,
            mounts: vec![cri::Mount { container_path: "/m".into(), host_path: "/h".into(), ..Default::default() }],
            ..env("A", b"\xff=x")
        };
        let spec = converted(config).unwrap();
        assert_eq!((spec.key.name.as_str(), spec.key.attempt, spec.tty), ("c", 1, true));
        assert_eq!(spec.envs[0].value.as_slice(), b"\xff=x");
        assert_eq!(spec.stop_signal.map(Signal::number), Some(10));
        assert_eq!((spec.security.seccomp.clone(), mounts(&spec, &[]).len()), (SeccompSpec::Unconfined, 1));
    }

    #[test]
    fn classes_come_from_annotations() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (pod_wide, of_one) = ("blockio.resources.beta.kubernetes.io/pod", "blockio.resources.beta.kubernetes.io/container.c");
        let (none, own) = (BTreeMap::new(), map(&[("io.kubernetes.cri.blockio-class", "own")]));
        let pod: BTreeMap<_, _> = map(&[(pod_wide, "all"), (of_one, "one")]);
        let of = |kind, name, own, pod| class(kind, name, own, pod);
        assert_eq!(of("blockio", "c", &own, &pod).as_deref(), Some("own"));
        assert_eq!(of("blockio", "c", &none, &pod).as_deref(), Some("one"));
        assert_eq!(of("blockio", "d", &none, &pod).as_deref(), Some("all"));
        assert_eq!((of("rdt", "c", &own, &pod), of("blockio", "c", &none, &none)), (None, None));
    }

    #[test]
    fn refusals_name_the_field() {
        let log = |path: &str| Config { log_path: path.into(), ..good() };
        for (field, bad) in [
            ("config.image", Config { image: None, ..good() }),
            ("config.image", Config { image: Some(Default::default()), ..good() }),
            ("config.metadata", Config { metadata: None, ..good() }),
            ("config.metadata.name", Config { metadata: Some(Default::default()), ..good() }),
            ("config.CDI_devices", Config { cdi_devices: vec![Default::default()], ..good() }),
            ("config.log_path", log("/etc/x")),
            ("config.log_path", log("../x")),
            ("config.log_path", log("a/../../x")),
            ("config.log_path", log("a\0")),
            ("config.log_path", log("a/")),
            ("config.envs", env("", b"")),
            ("config.envs", env("A=B", b"")),
            ("config.envs", env("A", b"\0")),
            ("config.args", Config { args: vec!["a\0b".into()], ..good() }),
            ("config.working_dir", Config { working_dir: "tmp".into(), ..good() }),
            ("config.stop_signal", Config { stop_signal: 99, ..good() }),
            ("config.mounts[0].container_path", Config { mounts: vec![Default::default()], ..good() }),
            ("config.devices[0].permissions", Config { devices: vec![Default::default()], ..good() }),
        ] {
            let text = converted(bad).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{field}: ")), "{field} <> {text}");
        }
        assert_eq!(spec(None, &pod(false)).unwrap_err().to_string(), "config: missing");
    }

    #[test]
    fn privileged_only_where_the_pod_allows_it() {
        let context = cri::LinuxContainerSecurityContext { privileged: true, ..Default::default() };
        let linux = cri::LinuxContainerConfig { security_context: Some(context), ..Default::default() };
        let config = Config { linux: Some(linux), ..good() };
        assert!(spec(Some(config.clone()), &pod(true)).unwrap().security.privileged);
        assert!(converted(config).unwrap_err().to_string().starts_with("config.linux.security_context.privileged: "));
    }
}
