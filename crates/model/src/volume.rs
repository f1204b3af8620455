//! Names of volumes.

use std::{fmt, str::FromStr};

/// NAME_MAX: a volume is a directory.
const LONGEST: usize = 255;

/// The name of a volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, so it is a file name and no path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

/// Why a text is not the name of a volume, in docker's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeNameError {
    /// Less than two characters.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    Short,
    /// More than the file system takes.
    #[error("volume name is too long: {0} bytes, more than 255")]
    Long(usize),
    /// Something else than letters, digits and a few signs.
    #[error(
        "{0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
         If you intended to pass a host directory, use absolute path"
    )]
    Characters(String),
}

impl VolumeName {
    /// A name that nobody chose: 64 hexadecimal digits. The caller brings the randomness.
    pub fn anonymous(random: [u8; 32]) -> Self {
        Self(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VolumeName {
    type Err = VolumeNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if text.contains(wrong) || text.starts_with(['_', '.', '-']) {
            return Err(VolumeNameError::Characters(text.chars().take(80).collect()));
        }
        match text.len() {
            0 | 1 => Err(VolumeNameError::Short),
            2..=LONGEST => Ok(Self(text.to_owned())),
            length => Err(VolumeNameError::Long(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names() {
        for good in ["ab", "A.b_c-9", "0..", &"x".repeat(255)] {
            assert_eq!(good.parse::<VolumeName>().unwrap().as_str(), good);
        }
        for bad in ["", "a", ".a", "..", "-a", "_a", "a/b", "/a", "a b", "ä1", "a\0", &"x".repeat(256)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
        let anonymous = VolumeName::anonymous([0xab; 32]);
        assert_eq!(anonymous.to_string(), "ab".repeat(32));
    }
}
