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
}

const KNOWN: &str = "volumes take type=none,o=bind,device=PATH, or no options at all";

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
        for (bad, says) in [
            (vec![("size", "1g")], "volume option size=\"1g\""),
            (vec![("type", "nfs"), ("o", "addr=1.2.3.4"), ("device", ":/x")], "volume option type=\"nfs\""),
            (vec![("type", "tmpfs"), ("device", "tmpfs")], "volume option type=\"tmpfs\""),
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
