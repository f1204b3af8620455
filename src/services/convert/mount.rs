//! Mounts and devices.

use api::runtime as cri;
use model::{
    ImageId,
    container::{BindMount, DeviceSpec, ImageVolume, Propagation},
};

use super::{Refused, Result, absolute, annotations, invalid, known, no_climbing, plain, shown, userns};

/// One mount; `field` is its name in the request.
pub(super) fn bind(field: &str, asked: cri::Mount) -> Result<BindMount> {
    if !asked.image_sub_path.is_empty() {
        return Err(invalid(format_args!("{field}.image_sub_path"), "there is no image"));
    }
    let idmap = userns::mapping(field, &asked)?;
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
        mount_options: options(field, asked.mount_options)?,
        idmap,
    })
}

/// Options of mount(8) that make a mount do less (KEP-5855).
fn options(field: &str, asked: Vec<String>) -> Result<Vec<String>> {
    const ALLOWED: [&str; 3] = ["noexec", "nodev", "nosuid"];
    match asked.iter().find(|option| !ALLOWED.contains(&option.as_str())) {
        Some(bad) => {
            Err(invalid(format_args!("{field}.mount_options"), format_args!("{}: not noexec, nodev or nosuid", shown(bad))))
        }
        None => Ok(asked),
    }
}

/// An image as a volume; `image` is that field of the mount. Whatever is wrong with it, the kubelet is to know that it
/// is about an image volume.
pub(super) fn image_volume(field: &str, asked: cri::Mount, image: cri::ImageSpec) -> Result<ImageVolume> {
    let volume = |refused| match refused {
        Refused::Invalid { field, why } => Refused::ImageVolume { field, why },
        other @ Refused::ImageVolume { .. } => other,
    };
    read_image_volume(field, asked, image).map_err(volume)
}

fn read_image_volume(field: &str, asked: cri::Mount, image: cri::ImageSpec) -> Result<ImageVolume> {
    let refuse = |name: &str, why: &str| Err(invalid(format_args!("{field}.{name}"), why));
    if image.image.is_empty() {
        return refuse("image", "has no name");
    }
    if !asked.readonly {
        return refuse("readonly", "an image is mounted read-only or not at all");
    }
    if !asked.host_path.is_empty() {
        return refuse("host_path", "cannot be together with an image");
    }
    if asked.propagation != i32::from(cri::MountPropagation::PropagationPrivate) {
        return refuse("propagation", "nothing is ever mounted in an image: it has to be private");
    }
    let sub_path = asked.image_sub_path;
    if sub_path.starts_with('/') {
        return refuse("image_sub_path", "has to be relative to the image's root");
    }
    let at = format!("{field}.image_sub_path");
    Ok(ImageVolume {
        container_path: absolute(format_args!("{field}.container_path"), asked.container_path)?,
        image: image.image,
        sub_path: no_climbing(&at, plain(&at, sub_path)?)?,
        user_specified_image: image.user_specified_image,
        runtime_handler: image.runtime_handler,
        annotations: annotations(&format!("{field}.image.annotations"), image.annotations)?,
        mount_options: options(field, asked.mount_options)?,
    })
}

/// An image volume, with the image that it turned out to be: by that name the kubelet's garbage collection knows that
/// the image is in use. `None`: the record is of a creel that kept no such thing.
pub(super) fn image_to_proto(volume: &ImageVolume, id: Option<&ImageId>) -> cri::Mount {
    cri::Mount {
        container_path: volume.container_path.clone(),
        readonly: true,
        image: Some(cri::ImageSpec {
            image: id.map_or_else(|| volume.image.clone(), ToString::to_string),
            image_ref: id.map(ToString::to_string).unwrap_or_default(),
            user_specified_image: volume.user_specified_image.clone(),
            runtime_handler: volume.runtime_handler.clone(),
            annotations: volume.annotations.clone(),
        }),
        image_sub_path: volume.sub_path.clone(),
        mount_options: volume.mount_options.clone(),
        ..cri::Mount::default()
    }
}

