//! Mounts and devices.

use api::runtime as cri;
use model::container::{BindMount, DeviceSpec, Propagation};

use super::{Refused, Result, absolute, invalid, known, shown, unsupported};

/// One mount; `field` is its name in the request.
pub(super) fn bind(field: &str, asked: cri::Mount) -> Result<BindMount> {
    if asked.image.is_some() || !asked.image_sub_path.is_empty() {
        return Err(Refused::ImageVolume {
            field: format!("{field}.image"),
            why: "creel does not mount images as volumes yet".into(),
        });
    }
    if !asked.mount_options.is_empty() {
        return Err(unsupported(format_args!("{field}.mount_options"), "creel takes no further mount options"));
    }
    if !asked.uid_mappings.is_empty() || !asked.gid_mappings.is_empty() {
        return Err(unsupported(format_args!("{field}.uidMappings"), "creel has no id-mapped mounts yet"));
    }
    let propagation = match known(format_args!("{field}.propagation"), asked.propagation)? {
        cri::MountPropagation::PropagationPrivate => Propagation::Private,
        cri::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        cri::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    if asked.recursive_read_only && !asked.readonly {
        return Err(invalid(format_args!("{field}.recursive_read_only"), "needs readonly"));
    }
    if asked.recursive_read_only && propagation != Propagation::Private {
        return Err(invalid(format_args!("{field}.recursive_read_only"), "needs PROPAGATION_PRIVATE"));
    }
    Ok(BindMount {
        container_path: absolute(format_args!("{field}.container_path"), asked.container_path)?,
        host_path: absolute(format_args!("{field}.host_path"), asked.host_path)?,
        readonly: asked.readonly,
        recursive_read_only: asked.recursive_read_only,
        propagation,
        selinux_relabel: asked.selinux_relabel,
    })
}

/// A mount as it was asked for.
pub(super) fn to_proto(mount: &BindMount) -> cri::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => cri::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    cri::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation: propagation.into(),
        selinux_relabel: mount.selinux_relabel,
        ..cri::Mount::default()
    }
}

/// One device.
pub(super) fn device(field: &str, asked: cri::Device) -> Result<DeviceSpec> {
    if asked.permissions.is_empty() || !asked.permissions.bytes().all(|c| b"rwm".contains(&c)) {
        let why = format!("{}: not some of r, w and m", shown(&asked.permissions));
        return Err(invalid(format_args!("{field}.permissions"), why));
    }
    Ok(DeviceSpec {
        container_path: absolute(format_args!("{field}.container_path"), asked.container_path)?,
        host_path: absolute(format_args!("{field}.host_path"), asked.host_path)?,
        permissions: asked.permissions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> cri::Mount {
        cri::Mount { container_path: "/c".into(), host_path: "/h".into(), ..cri::Mount::default() }
    }

    #[test]
    fn mounts_come_back_as_they_were_asked_for() {
        for propagation in 0..3 {
            let asked = cri::Mount { propagation, selinux_relabel: true, ..good() };
            assert_eq!(to_proto(&bind("m", asked.clone()).unwrap()), asked);
        }
        let asked = cri::Mount { readonly: true, recursive_read_only: true, ..good() };
        assert_eq!(to_proto(&bind("m", asked.clone()).unwrap()), asked);
    }

    #[test]
    fn refusals_name_the_field() {
        let mapping = vec![cri::IdMapping { host_id: 1, container_id: 0, length: 1 }];
        for (field, bad) in [
            ("m.image", cri::Mount { image: Some(Default::default()), ..good() }),
            ("m.image", cri::Mount { image_sub_path: "x".into(), ..good() }),
            ("m.mount_options", cri::Mount { mount_options: vec!["noexec".into()], ..good() }),
            ("m.uidMappings", cri::Mount { uid_mappings: mapping.clone(), ..good() }),
            ("m.uidMappings", cri::Mount { gid_mappings: mapping, ..good() }),
            ("m.propagation", cri::Mount { propagation: 3, ..good() }),
            ("m.recursive_read_only", cri::Mount { recursive_read_only: true, ..good() }),
            ("m.recursive_read_only", cri::Mount { recursive_read_only: true, readonly: true, propagation: 1, ..good() }),
            ("m.recursive_read_only", cri::Mount { recursive_read_only: true, readonly: true, propagation: 2, ..good() }),
            ("m.container_path", cri::Mount { container_path: "c".into(), ..good() }),
            ("m.host_path", cri::Mount { host_path: String::new(), ..good() }),
        ] {
            let text = bind("m", bad).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{field}: ")), "{text}");
        }
        let image = bind("m", cri::Mount { image: Some(Default::default()), ..good() });
        assert!(matches!(image, Err(Refused::ImageVolume { .. })));
    }

    #[test]
    fn devices() {
        let asked = |permissions: &str| cri::Device {
            container_path: "/dev/x".into(),
            host_path: "/dev/null".into(),
            permissions: permissions.into(),
        };
        assert!(device("d", asked("mrw")).is_ok());
        for bad in ["", "x", "rwx"] {
            assert!(device("d", asked(bad)).unwrap_err().to_string().starts_with("d.permissions: "));
        }
    }
}
