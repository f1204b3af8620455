//! Devices of containers of people.

use model::container::DeviceSpec;
use tonic::Status;

use super::convert::{invalid, shown};

/// Devices by path, and those by their CDI names.
pub(super) fn all(asked: &[String]) -> Result<(Vec<DeviceSpec>, Vec<String>), Status> {
    let (mut devices, mut cdi) = (Vec::new(), Vec::new());
    for text in asked {
        match text.starts_with('/') {
            true => devices.push(device(text)?),
            false if text.contains('/') && text.contains('=') => cdi.push(text.clone()),
            false => return Err(invalid(format!("{}: neither an absolute path nor the name of a CDI device", shown(text)))),
        }
    }
    Ok((devices, cdi))
}

/// `HOST[:CONTAINER][:PERMISSIONS]`
fn device(text: &str) -> Result<DeviceSpec, Status> {
    let bad = || invalid(format!("invalid device specification: {}", shown(text)));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, other] if other.starts_with('/') => (host, other, "rwm"),
        [host, permissions] => (host, host, permissions),
        [host, container, permissions] => (host, container, permissions),
        _ => return Err(bad()),
    };
    if permissions.is_empty() || !permissions.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) || container.is_empty() {
        return Err(bad());
    }
    Ok(DeviceSpec { container_path: container.to_owned(), host_path: host.to_owned(), permissions: permissions.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let read = |text: &str| {
            all(&[text.to_owned()]).map(|(devices, cdi)| {
                let device = devices.first().map(|d| format!("{} {} {}", d.host_path, d.container_path, d.permissions));
                device.unwrap_or_else(|| cdi.join(" "))
            })
        };
        assert_eq!(read("/dev/null").unwrap(), "/dev/null /dev/null rwm");
        assert_eq!(read("/dev/null:/dev/x").unwrap(), "/dev/null /dev/x rwm");
        assert_eq!(read("/dev/null:r").unwrap(), "/dev/null /dev/null r");
        assert_eq!(read("/dev/null:/dev/x:rw").unwrap(), "/dev/null /dev/x rw");
        assert_eq!(read("vendor.com/gpu=0").unwrap(), "vendor.com/gpu=0");
        for bad in ["null", "/dev/null:/x:rw:z", "/dev/null:q", "/dev/null:", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
