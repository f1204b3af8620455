//! What `creel run` asks the daemon for.

use std::collections::BTreeMap;

use api::runtime as cri;

use super::options;
use crate::{
    args::{NetworkKind, Run},
    error::Error,
    find::NAME_LABEL,
};

/// Paths of /proc and /sys that tell too much of the machine or change it; those that Kubernetes hides too.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Paths of /proc that may be read but not written.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// CFS period in microseconds.
const PERIOD: i64 = 100_000;

/// A pod with one container.
pub(super) struct Plan {
    pub(super) pod: cri::PodSandboxConfig,
    pub(super) container: cri::ContainerConfig,
}

/// The plan of a run; `image` is the image's id.
pub(super) fn plan(args: &Run, name: &str, uid: &str, image: &str, log_root: &str) -> Result<Plan, Error> {
    let mut labels = args.label.iter().map(|text| options::label(text)).collect::<Result<BTreeMap<_, _>, _>>()?;
    labels.insert(NAME_LABEL.to_owned(), name.to_owned());
    let namespaces = namespaces(args.network);
    Ok(Plan {
        pod: pod(args, name, uid, log_root, labels.clone(), namespaces.clone())?,
        container: container(args, name, image, labels, namespaces)?,
    })
}

fn namespaces(network: NetworkKind) -> cri::NamespaceOption {
    let network = match network {
        NetworkKind::Pod => cri::NamespaceMode::Pod,
        NetworkKind::Host => cri::NamespaceMode::Node,
    };
    cri::NamespaceOption { network: network.into(), pid: cri::NamespaceMode::Container.into(), ..Default::default() }
}

fn pod(
    args: &Run,
    name: &str,
    uid: &str,
    log_root: &str,
    labels: BTreeMap<String, String>,
    namespaces: cri::NamespaceOption,
) -> Result<cri::PodSandboxConfig, Error> {
    let security_context = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces),
        privileged: args.privileged,
        ..cri::LinuxSandboxSecurityContext::default()
    };
    let hostname = match (args.network, &args.hostname) {
        (_, Some(hostname)) => hostname.clone(),
        (NetworkKind::Pod, None) => name.to_owned(),
        (NetworkKind::Host, None) => String::new(),
    };
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata { name: name.into(), uid: uid.into(), namespace: "creel".into(), attempt: 0 }),
        hostname,
        log_directory: format!("{log_root}/{uid}"),
        port_mappings: args.publish.iter().map(|text| options::publish(text)).collect::<Result<_, _>>()?,
        labels,
        linux: Some(cri::LinuxPodSandboxConfig { security_context: Some(security_context), ..Default::default() }),
        ..cri::PodSandboxConfig::default()
    })
}

fn container(
    args: &Run,
    name: &str,
    image: &str,
    labels: BTreeMap<String, String>,
    namespaces: cri::NamespaceOption,
) -> Result<cri::ContainerConfig, Error> {
    let envs = args.env.iter().map(|text| options::env(text, |name| std::env::var_os(name)));
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec {
            image: image.to_owned(),
            user_specified_image: args.image.clone(),
            ..cri::ImageSpec::default()
        }),
        command: args.entrypoint.iter().cloned().collect(),
        args: args.command.clone(),
        working_dir: args.workdir.clone().unwrap_or_default(),
        envs: envs.filter_map(Result::transpose).collect::<Result<_, _>>()?,
        mounts: args.volume.iter().map(|text| options::volume(text)).collect::<Result<_, _>>()?,
        labels,
        log_path: "0.log".into(),
        tty: args.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources(args)?),
            security_context: Some(security(args, namespaces)?),
        }),
        ..cri::ContainerConfig::default()
    })
}

fn resources(args: &Run) -> Result<cri::LinuxContainerResources, Error> {
    let memory = args.memory.as_deref().map(options::memory).transpose()?.unwrap_or_default();
    let quota = args.cpus.map(|cpus| options::cpus(cpus, PERIOD)).transpose()?.unwrap_or_default();
    Ok(cri::LinuxContainerResources {
        cpu_period: if quota == 0 { 0 } else { PERIOD },
        cpu_quota: quota,
        memory_limit_in_bytes: memory,
        ..cri::LinuxContainerResources::default()
    })
}

fn security(args: &Run, namespaces: cri::NamespaceOption) -> Result<cri::LinuxContainerSecurityContext, Error> {
    let profile = if args.privileged {
        cri::security_profile::ProfileType::Unconfined
    } else {
        cri::security_profile::ProfileType::RuntimeDefault
    };
    let paths = |paths: &[&str]| if args.privileged { Vec::new() } else { paths.iter().map(|p| (*p).to_owned()).collect() };
    let mut context = cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: args.cap_add.clone(),
            drop_capabilities: args.cap_drop.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: args.privileged,
        namespace_options: Some(namespaces),
        readonly_rootfs: args.read_only,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READONLY),
        seccomp: Some(cri::SecurityProfile { profile_type: profile.into(), localhost_ref: String::new() }),
        ..cri::LinuxContainerSecurityContext::default()
    };
    if let Some(user) = &args.user {
        options::user(user, &mut context)?;
    }
    Ok(context)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn planned(line: &[&str]) -> Result<Plan, Error> {
        let arguments = Arguments::try_parse_from(["creel", "run"].iter().chain(line)).unwrap();
        let Command::Run(run) = arguments.command else { panic!("not run") };
        plan(&run, "name", "uid", "sha256:0", "/logs")
    }

    #[test]
    fn a_plain_run_is_confined() {
        let plan = planned(&["busybox", "sh"]).unwrap();
        let context = plan.container.linux.unwrap().security_context.unwrap();
        assert_eq!((context.masked_paths.len(), context.readonly_paths.len(), context.privileged), (12, 5, false));
        assert_eq!(context.seccomp.unwrap().profile_type, 0);
        assert_eq!((plan.pod.hostname.as_str(), plan.pod.log_directory.as_str()), ("name", "/logs/uid"));
        assert_eq!((plan.container.args, plan.container.command), (vec!["sh".to_owned()], vec![]));
        assert_eq!(plan.pod.labels.get(NAME_LABEL).map(String::as_str), Some("name"));
        assert_eq!(plan.container.image.unwrap().user_specified_image, "busybox");
    }

    #[test]
    fn options_arrive() {
        let line = ["--privileged", "--network", "host", "-m", "1g", "--cpus", "0.5", "-u", "5:6", "-p", "1:2", "-l", "a=b", "i"];
        let plan = planned(&line).unwrap();
        let linux = plan.container.linux.unwrap();
        let (resources, context) = (linux.resources.unwrap(), linux.security_context.unwrap());
        assert_eq!((resources.memory_limit_in_bytes, resources.cpu_quota, resources.cpu_period), (1 << 30, 50_000, 100_000));
        assert!(context.privileged && context.masked_paths.is_empty() && context.run_as_group.is_some());
        assert_eq!(context.namespace_options.unwrap().network, 2);
        assert_eq!((plan.pod.hostname.as_str(), plan.pod.port_mappings.len(), plan.pod.labels.len()), ("", 1, 2));
        assert!(planned(&["-v", "relative:/x", "i"]).is_err());
    }
}
