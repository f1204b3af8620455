//! Device nodes that a client asks for, and what the container's cgroup may do with devices (R21).

use std::{
    fs::{self, Metadata},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use model::{
    container::{ContainerSpec, DeviceSpec, Propagation},
    plan::{ContainerPlan, DeviceNode, MountFlags, MountKind, MountPlan},
};
use sys::cgroup::{Access, DeviceKind, DeviceRule};

use super::{
    error::{Error, cut},
    mounts, path,
};

/// Directories of a host's /dev that hold no devices of the machine, or are made anew for each container.
const SKIPPED: [&str; 8] = ["pts", "shm", "fd", "mqueue", "hugepages", ".lxc", ".lxd-mounts", ".udev"];
/// Made with every /dev by the executor; a terminal is the container's own.
const STANDARD: [&str; 8] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/console"];
const MAX_NODES: usize = 8192;
const MAX_DEPTH: usize = 16;

/// What the devices of a container become.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// Nodes in the container's own /dev.
    pub(crate) nodes: Vec<DeviceNode>,
    /// Devices at other places are mounted there: nobody makes nodes in an image.
    pub(crate) mounts: Vec<MountPlan>,
}

/// Looks at the host's devices.
///
/// # Errors
/// A path or permission that cannot be; something that is no device.
pub(crate) fn plan(spec: &ContainerSpec) -> Result<Devices, Error> {
    let mut devices = Devices::default();
    for device in &spec.devices {
        access(device)?;
        let target = target(device)?;
        let host = host_path(device)?;
        if path::within(&target, "/dev") {
            collect(Path::new(&host), &target, 0, &mut devices.nodes)?;
        } else {
            devices.mounts.push(bound(host, target)?);
        }
    }
    if spec.devices.iter().any(|device| device.host_path.is_empty()) {
        return Err(refuse("", "has no path on the host"));
    }
    if spec.security.privileged {
        collect(Path::new("/dev"), "/dev", 0, &mut devices.nodes)?;
    }
    let mut seen: std::collections::HashSet<String> = STANDARD.iter().map(|name| (*name).to_owned()).collect();
    devices.nodes.retain(|node| seen.insert(node.path.clone()));
    Ok(devices)
}

fn refuse(path: &str, why: &'static str) -> Error {
    Error::Device { path: cut(path), why }
}

fn target(device: &DeviceSpec) -> Result<String, Error> {
    let given = if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
    if path::climbs(given) {
        return Err(refuse(given, "has `..`"));
    }
    let target = path::clean(given).ok_or_else(|| refuse(given, "must be an absolute path in the container"))?;
    if target == "/dev" || ["/dev/pts", "/dev/shm", "/dev/mqueue"].iter().any(|top| path::within(&target, top)) {
        return Err(refuse(&target, "is a mount of its own in every container"));
    }
    mounts::check_target(&target)?;
    Ok(target)
}

/// A place for a node in the container's own /dev.
///
/// # Errors
/// Somewhere else, or where something is that every container has.
pub(crate) fn node_path(given: &str) -> Result<String, Error> {
    let spec = DeviceSpec { container_path: given.to_owned(), host_path: String::new(), permissions: String::new() };
    let path = target(&spec)?;
    if !path::within(&path, "/dev") || STANDARD.contains(&path.as_str()) {
        return Err(refuse(given, "must be a new place below /dev"));
    }
    Ok(path)
}

/// The device's real path on the host.
fn host_path(device: &DeviceSpec) -> Result<String, Error> {
    let given = &device.host_path;
    if path::climbs(given) {
        return Err(refuse(given, "has `..`"));
    }
    let clean = path::clean(given).ok_or_else(|| refuse(given, "must be an absolute path on the host"))?;
    let failed = |source| Error::HostPath { operation: "find device", path: clean.clone().into(), source };
    let real = fs::canonicalize(&clean).map_err(failed)?;
    real.into_os_string().into_string().map_err(|_| refuse(given, "is not UTF-8"))
}

/// A device of the host, mounted at a place that is not in /dev.
///
/// # Errors
/// It is not there, or is no device.
pub(crate) fn bound(source: String, target: String) -> Result<MountPlan, Error> {
    let failed = |error| Error::HostPath { operation: "find device", path: source.clone().into(), source: error };
    let found = fs::symlink_metadata(&source).map_err(failed)?;
    if !is_device(&found) {
        return Err(refuse(&source, "is not a device"));
    }
    let kind = MountKind::Bind { source, propagation: Propagation::Private };
    let flags = MountFlags { nosuid: true, noexec: true, ..Default::default() };
    Ok(MountPlan { target, kind, flags, idmap: None })
}

fn is_device(found: &Metadata) -> bool {
    found.file_type().is_char_device() || found.file_type().is_block_device()
}