/// A mount as it was asked for.
pub(super) fn to_proto(mount: &BindMount) -> cri::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => cri::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    let (uid_mappings, gid_mappings) = userns::mappings(mount.idmap);
    cri::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation: propagation.into(),
        selinux_relabel: mount.selinux_relabel,
        mount_options: mount.mount_options.clone(),
        uid_mappings,
        gid_mappings,
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
        let mapping = vec![cri::IdMapping { host_id: 65536, container_id: 0, length: 65536 }];
        let mount_options = ["nosuid", "noexec", "nodev"].map(str::to_owned).to_vec();
        let asked = cri::Mount { mount_options, uid_mappings: mapping.clone(), gid_mappings: mapping, ..good() };
        assert_eq!(to_proto(&bind("m", asked.clone()).unwrap()), asked);
    }

    #[test]
    fn refusals_name_the_field() {
        let mapping = vec![cri::IdMapping { host_id: 1, container_id: 0, length: 1 }];
        for (field, bad) in [
            ("m.image_sub_path", cri::Mount { image_sub_path: "x".into(), ..good() }),
            ("m.mount_options", cri::Mount { mount_options: vec!["exec".into()], ..good() }),
            ("m.mount_options", cri::Mount { mount_options: vec!["noexec,suid".into()], ..good() }),
            ("m.gidMappings", cri::Mount { uid_mappings: mapping.clone(), ..good() }),
            ("m.uidMappings", cri::Mount { gid_mappings: mapping.clone(), ..good() }),
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
    }

    fn image() -> cri::ImageSpec {
        cri::ImageSpec { image: "busybox".into(), user_specified_image: "b".into(), ..Default::default() }
    }

    #[test]
    fn image_volumes_come_back_with_what_they_are() {
        let mount_options = vec!["noexec".to_owned()];
        let asked = cri::Mount {
            container_path: "/v".into(),
            readonly: true,
            image_sub_path: "etc".into(),
            mount_options,
            ..Default::default()
        };
        let volume = image_volume("m", asked.clone(), image()).unwrap();
        assert_eq!((volume.image.as_str(), volume.sub_path.as_str()), ("busybox", "etc"));
        let id: ImageId = ImageId::new(format!("sha256:{}", "0a".repeat(32)).parse().unwrap());
        let shown = image_to_proto(&volume, Some(&id));
        let spec = cri::ImageSpec { image: id.to_string(), image_ref: id.to_string(), ..image() };
        assert_eq!(shown, cri::Mount { image: Some(spec), ..asked });
        assert_eq!(image_to_proto(&volume, None).image.unwrap().image, "busybox");
    }

    #[test]
    fn image_volumes_are_refused_as_such() {
        let good = || cri::Mount { container_path: "/v".into(), readonly: true, ..Default::default() };
        for (field, bad) in [
            ("m.readonly", cri::Mount { readonly: false, ..good() }),
            ("m.host_path", cri::Mount { host_path: "/h".into(), ..good() }),
            ("m.propagation", cri::Mount { propagation: 1, ..good() }),
            ("m.container_path", cri::Mount { container_path: String::new(), ..good() }),
            ("m.image_sub_path", cri::Mount { image_sub_path: "/etc".into(), ..good() }),
            ("m.image_sub_path", cri::Mount { image_sub_path: "a/../../b".into(), ..good() }),
            ("m.image_sub_path", cri::Mount { image_sub_path: "a\0".into(), ..good() }),
            ("m.mount_options", cri::Mount { mount_options: vec!["suid".into()], ..good() }),
        ] {
            let refused = image_volume("m", bad, image()).unwrap_err();
            assert!(matches!(refused, Refused::ImageVolume { .. }) && refused.to_string().starts_with(field), "{refused}");
        }
        assert!(matches!(image_volume("m", good(), Default::default()), Err(Refused::ImageVolume { .. })));
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
