//! What `--volume`, `--mount` and `--tmpfs` say.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use api::creel::{Mount, mount::Kind};

use super::options::{bytes, wrong};
use crate::error::Error;

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

fn absolute(option: &'static str, text: &str, path: &str) -> Result<String, Error> {
    if path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Err(wrong(option, text, format!("invalid mount path: '{path}' must be absolute")))
    }
}

/// A path of this machine; one that begins with a dot is seen from here.
fn source(path: &str, here: &Path) -> String {
    let mut out = PathBuf::new();
    for part in here.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out.display().to_string()
}

/// `[SOURCE:]TARGET[:OPTIONS]`: a path of this machine, or the name of a volume; without a source an anonymous volume.
pub(super) fn volume(text: &str, here: &Path) -> Result<Mount, Error> {
    let parts: Vec<&str> = text.split(':').collect();
    let (from, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [from, target] => (*from, *target, ""),
        [from, target, options] => (*from, *target, *options),
        _ => return Err(wrong("--volume", text, "not [SOURCE:]TARGET[:OPTIONS]")),
    };
    let mut mount = Mount { target: absolute("--volume", text, target)?, ..Mount::default() };
    if from.is_empty() && parts.len() > 1 {
        return Err(wrong("--volume", text, "invalid spec: empty section between colons"));
    }
    if from.starts_with(['/', '.']) {
        mount.set_kind(Kind::Bind);
        mount.source = source(from, here);
    } else {
        mount.set_kind(Kind::Volume);
        from.clone_into(&mut mount.source);
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "z" | "Z" => option.clone_into(&mut mount.relabel),
            "nocopy" if mount.kind() == Kind::Volume => mount.no_copy = true,
            _ if PROPAGATIONS.contains(&option) && mount.kind() == Kind::Bind => option.clone_into(&mut mount.propagation),
            _ => return Err(wrong("--volume", text, format!("invalid mode: {option}"))),
        }
    }
    Ok(mount)
}

/// `PATH[:OPTIONS]`.
pub(super) fn tmpfs(text: &str) -> Result<Mount, Error> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut mount = Mount { target: absolute("--tmpfs", text, target)?, ..Mount::default() };
    mount.set_kind(Kind::Tmpfs);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => mount.tmpfs_size = bytes("--tmpfs", size)?,
            Some(("mode", mode)) => mount.tmpfs_mode = octal(text, mode)?,
            None if option == "ro" => mount.read_only = true,
            None if option == "rw" => mount.read_only = false,
            None => mount.options.push(option.to_owned()),
            Some(_) => mount.options.push(option.to_owned()),
        }
    }
    Ok(mount)
}

fn octal(text: &str, mode: &str) -> Result<u32, Error> {
    let mode = u32::from_str_radix(mode, 8).map_err(|_| wrong("--mount", text, "the mode is not an octal number"))?;
    if mode > 0o7777 { Err(wrong("--mount", text, "the mode is more than 7777")) } else { Ok(mode) }
}

/// Fields of a line of CSV; one in quotes may have commas.
fn fields(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

/// `type=bind|volume|tmpfs|image,source=,target=,...`.
pub(super) fn mount(text: &str, here: &Path) -> Result<Mount, Error> {
    let no = |why: String| wrong("--mount", text, why);
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut labels = BTreeMap::new();
    for field in fields(text) {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let key = match key.to_ascii_lowercase().as_str() {
            "src" => "source".to_owned(),
            "dst" | "destination" => "target".to_owned(),
            "ro" => "readonly".to_owned(),
            other => other.to_owned(),
        };
        match (key.as_str(), value) {
            ("readonly" | "volume-nocopy", None) => drop(values.insert(key, "true".to_owned())),
            ("volume-label", Some(value)) => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                labels.insert(name.to_owned(), value.to_owned());
            }
            (_, Some(value)) => drop(values.insert(key, value.to_owned())),
            (_, None) => return Err(no(format!("invalid field '{field}' must be a key=value pair"))),
        }
    }
    let kind = values.remove("type").unwrap_or_else(|| "volume".to_owned());
    let mut mount = Mount { must_exist: true, volume_labels: labels, ..Mount::default() };
    mount.set_kind(match kind.as_str() {
        "bind" => Kind::Bind,
        "volume" => Kind::Volume,
        "tmpfs" => Kind::Tmpfs,
        "image" => Kind::Image,
        other => return Err(no(format!("invalid mount type: {other}"))),
    });
    for (key, value) in &values {
        set(&mut mount, text, key, value)?;
    }
    check(mount, text, here)
}

