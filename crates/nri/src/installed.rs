//! Pre-installed plugins: programs `NN-NAME` in a directory, their configuration in another.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{Error, plugin::check_name};

/// Longest configuration of a plugin: it travels in one message.
const MAX_CONFIG: u64 = 1 << 20;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Two digits.
    pub index: String,
    /// Its name.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Text of its configuration; empty: it has none.
    pub config: String,
}

/// All of them by name; none if the directory is not there. Files that cannot be run are no plugins.
///
/// # Errors
/// A program that anybody but root could change; a name that is none; a configuration that cannot be read.
pub fn discover(plugins: &Path, configs: &Path) -> Result<Vec<Installed>, Error> {
    let entries = match fs::read_dir(plugins) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return refuse(plugins, e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.or_else(|e| refuse(plugins, e))?.path();
        // Through links: a plugin may be a link to where its package put it.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
            continue;
        }
        if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            return refuse(&path, "must be root's and writable by nobody else");
        }
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((index, name)) = file.split_once('-') else { return refuse(&path, "must be called NN-NAME") };
        check_name(index, name).or_else(|why| refuse(&path, why))?;
        let config = config(configs, file, name)?;
        found.push(Installed { index: index.to_owned(), name: name.to_owned(), path, config });
    }
    found.sort_by(|a, b| (&a.index, &a.name).cmp(&(&b.index, &b.name)));
    Ok(found)
}

fn refuse<T>(path: &Path, why: impl ToString) -> Result<T, Error> {
    Err(Error::Installed { path: path.to_owned(), why: why.to_string() })
}

/// `NN-NAME.conf`, else `NAME.conf`.
fn config(dir: &Path, file: &str, name: &str) -> Result<String, Error> {
    for path in [dir.join(format!("{file}.conf")), dir.join(format!("{name}.conf"))] {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_CONFIG => return refuse(&path, "is longer than 1 MiB"),
            Ok(_) => return fs::read_to_string(&path).or_else(|e| refuse(&path, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return refuse(&path, e),
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn programs_by_index_with_their_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let (plugins, configs) = (dir.path().join("plugins"), dir.path().join("conf.d"));
        assert_eq!(discover(&plugins, &configs).unwrap(), []);
        fs::create_dir(&plugins).unwrap();
        fs::create_dir(&configs).unwrap();
        let put = |name: &str, mode| {
            fs::write(plugins.join(name), "#!/bin/sh\n").unwrap();
            fs::set_permissions(plugins.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        put("10-b", 0o755);
        put("00-a-x", 0o700);
        put("readme", 0o644);
        fs::write(configs.join("b.conf"), "of b").unwrap();
        fs::write(configs.join("a-x.conf"), "general").unwrap();
        fs::write(configs.join("00-a-x.conf"), "special").unwrap();
        let found = discover(&plugins, &configs).unwrap();
        let seen: Vec<_> = found.iter().map(|p| (p.index.as_str(), p.name.as_str(), p.config.as_str())).collect();
        assert_eq!(seen, [("00", "a-x", "special"), ("10", "b", "of b")]);
        for (name, mode, why) in [("x-y", 0o755, "two digits"), ("noindex", 0o755, "NN-NAME"), ("20-c", 0o757, "nobody else")] {
            put(name, mode);
            let error = discover(&plugins, &configs).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(name), "{error}");
            fs::remove_file(plugins.join(name)).unwrap();
        }
    }
}
