//! One specification: from bytes to checked edits.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    edits::{DeviceNode, DeviceType, Edits, Hook, HookStage, IntelRdt, Mount, NetDevice, Permissions},
    name::{check_device, check_kind},
    version::{self, Version},
    yaml,
};

/// How a specification is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `*.json`.
    Json,
    /// `*.yaml`.
    Yaml,
}

/// A specification that is sound in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// `VENDOR/CLASS` of all its devices.
    pub kind: String,
    /// Edits by device, in their order.
    pub devices: Vec<(String, Edits)>,
    /// Edits for whoever gets any of the devices; they come first.
    pub common: Edits,
}

/// Reads a specification.
///
/// # Errors
/// What is wrong with it, for people, without the file's name.
pub fn parse(bytes: &[u8], format: Format) -> Result<Spec, String> {
    let raw: RawSpec = match format {
        Format::Json => serde_json::from_slice(bytes).map_err(|e| e.to_string())?,
        Format::Yaml => yaml::from_str(std::str::from_utf8(bytes).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?,
    };
    let version = Version::parse(&raw.cdi_version).ok_or_else(|| format!("cdiVersion {:?} is not known", cut(&raw.cdi_version)))?;
    let mut needs = Needs(version);
    check_kind(&raw.kind).map_err(|why| format!("kind {:?}: {why}", cut(&raw.kind)))?;
    if raw.kind.split_once('/').is_some_and(|(_, class)| class.contains('.')) || !raw.annotations.is_empty() {
        needs.at_least(version::ANNOTATIONS, "a dot in the class, or annotations")?;
    }
    if raw.devices.is_empty() {
        return Err("has no devices".to_owned());
    }
    let common = edits(raw.container_edits.unwrap_or_default(), &mut needs)?;
    let mut devices: Vec<(String, Edits)> = Vec::with_capacity(raw.devices.len());
    let mut seen = std::collections::HashSet::new();
    for device in raw.devices {
        let of = |why: String| format!("device {:?}: {why}", cut(&device.name));
        check_device(&device.name).map_err(|why| of(why.to_owned()))?;
        if !seen.insert(device.name.clone()) {
            return Err(of("is there twice".to_owned()));
        }
        if device.name.starts_with(|c: char| c.is_ascii_digit()) {
            needs.at_least(version::HOST_PATH, "a name that begins with a digit").map_err(of)?;
        }
        if !device.annotations.is_empty() {
            needs.at_least(version::ANNOTATIONS, "annotations").map_err(of)?;
        }
        let edits = edits(device.container_edits, &mut needs).map_err(of)?;
        if edits.is_empty() {
            return Err(of("has no containerEdits".to_owned()));
        }
        devices.push((device.name.clone(), edits));
    }
    Ok(Spec { kind: raw.kind, devices, common })
}

/// The version that a specification says it is of.
struct Needs(Version);

impl Needs {
    fn at_least(&mut self, version: Version, what: &str) -> Result<(), String> {
        if self.0 >= version {
            return Ok(());
        }
        Err(format!("{what}: needs cdiVersion {} or later, and it says {}", version.text(), self.0.text()))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

fn edits(raw: RawEdits, needs: &mut Needs) -> Result<Edits, String> {
    if raw.intel_rdt.is_some() || !raw.additional_gids.is_empty() {
        needs.at_least(version::RDT_AND_GIDS, "intelRdt or additionalGids")?;
    }
    if !raw.net_devices.is_empty() {
        needs.at_least(version::NET_DEVICES, "netDevices")?;
    }
    if let Some(bad) = raw.env.iter().find(|variable| !is_variable(variable)) {
        return Err(format!("env {:?}: not NAME=VALUE", cut(bad)));
    }
    Ok(Edits {
        env: raw.env,
        device_nodes: raw.device_nodes.into_iter().map(|node| device_node(node, needs)).collect::<Result<_, _>>()?,
        net_devices: net_devices(raw.net_devices)?,
        mounts: raw.mounts.into_iter().map(|mount| checked_mount(mount, needs)).collect::<Result<_, _>>()?,
        hooks: raw.hooks.into_iter().map(hook).collect::<Result<_, _>>()?,
        additional_gids: raw.additional_gids.into_iter().filter(|gid| *gid != 0).collect(),
        intel_rdt: raw.intel_rdt.map(|rdt| intel_rdt(rdt, needs)).transpose()?,
    })
}

fn is_variable(text: &str) -> bool {
    text.find('=').is_some_and(|at| at > 0) && !text.contains('\0')
}

/// A path that the kernel takes, from the root.
fn absolute(field: &str, path: &str) -> Result<(), String> {
    let ok = path.starts_with('/') && path.len() < 4096 && !path.contains(char::is_control);
    if ok { Ok(()) } else { Err(format!("{field} {:?}: not an absolute path", cut(path))) }
}

fn device_node(raw: RawNode, needs: &mut Needs) -> Result<DeviceNode, String> {
    absolute("deviceNodes.path", &raw.path)?;
    let refuse = |what: &str| format!("device node {:?}: {what}", cut(&raw.path));
    if !raw.host_path.is_empty() {
        needs.at_least(version::HOST_PATH, "hostPath of a device node")?;
        absolute("deviceNodes.hostPath", &raw.host_path)?;
    }
    let kind = match raw.kind.as_str() {
        "" => None,
        "b" => Some(DeviceType::Block),
        "c" | "u" => Some(DeviceType::Char),
        "p" => Some(DeviceType::Fifo),
        _ => return Err(refuse("its type is none of b, c, u and p")),
    };
    // With a major number of 0, as without one, the numbers are the host's: no device has it.
    let number = |number: i64| u32::try_from(number).map_err(|_| refuse("its number is not from 0 to 4294967295"));
    let numbers = match (number(raw.major)?, number(raw.minor)?) {
        (0, _) => None,
        numbers => Some(numbers),
    };
    let mode = raw.file_mode.map(|mode| u32::try_from(mode).map_err(|_| refuse("its fileMode is none"))).transpose()?;
    Ok(DeviceNode {
        permissions: permissions(&raw.permissions).ok_or_else(|| refuse("its permissions are not some of rwm, or none"))?,
        host_path: if raw.host_path.is_empty() { raw.path.clone() } else { raw.host_path },
        path: raw.path,
        kind,
        numbers,
        mode: mode.map(|mode| mode & 0o777),
        uid: raw.uid,
        gid: raw.gid,
    })
}

fn permissions(text: &str) -> Option<Permissions> {
    match text {
        "" => Some(Permissions { read: true, write: true, mknod: true }),
        "none" => Some(Permissions { read: false, write: false, mknod: false }),
        _ if text.bytes().all(|byte| b"rwm".contains(&byte)) => {
            Some(Permissions { read: text.contains('r'), write: text.contains('w'), mknod: text.contains('m') })
        }
        _ => None,
    }
}

fn net_devices(raw: Vec<RawNetDevice>) -> Result<Vec<NetDevice>, String> {
    let mut devices: Vec<NetDevice> = Vec::new();
    for RawNetDevice { host_interface_name: host_name, name } in raw {
        if host_name.is_empty() || name.is_empty() {
            return Err("netDevices: a name is missing".to_owned());
        }
        if devices.iter().any(|other| other.host_name == host_name || other.name == name) {
            return Err(format!("netDevices: {:?} as {:?}: one of them is there twice", cut(&host_name), cut(&name)));
        }
        devices.push(NetDevice { host_name, name });
    }
    Ok(devices)
}

fn checked_mount(raw: RawMount, needs: &mut Needs) -> Result<Mount, String> {
    if !raw.kind.is_empty() {
        needs.at_least(version::MOUNT_TYPE, "type of a mount")?;
    }
    absolute("mounts.containerPath", &raw.container_path)?;
    if raw.host_path.is_empty() {
        return Err(format!("mount on {:?}: hostPath is missing", cut(&raw.container_path)));
    }
    Ok(Mount { host_path: raw.host_path, container_path: raw.container_path, kind: raw.kind, options: raw.options })
}

fn hook(raw: RawHook) -> Result<Hook, String> {
    let stage = match raw.hook_name.as_str() {
        "prestart" => HookStage::Prestart,
        "createRuntime" => HookStage::CreateRuntime,
        "createContainer" => HookStage::CreateContainer,
        "startContainer" => HookStage::StartContainer,
        "poststart" => HookStage::Poststart,
        "poststop" => HookStage::Poststop,
        other => return Err(format!("hook {:?}: no such hookName", cut(other))),
    };
    absolute("hooks.path", &raw.path)?;
    if let Some(bad) = raw.env.iter().find(|variable| !is_variable(variable)) {
        return Err(format!("hook {:?}: env {:?}: not NAME=VALUE", raw.hook_name, cut(bad)));
    }
    if raw.args.iter().any(|arg| arg.contains('\0')) {
        return Err(format!("hook {:?}: an argument contains a NUL", raw.hook_name));
    }
    let timeout = match raw.timeout.map(u32::try_from) {
        None => None,
        Some(Ok(seconds @ 1..)) => Some(seconds),
        Some(_) => return Err(format!("hook {:?}: its timeout is not a number of seconds above 0", raw.hook_name)),
    };
    Ok(Hook { stage, path: raw.path, args: raw.args, env: raw.env, timeout })
}

fn intel_rdt(raw: RawRdt, needs: &mut Needs) -> Result<IntelRdt, String> {
    if raw.schemata.is_some() || raw.enable_monitoring {
        needs.at_least(version::NET_DEVICES, "schemata or enableMonitoring of intelRdt")?;
    }
    let id = &raw.clos_id;
    if id != "/" && (id.len() > 255 || id == "." || id == ".." || id.contains(['/', '\0']) || id.contains(char::is_control)) {
        return Err("intelRdt.closID: not the name of a directory".to_owned());
    }
    let lines = [raw.l3_cache_schema, raw.mem_bw_schema].into_iter().filter(|line| !line.is_empty());
    let schemata: Vec<String> = lines.chain(raw.schemata.unwrap_or_default()).collect();
    if schemata.iter().any(|line| line.contains('\0')) {
        return Err("intelRdt: a schema contains a NUL".to_owned());
    }
    Ok(IntelRdt { clos_id: raw.clos_id, schemata, monitoring: raw.enable_monitoring })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSpec {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    devices: Vec<RawDevice>,
    container_edits: Option<RawEdits>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawDevice {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    container_edits: RawEdits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawEdits {
    env: Vec<String>,
    device_nodes: Vec<RawNode>,
    net_devices: Vec<RawNetDevice>,
    hooks: Vec<RawHook>,
    mounts: Vec<RawMount>,
    intel_rdt: Option<RawRdt>,
    // The specification writes it both ways, and its implementation reads both.
    #[serde(alias = "additionalGIDs")]
    additional_gids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawNode {
    path: String,
    #[serde(default)]
    host_path: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    major: i64,
    #[serde(default)]
    minor: i64,
    file_mode: Option<i64>,
    #[serde(default)]
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawNetDevice {
    host_interface_name: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawMount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawHook {
    hook_name: String,
    path: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawRdt {
    #[serde(rename = "closID")]
    clos_id: String,
    l3_cache_schema: String,
    mem_bw_schema: String,
    schemata: Option<Vec<String>>,
    enable_monitoring: bool,
}