fn set(mount: &mut Mount, text: &str, key: &str, value: &str) -> Result<(), Error> {
    let no = |why: String| wrong("--mount", text, why);
    let truth = || match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(no(format!("invalid value for {key}: {value}"))),
    };
    match (key, mount.kind()) {
        ("source", _) => value.clone_into(&mut mount.source),
        ("target", _) => mount.target = absolute("--mount", text, value)?,
        ("readonly", _) => mount.read_only = truth()?,
        ("bind-propagation", Kind::Bind) if PROPAGATIONS.contains(&value) => value.clone_into(&mut mount.propagation),
        ("bind-recursive", Kind::Bind) if matches!(value, "enabled" | "writable") => {}
        ("bind-recursive", Kind::Bind) if value == "readonly" => mount.recursive_read_only = true,
        ("volume-nocopy", Kind::Volume) => mount.no_copy = truth()?,
        ("volume-driver", Kind::Volume) if value == "local" => {}
        ("volume-subpath", Kind::Volume) | ("image-subpath", Kind::Image) => value.clone_into(&mut mount.subpath),
        ("tmpfs-size", Kind::Tmpfs) => mount.tmpfs_size = bytes("--mount", value)?,
        ("tmpfs-mode", Kind::Tmpfs) => mount.tmpfs_mode = octal(text, value)?,
        _ => return Err(no(format!("unexpected key '{key}' or value '{value}' for this type of mount"))),
    }
    Ok(())
}

fn check(mut mount: Mount, text: &str, here: &Path) -> Result<Mount, Error> {
    let no = |why: &str| Err(wrong("--mount", text, why));
    if mount.target.is_empty() {
        return no("target is required");
    }
    match mount.kind() {
        Kind::Bind | Kind::Image if mount.source.is_empty() => return no("source is required"),
        Kind::Bind if !mount.source.starts_with(['/', '.']) => {
            return no("invalid mount config for type \"bind\": invalid mount path: the source must be absolute");
        }
        Kind::Bind => mount.source = source(&mount.source, here),
        Kind::Tmpfs if !mount.source.is_empty() => return no("a tmpfs has no source"),
        _ => {}
    }
    if !mount.volume_labels.is_empty() && mount.kind() != Kind::Volume {
        return no("only a volume has labels");
    }
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> &'static Path {
        Path::new("/work/dir")
    }

    #[test]
    fn volumes() {
        let got = volume("/a:/b:ro,rslave", here()).unwrap();
        assert_eq!((got.kind(), got.source.as_str(), got.target.as_str(), got.read_only), (Kind::Bind, "/a", "/b", true));
        assert_eq!((got.propagation.as_str(), got.must_exist), ("rslave", false));
        assert_eq!(volume("./x/../y:/b", here()).unwrap().source, "/work/dir/y");
        let got = volume("data:/b:nocopy,z", here()).unwrap();
        assert_eq!((got.kind(), got.source.as_str(), got.no_copy, got.relabel.as_str()), (Kind::Volume, "data", true, "z"));
        let got = volume("/b", here()).unwrap();
        assert_eq!((got.kind(), got.source.as_str()), (Kind::Volume, ""));
        for bad in ["", "a:b", "/a:b", "/a:/b:zz", "/a:/b:ro:x", ":/b", "data:/b:rshared", "/a:/b:nocopy"] {
            assert!(volume(bad, here()).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts() {
        let got = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rshared,bind-recursive=readonly", here()).unwrap();
        assert_eq!((got.kind(), got.must_exist, got.read_only, got.recursive_read_only), (Kind::Bind, true, true, true));
        let got = mount("source=v,target=/b,volume-nocopy,volume-label=a=b,\"volume-subpath=x,y\"", here()).unwrap();
        assert_eq!((got.kind(), got.no_copy, got.subpath.as_str(), got.volume_labels.len()), (Kind::Volume, true, "x,y", 1));
        let got = mount("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=0700", here()).unwrap();
        assert_eq!((got.tmpfs_size, got.tmpfs_mode), (64 << 20, 0o700));
        for bad in [
            "",
            "type=bind,target=/b",
            "type=x,target=/b",
            "source=a",
            "target=b",
            "type=tmpfs,source=/a,target=/b",
            "nonsense",
            "type=bind,source=a,target=/b",
            "type=bind,source=/a,target=/b,volume-nocopy",
            "target=/b,readonly=maybe",
            "type=tmpfs,target=/t,tmpfs-mode=99",
            "type=bind,source=/a,target=/b,volume-label=a",
        ] {
            assert!(mount(bad, here()).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory() {
        let got = tmpfs("/run:rw,noexec,size=64k,mode=755").unwrap();
        assert_eq!((got.target.as_str(), got.tmpfs_size, got.tmpfs_mode), ("/run", 65536, 0o755));
        assert_eq!(got.options, ["noexec"]);
        assert!(tmpfs("run").is_err() && tmpfs("/run:size=x").is_err());
    }
}
