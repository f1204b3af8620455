//! The options of the driver `local`, as docker's users write them for mount(8): `type`, `o`, `device`.

use std::{collections::BTreeMap, path::PathBuf};

use super::Error;

/// Where the data of a volume are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the store.
    Own,
    /// At a path of this machine (`type=none,o=bind,device=PATH`).
    Bind {
        /// Absolute.
        path: PathBuf,
        /// `o=bind,ro`
        readonly: bool,
    },
    /// In memory, as long as a container runs that has it (`type=tmpfs,device=tmpfs,o=size=10m`).
    Memory(Memory),
}

/// A file system of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Bytes; `None`: half of the machine's.
    pub(crate) size: Option<u64>,
    /// Of its top.
    pub(crate) mode: Option<u32>,
    /// It cannot be written to.
    pub(crate) readonly: bool,
}

const KNOWN: &str = "volumes take type=none,o=bind,device=PATH, type=tmpfs,device=tmpfs,o=size=BYTES, or no options at all";

impl Source {
    /// Understands options.
    ///
    /// # Errors
    /// Names the one that is not understood.
    pub(crate) fn read(options: &BTreeMap<String, String>) -> Result<Self, Error> {
        let refuse = |option: &str, why| {
            let cut = |text: &str| text.chars().take(80).collect::<String>();
            let value = options.get(option).map_or("", String::as_str);
            Err(Error::Option { option: cut(option), value: cut(value), why })
        };
        if options.is_empty() {
            return Ok(Self::Own);
        }
        if let Some(unknown) = options.keys().find(|key| !matches!(key.as_str(), "type" | "o" | "device")) {
            return refuse(unknown, KNOWN);
        }
        let value = |key: &str| options.get(key).map_or("", String::as_str);
        if value("type") == "tmpfs" {
            let memory = value("o").split(',').filter(|option| !option.is_empty()).try_fold(Memory::default(), Memory::with);
            return memory.map_or_else(
                || refuse("o", "the options of tmpfs are size=, mode=, ro and rw"),
                |memory| Ok(Self::Memory(memory)),
            );
        }
        if !matches!(value("type"), "" | "none" | "bind") {
            return refuse("type", "file systems are not mounted by volumes: mount it, and make a volume with o=bind of it");
        }
        let (mut bind, mut readonly) = (value("type") == "bind", false);
        for option in value("o").split(',').filter(|option| !option.is_empty()) {
            match option {
                "bind" | "rbind" => bind = true,
                "ro" => readonly = true,
                "rw" => readonly = false,
                _ => return refuse("o", "the options are bind, rbind, ro and rw"),
            }
        }
        let path = value("device");
        match (bind, sys::path::is_normal(path) && path.len() < 4096) {
            (false, _) => refuse("o", KNOWN),
            (true, false) => refuse("device", "has to be a plain absolute path"),
            (true, true) => Ok(Self::Bind { path: path.into(), readonly }),
        }
    }
}

impl Memory {
    /// With one option of mount(8).
    fn with(self, option: &str) -> Option<Self> {
        match option.split_once('=') {
            Some(("size", text)) => Some(Self { size: Some(bytes(text)?), ..self }),
            Some(("mode", text)) => {
                let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)?;
                Some(Self { mode: Some(mode), ..self })
            }
            None if option == "ro" || option == "rw" => Some(Self { readonly: option == "ro", ..self }),
            _ => None,
        }
    }
}

/// `64m`, as tmpfs(5) reads it.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Source, String> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Source::read(&options).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_understood() {
        assert_eq!(read(&[]), Ok(Source::Own));
        let bind = |readonly| Ok(Source::Bind { path: "/srv".into(), readonly });
        assert_eq!(read(&[("type", "none"), ("o", "bind"), ("device", "/srv")]), bind(false));
        assert_eq!(read(&[("o", "ro,rbind"), ("device", "/srv")]), bind(true));
        assert_eq!(read(&[("type", "bind"), ("device", "/srv")]), bind(false));
        let memory = |size, mode, readonly| Ok(Source::Memory(Memory { size, mode, readonly }));
        assert_eq!(
            read(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=700")]),
            memory(Some(1 << 20), Some(0o700), false)
        );
        assert_eq!(read(&[("type", "tmpfs"), ("o", "ro")]), memory(None, None, true));
        for (bad, says) in [
            (vec![("size", "1g")], "volume option size=\"1g\""),
            (vec![("type", "nfs"), ("o", "addr=1.2.3.4"), ("device", ":/x")], "volume option type=\"nfs\""),
            (vec![("type", "tmpfs"), ("device", "tmpfs"), ("o", "uid=3")], "volume option o="),
            (vec![("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1x")], "volume option o="),
            (vec![("o", "bind,uid=3"), ("device", "/srv")], "volume option o="),
            (vec![("o", "bind")], "volume option device="),
            (vec![("o", "bind"), ("device", "/srv/../etc")], "volume option device="),
            (vec![("device", "/srv")], "volume option o="),
        ] {
            let text = read(&bad).unwrap_err();
            assert!(text.starts_with(says), "{text}");
        }
    }
}
