//! The security context of containers of people: confined unless something else is said.

use api::creel as own;
use engine::spec::{default_masked_paths, default_readonly_paths, possible_cpus};
use model::{
    capability,
    container::{AppArmorSpec, SeccompSpec, SecuritySpec, SelinuxSpec, UserSpec},
    pod::PidMode,
};
use tonic::Status;

use super::convert::{invalid, shown};

/// What a person says of it.
pub(super) fn of(host: &own::HostConfig) -> Result<SecuritySpec, Status> {
    let confined = !host.privileged;
    let mut security = SecuritySpec {
        user: UserSpec::Image,
        group: None,
        supplemental_groups: Vec::new(),
        supplemental_groups_strict: false,
        add_capabilities: capabilities(&host.cap_add)?,
        drop_capabilities: capabilities(&host.cap_drop)?,
        ambient_capabilities: Vec::new(),
        privileged: host.privileged,
        readonly_rootfs: host.readonly_rootfs,
        no_new_privs: false,
        masked_paths: if confined { default_masked_paths(possible_cpus()) } else { Vec::new() },
        readonly_paths: if confined { default_readonly_paths() } else { Vec::new() },
        seccomp: if confined { SeccompSpec::RuntimeDefault } else { SeccompSpec::Unconfined },
        pid: match (host.pid.as_str(), host.init) {
            ("host", _) => PidMode::Node,
            (_, true) => PidMode::Pod,
            (_, false) => PidMode::Container,
        },
        apparmor: None,
        selinux: None,
    };
    host.security_opt.iter().try_for_each(|option| apply(&mut security, option))?;
    Ok(security)
}

fn capabilities(names: &[String]) -> Result<Vec<String>, Status> {
    let one = |name: &String| {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match bare == "ALL" || capability::number(bare).is_some() {
            true => Ok(bare.to_owned()),
            false => Err(invalid(format!("invalid capability: unknown capability: \"{}\"", shown(name)))),
        }
    };
    names.iter().map(one).collect()
}

/// One `--security-opt`.
fn apply(security: &mut SecuritySpec, option: &str) -> Result<(), Status> {
    let bad = || Err(invalid(format!("invalid --security-opt: {:?}", shown(option))));
    if option == "no-new-privileges" {
        security.no_new_privs = true;
        return Ok(());
    }
    // docker took a colon once, and still does.
    let Some((key, value)) = option.split_once(['=', ':']) else { return bad() };
    match (key, value) {
        ("no-new-privileges", "true") => security.no_new_privs = true,
        ("no-new-privileges", "false") => security.no_new_privs = false,
        ("seccomp", "unconfined") => security.seccomp = SeccompSpec::Unconfined,
        ("seccomp", "builtin") => security.seccomp = SeccompSpec::RuntimeDefault,
        ("seccomp", file) if file.starts_with('/') => security.seccomp = SeccompSpec::Localhost(file.to_owned()),
        ("apparmor", "unconfined") => security.apparmor = Some(AppArmorSpec::Unconfined),
        ("apparmor", "") => return bad(),
        ("apparmor", name) => security.apparmor = Some(AppArmorSpec::Localhost(name.to_owned())),
        ("systempaths", "unconfined") => {
            security.masked_paths.clear();
            security.readonly_paths.clear();
        }
        ("mask", paths) => security.masked_paths.extend(paths.split(':').map(str::to_owned)),
        ("unmask", "ALL") => {
            security.masked_paths.clear();
            security.readonly_paths.clear();
        }
        ("unmask", paths) => {
            let shown = |path: &String| !paths.split(':').any(|unmasked| unmasked == path);
            security.masked_paths.retain(shown);
            security.readonly_paths.retain(shown);
        }
        ("label", label) => return selinux(security, label, option),
        _ => return bad(),
    }
    Ok(())
}

/// `label=disable`, `label=PART:VALUE`
fn selinux(security: &mut SecuritySpec, label: &str, option: &str) -> Result<(), Status> {
    if label == "disable" {
        security.selinux = Some(SelinuxSpec { kind: "spc_t".to_owned(), ..SelinuxSpec::default() });
        return Ok(());
    }
    let bad = || invalid(format!("invalid --security-opt: {:?}", shown(option)));
    let (part, value) = label.split_once(':').ok_or_else(bad)?;
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | ',');
    if value.is_empty() || value.len() > 256 || !value.chars().all(word) {
        return Err(bad());
    }
    let selinux = security.selinux.get_or_insert_default();
    let place = match part {
        "user" => &mut selinux.user,
        "role" => &mut selinux.role,
        "type" => &mut selinux.kind,
        "level" => &mut selinux.level,
        _ => return Err(bad()),
    };
    value.clone_into(place);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(options: &[&str]) -> Result<SecuritySpec, Status> {
        of(&own::HostConfig { security_opt: options.iter().map(|o| (*o).to_owned()).collect(), ..Default::default() })
    }

    #[test]
    fn confined_by_default() {
        let security = of(&own::HostConfig::default()).unwrap();
        assert!(security.masked_paths.contains(&"/proc/kcore".to_owned()) && !security.readonly_paths.is_empty());
        assert_eq!(
            (security.seccomp, security.pid, security.no_new_privs),
            (SeccompSpec::RuntimeDefault, PidMode::Container, false)
        );
        let privileged = of(&own::HostConfig { privileged: true, ..Default::default() }).unwrap();
        assert!(privileged.masked_paths.is_empty() && privileged.seccomp == SeccompSpec::Unconfined);
    }

    #[test]
    fn options() {
        assert!(with(&["no-new-privileges"]).unwrap().no_new_privs);
        assert!(with(&["no-new-privileges:true"]).unwrap().no_new_privs);
        assert_eq!(with(&["seccomp=unconfined"]).unwrap().seccomp, SeccompSpec::Unconfined);
        assert_eq!(with(&["apparmor=p"]).unwrap().apparmor, Some(AppArmorSpec::Localhost("p".into())));
        assert!(with(&["systempaths=unconfined"]).unwrap().masked_paths.is_empty());
        let masked = with(&["mask=/a:/b", "unmask=/proc/kcore"]).unwrap().masked_paths;
        assert!(masked.contains(&"/b".to_owned()) && !masked.contains(&"/proc/kcore".to_owned()));
        assert_eq!(with(&["label=level:s0:c1,c2"]).unwrap().selinux.unwrap().level, "s0:c1,c2");
        for bad in ["x", "seccomp=rel.json", "no-new-privileges=maybe", "label=x", "label=type:a b", "apparmor=", "x=y"] {
            assert!(with(&[bad]).is_err(), "{bad}");
        }
        let host = own::HostConfig { cap_add: vec!["net_admin".into()], cap_drop: vec!["CAP_CHOWN".into()], ..Default::default() };
        let security = of(&host).unwrap();
        assert_eq!((security.add_capabilities, security.drop_capabilities), (vec!["NET_ADMIN".into()], vec!["CHOWN".into()]));
        assert!(of(&own::HostConfig { cap_add: vec!["FLY".into()], ..Default::default() }).is_err());
    }
}
