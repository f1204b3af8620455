//! Which image of an index is ours.

use std::fmt;

/// An operating system and processor (OCI image index, `platform`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// Go's name for the architecture: `amd64`, `arm64`, `arm` ..
    pub architecture: String,
    /// `v7`, `v8`, `v1` ..; empty for the architecture's usual one.
    pub variant: String,
}

impl Platform {
    /// The platform this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        let variant = match (architecture, cfg!(target_feature = "v7")) {
            ("arm", false) => "v6",
            _ => "",
        };
        Self { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// Reads `OS/ARCH[/VARIANT]`, the form of `--platform`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
        let begins = |s: &str| s.bytes().next().is_none_or(|c| c.is_ascii_alphanumeric());
        let inside = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let word = |s: &str| s.len() <= 64 && begins(s) && s.bytes().all(inside);
        let well = !os.is_empty() && !architecture.is_empty() && [os, architecture, variant].into_iter().all(word);
        (well && parts.next().is_none()).then(|| Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        })
    }

    /// With the other names of architectures (`x86_64`, `aarch64`, `armhf`) replaced and the usual variant made explicit.
    fn normal(&self) -> (String, &'static str, u32) {
        let os = if self.os.eq_ignore_ascii_case("macos") { "darwin".to_owned() } else { self.os.to_ascii_lowercase() };
        let level = self.variant.trim_start_matches('v').parse::<u32>().ok();
        match self.architecture.to_ascii_lowercase().as_str() {
            "amd64" | "x86_64" | "x86-64" => (os, "amd64", level.unwrap_or(1)),
            "arm64" | "aarch64" => (os, "arm64", level.unwrap_or(8)),
            "armhf" => (os, "arm", 7),
            "armel" => (os, "arm", 6),
            "arm" => (os, "arm", level.unwrap_or(7)),
            "386" | "i386" => (os, "386", 0),
            _ => (os, "", 0),
        }
    }

    /// How well an offered image suits this machine: `None` not at all, else the higher the better.
    pub fn suits(&self, offered: &Self) -> Option<u32> {
        let ((our_os, ours, our_level), (os, theirs, level)) = (self.normal(), offered.normal());
        if our_os != os {
            return None;
        }
        match (ours, theirs) {
            ("", "") => (self.architecture.eq_ignore_ascii_case(&offered.architecture)
                && (offered.variant.is_empty() || self.variant == offered.variant))
                .then_some(1),
            // A newer level of these runs what was built for the older ones.
            ("amd64" | "arm" | "arm64", _) if ours == theirs => (level <= our_level).then_some(level + 1),
            _ => (ours == theirs).then_some(1),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    fn best<'a>(ours: &str, offered: &[&'a str]) -> Option<&'a str> {
        let ours = platform(ours);
        let mut best: Option<(u32, &str)> = None;
        for text in offered {
            if let Some(score) = ours.suits(&platform(text)).filter(|score| best.is_none_or(|(old, _)| *score > old)) {
                best = Some((score, text));
            }
        }
        best.map(|(_, text)| text)
    }

    #[test]
    fn variants_are_chosen() {
        assert_eq!(best("linux/amd64", &["linux/arm64", "linux/amd64"]), Some("linux/amd64"));
        assert_eq!(best("linux/amd64", &["linux/amd64/v3", "linux/amd64/v1"]), Some("linux/amd64/v1"));
        assert_eq!(best("linux/amd64/v3", &["linux/amd64", "linux/amd64/v3", "linux/amd64/v4"]), Some("linux/amd64/v3"));
        assert_eq!(best("linux/amd64", &["linux/x86_64"]), Some("linux/x86_64"));
        assert_eq!(best("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"]), Some("linux/arm64/v8"));
        assert_eq!(best("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"]), Some("linux/arm/v6"));
        assert_eq!(best("linux/arm", &["linux/arm/v6", "linux/arm/v7"]), Some("linux/arm/v7"));
        assert_eq!(best("linux/riscv64", &["linux/riscv64"]), Some("linux/riscv64"));
        assert_eq!(best("linux/amd64", &["windows/amd64", "linux/386", "unknown/unknown"]), None);
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
        for bad in ["", "linux", "/", "linux/", "a/b/c/d", "linux/amd64/\n", "../.."] {
            assert!(Platform::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(Platform::host().os, "linux");
    }
}
