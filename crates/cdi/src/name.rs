//! Names of devices: `VENDOR/CLASS=DEVICE`.

use std::fmt;

use crate::Error;

/// The fully qualified name of a device, as kubelets and people write it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    kind: String,
    device: String,
}

impl Name {
    /// # Errors
    /// [`Error::Name`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why| Error::Name { device: text.chars().take(128).collect(), why };
        let (kind, device) = text.split_once('=').ok_or_else(|| refuse("not VENDOR/CLASS=DEVICE"))?;
        check_kind(kind).map_err(refuse)?;
        check_device(device).map_err(refuse)?;
        Ok(Self { kind: kind.to_owned(), device: device.to_owned() })
    }

    /// `VENDOR/CLASS`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The device among those of its kind.
    pub fn device(&self) -> &str {
        &self.device
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

/// `VENDOR/CLASS`.
pub(crate) fn check_kind(kind: &str) -> Result<(), &'static str> {
    let (vendor, class) = kind.split_once('/').ok_or("the kind is not VENDOR/CLASS")?;
    if vendor.len() > 253 || !is_name(vendor, b"-_.") || !vendor.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err("the vendor is not letters, digits, `-`, `_` and `.` that begin with a letter, up to 253");
    }
    if class.len() > 63 || !is_name(class, b"-_.") || !class.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err("the class is not letters, digits, `-`, `_` and `.` that begin with a letter, up to 63");
    }
    Ok(())
}

/// The device's part.
pub(crate) fn check_device(device: &str) -> Result<(), &'static str> {
    if device.len() > 253 || !is_name(device, b"-_.:") {
        return Err(
            "the device's name is not letters, digits, `-`, `_`, `.` and `:`, with a letter or digit at both ends, up to 253",
        );
    }
    Ok(())
}

fn is_name(text: &str, between: &[u8]) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || between.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["vendor.com/class=dev", "nvidia.com/gpu=0", "a/b=c", "v/c.d=GPU-1:2_3.x"] {
            assert_eq!(Name::parse(good).unwrap().to_string(), good);
        }
        let long = format!("v/{}=d", "c".repeat(64));
        for bad in [
            "",
            "gpu",
            "nvidia.com/gpu",
            "/gpu=0",
            "v/=0",
            "v/c=",
            "1v/c=0",
            "v/1c=d",
            "v/c=-0",
            "v/c=0:",
            "v/c/d=0",
            "v/c=a b",
            "v/c=a=b",
            &long,
        ] {
            assert!(matches!(Name::parse(bad), Err(Error::Name { .. })), "{bad}");
        }
    }
}
