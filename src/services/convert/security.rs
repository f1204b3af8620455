//! Security contexts. Unknown values are refused, never taken for something weaker.

use api::runtime as cri;
use model::container::{SeccompSpec, SecuritySpec, SelinuxSpec, UserSpec};
use model::pod::{NamespaceMode, PidMode, PodNamespaces, UserNamespace};

use super::{Result, absolute, container_target, invalid, known, lsm, no_climbing, shown, uid, userns};

/// The old way to name a profile. `empty` is what no text means.
pub(super) fn old_profile<'t>(
    field: &str,
    text: &'t str,
    empty: cri::security_profile::ProfileType,
) -> Result<(cri::security_profile::ProfileType, &'t str)> {
    use cri::security_profile::ProfileType;
    match text {
        "" => Ok((empty, "")),
        "unconfined" => Ok((ProfileType::Unconfined, "")),
        "runtime/default" | "docker/default" => Ok((ProfileType::RuntimeDefault, "")),
        text => match text.strip_prefix("localhost/") {
            Some(name) => Ok((ProfileType::Localhost, name)),
            None => Err(invalid(field, format_args!("{}: not unconfined, runtime/default or localhost/NAME", shown(text)))),
        },
    }
}

/// A seccomp profile. None at all is unconfined. A file of the host has to be named completely: an empty or relative
/// name must never end up as "unconfined" (CVE-2023-2431).
fn seccomp(field: &str, profile: Option<&cri::SecurityProfile>, deprecated: &str) -> Result<SeccompSpec> {
    use cri::security_profile::ProfileType;
    let (field, kind, path) = match (profile, deprecated) {
        (Some(profile), _) => {
            let field = format!("{field}.seccomp");
            (field.clone(), known(format_args!("{field}.profile_type"), profile.profile_type)?, profile.localhost_ref.as_str())
        }
        (None, text) => {
            let field = format!("{field}.seccomp_profile_path");
            let (kind, path) = old_profile(&field, text, ProfileType::Unconfined)?;
            (field, kind, path)
        }
    };
    match kind {
        ProfileType::RuntimeDefault => Ok(SeccompSpec::RuntimeDefault),
        ProfileType::Unconfined => Ok(SeccompSpec::Unconfined),
        ProfileType::Localhost => Ok(SeccompSpec::Localhost(no_climbing(&field, absolute(&field, path.to_owned())?)?)),
    }
}

/// What the model keeps of a pod's security context.
pub(super) struct PodSecurity {
    pub(super) namespaces: PodNamespaces,
    pub(super) privileged: bool,
    pub(super) run_as_user: Option<u32>,
    pub(super) run_as_group: Option<u32>,
    pub(super) selinux: Option<SelinuxSpec>,
    pub(super) userns: Option<UserNamespace>,
}

/// The security context of a pod. It has no process of its own but the supervisor, so seccomp and AppArmor are only checked for form
/// and `readonly_rootfs` and groups mean nothing.
pub(super) fn pod(asked: cri::LinuxSandboxSecurityContext) -> Result<PodSecurity> {
    const FIELD: &str = "linux.security_context";
    #[expect(deprecated, reason = "old clients send it")]
    let old_seccomp = &asked.seccomp_profile_path;
    seccomp(FIELD, asked.seccomp.as_ref(), old_seccomp)?;
    lsm::apparmor(FIELD, asked.apparmor.as_ref(), "")?;
    let options = asked.namespace_options.unwrap_or_default();
    let mode = |name: &str, number: i32| known::<cri::NamespaceMode>(format_args!("{FIELD}.namespace_options.{name}"), number);
    let shared = |name: &str, number: i32| match mode(name, number)? {
        cri::NamespaceMode::Pod => Ok(NamespaceMode::Pod),
        cri::NamespaceMode::Node => Ok(NamespaceMode::Node),
        other => {
            Err(invalid(format_args!("{FIELD}.namespace_options.{name}"), format_args!("{}: not POD or NODE", other.as_str_name())))
        }
    };
    let pid = match mode("pid", options.pid)? {
        cri::NamespaceMode::Pod => NamespaceMode::Pod,
        cri::NamespaceMode::Container => NamespaceMode::Container,
        cri::NamespaceMode::Node => NamespaceMode::Node,
        cri::NamespaceMode::Target => {
            return Err(invalid(format_args!("{FIELD}.namespace_options.pid"), "TARGET: only a container can have a target"));
        }
    };
    let number =
        |name: &str, value: Option<cri::Int64Value>| value.map(|v| uid(format_args!("{FIELD}.{name}"), v.value)).transpose();
    let namespaces = PodNamespaces { network: shared("network", options.network)?, pid, ipc: shared("ipc", options.ipc)? };
    Ok(PodSecurity {
        namespaces,
        userns: userns::pod(FIELD, &options, namespaces)?,
        privileged: asked.privileged,
        run_as_user: number("run_as_user", asked.run_as_user)?,
        run_as_group: number("run_as_group", asked.run_as_group)?,
        selinux: lsm::selinux(FIELD, asked.selinux_options.as_ref())?,
    })
}

