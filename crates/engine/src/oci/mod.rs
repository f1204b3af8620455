//! A container's plan as config.json of the OCI runtime spec, for handlers that are OCI runtimes.
//!
//! The plan is the one place where things are decided; this is a translation, and says everything that the plan says or
//! refuses. What stays with the supervisor is not in it: log, streams, OOM score (whose refusal by the kernel is no reason
//! not to run) and limits, which the daemon has put into the cgroup that the runtime finds.

mod mounts;
mod process;
#[cfg(test)]
mod tests;

use std::path::Path;

use model::{
    plan::{ContainerPlan, DeviceNode, Hook, HookStage, JoinedNamespace, PodPlan, oci},
    pod::PidMode,
};
use serde_json::{Value, json};
use sys::cgroup::{Access, DeviceKind, DeviceRule};

pub(crate) use process::process;

/// What a container's configuration follows from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// The plan.
    pub plan: &'a ContainerPlan,
    /// Its pod's: which namespaces there are.
    pub pod: &'a PodPlan,
    /// What its cgroup allows, and the runtime would overwrite otherwise.
    pub devices: &'a [DeviceRule],
    /// The seccomp profile that the plan's program was compiled from.
    pub seccomp: Option<&'a Value>,
    /// The bundle's directory.
    pub bundle: &'a Path,
}

/// What a runtime cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("environment variable {name:?}: its value is not UTF-8, and OCI runtimes take nothing else")]
pub struct NotText {
    /// The variable's name.
    pub(crate) name: String,
}

/// The configuration.
///
/// # Errors
/// An environment that JSON cannot hold.
pub(crate) fn config(request: &Request<'_>) -> Result<Value, NotText> {
    let Request { plan, bundle, .. } = *request;
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": { "path": bundle.join(oci::ROOTFS), "readonly": plan.readonly_rootfs },
        "process": process(&plan.process)?,
        "mounts": mounts::mounts(plan, bundle),
        "linux": linux(request),
    });
    if let Some(plan) = &plan.hooks {
        config["hooks"] = hooks(&plan.list);
        config["annotations"] = json!(plan.annotations);
    }
    Ok(config)
}

/// By stage, each in order. The runtime runs them, not the supervisor.
fn hooks(list: &[Hook]) -> Value {
    let stages = [
        ("prestart", HookStage::Prestart),
        ("createRuntime", HookStage::CreateRuntime),
        ("createContainer", HookStage::CreateContainer),
        ("startContainer", HookStage::StartContainer),
        ("poststart", HookStage::Poststart),
        ("poststop", HookStage::Poststop),
    ];
    let of = |stage| list.iter().filter(move |hook| hook.stage == stage).map(hook).collect::<Vec<_>>();
    stages.into_iter().map(|(name, stage)| (name, of(stage))).filter(|(_, hooks)| !hooks.is_empty()).collect()
}

fn hook(hook: &Hook) -> Value {
    json!({ "path": hook.path, "args": hook.args, "env": hook.env, "timeout": hook.timeout })
}

fn linux(request: &Request<'_>) -> Value {
    let plan = request.plan;
    let mut linux = json!({
        "cgroupsPath": plan.cgroup,
        "namespaces": namespaces(request),
        "devices": plan.devices.iter().map(device).collect::<Vec<_>>(),
        "resources": { "devices": rules(request.devices) },
        "rootfsPropagation": mounts::propagation(plan.root_propagation),
        "maskedPaths": plan.masked_paths,
        "readonlyPaths": plan.readonly_paths,
    });
    if let Some(label) = &plan.mount_label {
        linux["mountLabel"] = label.as_str().into();
    }
    if let Some(seccomp) = request.seccomp {
        linux["seccomp"] = seccomp.clone();
    }
    linux
}

/// A namespace that is not listed is the runtime's own, and that is the host's but for the pod's that the supervisor is in:
/// those are listed, because a runtime need not inherit.
fn namespaces(request: &Request<'_>) -> Vec<Value> {
    let Request { plan, pod, bundle, .. } = *request;
    let joined = |kind: &str, name: &str| json!({ "type": kind, "path": bundle.join(oci::NAMESPACES).join(name) });
    let mut list = vec![json!({ "type": "mount" })];
    let is = |kind, own: bool| own || pod.joined().contains(&kind);
    let network = is(JoinedNamespace::Network, pod.own_network);
    let ipc = is(JoinedNamespace::Ipc, pod.own_ipc);
    let pods = [("network", "net", network), ("ipc", "ipc", ipc), ("uts", "uts", pod.hostname.is_some())];
    list.extend(pods.iter().filter(|(_, _, own)| *own).map(|(kind, name, _)| joined(kind, name)));
    match plan.pid {
        PidMode::Container => list.push(json!({ "type": "pid" })),
        PidMode::Pod | PidMode::Target(_) => list.push(joined("pid", "pid")),
        PidMode::Node => {}
    }
    if plan.own_cgroup_namespace {
        list.push(json!({ "type": "cgroup" }));
    }
    list
}

fn device(node: &DeviceNode) -> Value {
    json!({
        "path": node.path,
        "type": if node.block { "b" } else { "c" },
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
    })
}

/// Nothing is allowed but what is listed. runc and crun add that nodes of any device may be made, as for everybody.
fn rules(rules: &[DeviceRule]) -> Vec<Value> {
    let nothing = json!({ "allow": false, "access": "rwm" });
    std::iter::once(nothing).chain(rules.iter().map(rule)).collect()
}

fn rule(rule: &DeviceRule) -> Value {
    let Access { read, write, mknod } = rule.access;
    let access: String = [(read, 'r'), (write, 'w'), (mknod, 'm')].iter().filter(|(is, _)| *is).map(|(_, c)| *c).collect();
    let kind = match rule.kind {
        DeviceKind::Character => "c",
        DeviceKind::Block => "b",
        DeviceKind::Any => "a",
    };
    let mut value = json!({ "allow": true, "type": kind, "access": access });
    for (name, number) in [("major", rule.major), ("minor", rule.minor)] {
        if let Some(number) = number {
            value[name] = number.into();
        }
    }
    value
}