/// A device, or all devices below a directory.
fn collect(host: &Path, target: &str, depth: usize, nodes: &mut Vec<DeviceNode>) -> Result<(), Error> {
    let failed = |source| Error::HostPath { operation: "read device", path: host.to_owned(), source };
    let found = match fs::symlink_metadata(host) {
        Ok(found) => found,
        // Devices come and go while a directory is read.
        Err(e) if depth > 0 && e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    if is_device(&found) {
        if nodes.len() == MAX_NODES {
            return Err(refuse(target, "is more than 8192 devices"));
        }
        nodes.push(node(&found, target));
        return Ok(());
    }
    if !found.is_dir() {
        return if depth == 0 { Err(refuse(target, "is neither a device nor a directory of devices")) } else { Ok(()) };
    }
    if depth == MAX_DEPTH {
        return Err(refuse(target, "is deeper than 16 directories"));
    }
    let before = nodes.len();
    let mut names: Vec<_> =
        fs::read_dir(host).map_err(failed)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    // The order of a directory is chance; a plan is not.
    names.sort_unstable();
    for name in names.iter().filter(|name| !SKIPPED.contains(&name.as_str()) && !name.chars().any(char::is_control)) {
        collect(&host.join(name), &format!("{target}/{name}"), depth + 1, nodes)?;
    }
    if depth == 0 && nodes.len() == before {
        return Err(refuse(target, "is a directory without devices"));
    }
    Ok(())
}

/// Whether every /dev has it.
pub(crate) fn is_standard(path: &str) -> bool {
    STANDARD.contains(&path)
}

/// The device at a path of the host, as a node elsewhere; `None`: something is there that is no device.
///
/// # Errors
/// stat(2).
pub(crate) fn host_node(host: &Path, target: &str) -> std::io::Result<Option<DeviceNode>> {
    Ok(Some(fs::metadata(host)?).filter(is_device).map(|found| node(&found, target)))
}

fn node(found: &Metadata, target: &str) -> DeviceNode {
    DeviceNode {
        path: target.to_owned(),
        block: found.file_type().is_block_device(),
        major: rustix::fs::major(found.rdev()),
        minor: rustix::fs::minor(found.rdev()),
        mode: found.mode() & 0o777,
        uid: found.uid(),
        gid: found.gid(),
    }
}

fn access(device: &DeviceSpec) -> Result<Access, Error> {
    let given = &device.permissions;
    let count = |wanted| given.chars().filter(|c| *c == wanted).count();
    let known = given.chars().all(|c| matches!(c, 'r' | 'w' | 'm'));
    if given.is_empty() || !known || ['r', 'w', 'm'].iter().any(|c| count(*c) > 1) {
        return Err(refuse(&device.host_path, "its permissions must be some of `rwm`, each once"));
    }
    Ok(Access { read: count('r') == 1, write: count('w') == 1, mknod: count('m') == 1 })
}

/// What the container's cgroup allows: the standard devices and what the client asked for; everything if privileged.
pub fn device_rules(spec: &ContainerSpec, plan: &ContainerPlan) -> Vec<DeviceRule> {
    if spec.security.privileged {
        return vec![DeviceRule::ALL];
    }
    let mut rules = DeviceRule::standard();
    rules.extend(spec.own.iter().flat_map(|own| &own.device_rules).filter_map(|text| device_rule(text)));
    for device in &spec.devices {
        let (Ok(target), Ok(access)) = (target(device), access(device)) else { continue };
        let nodes = plan.devices.iter().filter(|node| path::within(&node.path, &target));
        rules.extend(nodes.map(|node| rule(node.block, node.major, node.minor, access)));
        let mounted = plan.mounts.iter().filter(|mount| mount.target == target);
        rules.extend(
            mounted
                .filter_map(|mount| match &mount.kind {
                    MountKind::Bind { source, .. } => {
                        fs::symlink_metadata(source).ok().filter(is_device).map(|found| node(&found, &target))
                    }
                    _ => None,
                })
                .map(|node| rule(node.block, node.major, node.minor, access)),
        );
    }
    rules
}

/// A rule as cgroup v1 writes it, `TYPE MAJOR:MINOR ACCESS`: `c 1:3 rwm`, `b 8:* r`. `None`: it is none.
pub fn device_rule(text: &str) -> Option<DeviceRule> {
    let mut words = text.split(' ');
    let (kind, numbers, access, None) = (words.next()?, words.next()?, words.next()?, words.next()) else { return None };
    let kind = match kind {
        "a" => DeviceKind::Any,
        "b" => DeviceKind::Block,
        "c" => DeviceKind::Character,
        _ => return None,
    };
    let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
    let (major, minor) = numbers.split_once(':')?;
    let once = |letter: char| access.matches(letter).count() <= 1;
    if access.is_empty() || !access.chars().all(|c| matches!(c, 'r' | 'w' | 'm') && once(c)) {
        return None;
    }
    let access = Access { read: access.contains('r'), write: access.contains('w'), mknod: access.contains('m') };
    Some(DeviceRule { kind, major: number(major)?, minor: number(minor)?, access })
}

fn rule(block: bool, major: u32, minor: u32, access: Access) -> DeviceRule {
    let kind = if block { DeviceKind::Block } else { DeviceKind::Character };
    DeviceRule { kind, major: Some(major), minor: Some(minor), access }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::{container, container_plan_of};

    fn device(container: &str, host: &str, permissions: &str) -> DeviceSpec {
        DeviceSpec { container_path: container.into(), host_path: host.into(), permissions: permissions.into() }
    }

    fn planned(devices: &[DeviceSpec]) -> Result<Devices, Error> {
        plan(&ContainerSpec { devices: devices.to_vec(), ..container() })
    }

    #[test]
    fn a_device_becomes_a_node_and_a_rule() {
        let devices = planned(&[device("/dev/mine", "/dev/null", "rw"), device("/block//x", "/dev/zero", "r")]).unwrap();
        let [node] = devices.nodes.as_slice() else { panic!("{devices:?}") };
        assert_eq!((node.path.as_str(), node.block, node.major, node.minor, node.mode), ("/dev/mine", false, 1, 3, 0o666));
        assert_eq!(devices.mounts[0].target, "/block/x");
        assert!(!devices.mounts[0].flags.nodev);
        let spec = ContainerSpec {
            devices: vec![device("/dev/mine", "/dev/null", "rw"), device("/block/x", "/dev/zero", "r")],
            ..container()
        };
        let plan = ContainerPlan { devices: devices.nodes, mounts: devices.mounts, ..container_plan_of(&container()) };
        let rules = device_rules(&spec, &plan);
        let access = Access { read: true, write: false, mknod: false };
        assert_eq!(rules.len(), DeviceRule::standard().len() + 2);
        assert_eq!(rules[rules.len() - 1], rule(false, 1, 5, access));
        assert_eq!(rules[rules.len() - 2], rule(false, 1, 3, Access { write: true, ..access }));
    }

    #[test]
    fn rules_as_cgroups_have_them() {
        let all = Access { read: true, write: true, mknod: true };
        let read = Access { write: false, mknod: false, ..all };
        for (text, kind, major, minor, access) in [
            ("c 1:3 rwm", DeviceKind::Character, Some(1), Some(3), all),
            ("b 8:* r", DeviceKind::Block, Some(8), None, read),
            ("a *:* mwr", DeviceKind::Any, None, None, all),
        ] {
            assert_eq!(device_rule(text), Some(DeviceRule { kind, major, minor, access }), "{text}");
        }
        for bad in ["", "c", "c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c 1:3 x", "c 1:3 rr", "c 1:3 r w", "c  1:3 r", "c -1:3 r"] {
            assert_eq!(device_rule(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_directory_becomes_all_its_devices() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, minor| {
            let path = directory.path().join(name);
            let device = rustix::fs::makedev(1, minor);
            let kind = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::from_raw_mode(0o600), device).unwrap();
        };
        make("b", 3);
        make("a", 5);
        fs::create_dir(directory.path().join("in")).unwrap();
        make("in/c", 7);
        fs::create_dir(directory.path().join("pts")).unwrap();
        make("pts/d", 7);
        fs::write(directory.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/dev/sda", directory.path().join("link")).unwrap();
        let host = directory.path().to_str().unwrap();
        let nodes = planned(&[device("/dev/set", host, "rwm")]).unwrap().nodes;
        let paths: Vec<_> = nodes.iter().map(|node| node.path.as_str()).collect();
        assert_eq!(paths, ["/dev/set/a", "/dev/set/b", "/dev/set/in/c"]);
    }

    #[test]
    fn privileged_gets_the_hosts_devices_but_not_the_standard_ones_twice() {
        let mut spec = container();
        spec.security.privileged = true;
        let devices = plan(&spec).unwrap();
        assert!(devices.nodes.iter().all(|node| !STANDARD.contains(&node.path.as_str()) && !node.path.starts_with("/dev/pts")));
        assert_eq!(device_rules(&spec, &container_plan_of(&container())), [DeviceRule::ALL]);
    }

    #[test]
    fn ex_25_what_is_no_device_is_refused() {
        for (target, host) in [
            ("/dev/x", "/dev/../etc"),
            ("/dev/../x", "/dev/null"),
            ("/dev/x", "/etc/passwd"),
            ("/dev/x", "/etc"),
            ("/x", "/etc"),
            ("/dev/x", "/dev/nonexistent"),
            ("/dev/x", "dev/null"),
            ("/dev/x", ""),
            ("dev/x", "/dev/null"),
            ("/dev", "/dev/null"),
            ("/dev/pts/0", "/dev/null"),
            ("/proc/x", "/dev/null"),
            ("/", "/dev/null"),
        ] {
            assert!(planned(&[device(target, host, "rw")]).is_err(), "{target} {host}");
        }
        for permissions in ["", "x", "rr", "rwmr", "RW", "r w"] {
            assert!(planned(&[device("/dev/x", "/dev/null", permissions)]).is_err(), "{permissions:?}");
        }
        assert!(planned(&[device("", "/dev/null", "r")]).unwrap().nodes.is_empty(), "a standard device is there already");
    }
}