/// The security context of a container. `pod_pid` is what it gets if it does not say whose PID namespace it wants.
pub(super) fn container(asked: cri::LinuxContainerSecurityContext, pod_pid: NamespaceMode) -> Result<SecuritySpec> {
    const FIELD: &str = "linux.security_context";
    #[expect(deprecated, reason = "old clients send them")]
    let (old_seccomp, old_apparmor) = (&asked.seccomp_profile_path, &asked.apparmor_profile);
    let seccomp = seccomp(FIELD, asked.seccomp.as_ref(), old_seccomp)?;
    let apparmor = lsm::apparmor(FIELD, asked.apparmor.as_ref(), old_apparmor)?;
    let pid = pid_mode(FIELD, asked.namespace_options.as_ref(), pod_pid)?;
    let policy: cri::SupplementalGroupsPolicy =
        known(format_args!("{FIELD}.supplemental_groups_policy"), asked.supplemental_groups_policy)?;
    let groups = asked.supplemental_groups.into_iter().map(|gid| uid(format_args!("{FIELD}.supplemental_groups"), gid));
    let paths = |name: &str, paths: Vec<String>| -> Result<Vec<String>> {
        paths.into_iter().map(|path| absolute(format_args!("{FIELD}.{name}"), path)).collect()
    };
    let capabilities = asked.capabilities.unwrap_or_default();
    let names = |name: &str, list: Vec<String>| -> Result<Vec<String>> {
        list.into_iter().map(|cap| capability(format_args!("{FIELD}.capabilities.{name}"), &cap)).collect()
    };
    Ok(SecuritySpec {
        group: asked.run_as_group.map(|gid| uid(format_args!("{FIELD}.run_as_group"), gid.value)).transpose()?,
        user: user(FIELD, asked.run_as_user, asked.run_as_username, asked.run_as_group.is_some())?,
        supplemental_groups: groups.collect::<Result<_>>()?,
        supplemental_groups_strict: policy == cri::SupplementalGroupsPolicy::Strict,
        add_capabilities: names("add_capabilities", capabilities.add_capabilities)?,
        drop_capabilities: names("drop_capabilities", capabilities.drop_capabilities)?,
        ambient_capabilities: names("add_ambient_capabilities", capabilities.add_ambient_capabilities)?,
        privileged: asked.privileged,
        readonly_rootfs: asked.readonly_rootfs,
        no_new_privs: asked.no_new_privs,
        masked_paths: paths("masked_paths", asked.masked_paths)?,
        readonly_paths: paths("readonly_paths", asked.readonly_paths)?,
        // Privileged means that nothing confines, whatever else is said.
        seccomp: if asked.privileged { SeccompSpec::Unconfined } else { seccomp },
        pid,
        apparmor,
        selinux: lsm::selinux(FIELD, asked.selinux_options.as_ref())?,
    })
}

fn user(field: &str, number: Option<cri::Int64Value>, name: String, has_group: bool) -> Result<UserSpec> {
    match (number, name) {
        (Some(_), name) if !name.is_empty() => Err(invalid(field, "run_as_user and run_as_username exclude each other")),
        (Some(number), _) => Ok(UserSpec::Id(uid(format_args!("{field}.run_as_user"), number.value)?)),
        (None, name) if name.contains(['\0', '\n', ':', '/']) => {
            Err(invalid(format_args!("{field}.run_as_username"), format_args!("{}: not a user's name", shown(&name))))
        }
        (None, name) if !name.is_empty() => Ok(UserSpec::Name(name)),
        (None, _) if has_group => {
            Err(invalid(format_args!("{field}.run_as_group"), "a group without run_as_user or run_as_username"))
        }
        (None, _) => Ok(UserSpec::Image),
    }
}

fn pid_mode(field: &str, options: Option<&cri::NamespaceOption>, pod_pid: NamespaceMode) -> Result<PidMode> {
    let pods = match pod_pid {
        NamespaceMode::Pod => PidMode::Pod,
        NamespaceMode::Container => PidMode::Container,
        NamespaceMode::Node => PidMode::Node,
    };
    let Some(options) = options else { return Ok(pods) };
    match known(format_args!("{field}.namespace_options.pid"), options.pid)? {
        cri::NamespaceMode::Pod => Ok(PidMode::Pod),
        cri::NamespaceMode::Container => Ok(PidMode::Container),
        cri::NamespaceMode::Node => Ok(PidMode::Node),
        cri::NamespaceMode::Target => Ok(PidMode::Target(container_target(&options.target_id)?)),
    }
}

/// A capability's name without `CAP_`, upper-case. Whether the kernel knows it is the engine's to say.
fn capability(field: impl std::fmt::Display, name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let word = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
    if bare.is_empty() || bare.len() > 64 || !bare.bytes().all(word) {
        return Err(invalid(field, format_args!("{}: not a capability", shown(name))));
    }
    Ok(bare.to_owned())
}

#[cfg(test)]
#[path = "security_tests.rs"]
mod tests;
