//! The directories that specifications lie in.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use sys::path::only_root_writes;

use crate::{Edits, Error, Format, Name, Problem, Spec, spec::parse};

/// The longest specification in bytes.
const LONGEST: u64 = 1 << 20;
/// Files of one directory at most.
const MOST_FILES: usize = 1024;
/// open(2) O_NONBLOCK, so that a FIFO among the files holds nobody up.
const NONBLOCK: i32 = 0o4000;

/// What is to be done to a container that gets these devices. `directories`: in a later one a device is described instead of,
/// not besides, in an earlier one.
///
/// # Errors
/// A name that is none, and a device that nobody, or more than one file of its directory, describes.
pub fn resolve(directories: &[PathBuf], devices: &[String]) -> Result<Edits, Error> {
    let mut names: Vec<Name> = Vec::new();
    for device in devices {
        let name = Name::parse(device)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(Edits::default());
    }
    let mut problems = Vec::new();
    let mut found: HashMap<Name, Found> = HashMap::new();
    for (priority, directory) in directories.iter().enumerate() {
        for (path, spec) in read(directory, &mut problems) {
            let spec = Rc::new(spec);
            for name in names.iter().filter(|name| name.kind() == spec.kind) {
                let Some(at) = spec.devices.iter().position(|(device, _)| device == name.device()) else { continue };
                let new = Found { priority, path: path.clone(), spec: spec.clone(), at, also: None };
                match found.get_mut(name).filter(|other| other.priority == priority) {
                    Some(other) => other.also = Some(new.path),
                    None => drop(found.insert(name.clone(), new)),
                }
            }
        }
    }
    merge(&names, &found).map_err(|missing| match missing {
        Missing::Nowhere(device) => Error::Unknown { device, directories: directories.to_vec(), problems },
        Missing::Twice { device, first, second } => Error::Conflict { device, first, second },
    })
}

/// Where a device is described.
struct Found {
    priority: usize,
    path: PathBuf,
    spec: Rc<Spec>,
    at: usize,
    /// Another file of the same directory that describes it.
    also: Option<PathBuf>,
}

enum Missing {
    Nowhere(String),
    Twice { device: String, first: PathBuf, second: PathBuf },
}

fn merge(names: &[Name], found: &HashMap<Name, Found>) -> Result<Edits, Missing> {
    let mut edits = Edits::default();
    let mut begun: Vec<&Path> = Vec::new();
    for name in names {
        let device = name.to_string();
        let found = found.get(name).ok_or_else(|| Missing::Nowhere(device.clone()))?;
        if let Some(second) = &found.also {
            return Err(Missing::Twice { device, first: found.path.clone(), second: second.clone() });
        }
        if !begun.contains(&found.path.as_path()) {
            begun.push(&found.path);
            edits.append(found.spec.common.clone());
        }
        edits.append(found.spec.devices[found.at].1.clone());
    }
    Ok(edits)
}

/// All sound specifications of a directory, by name; what is not sound is a problem. A directory that is not there is none.
fn read(directory: &Path, problems: &mut Vec<Problem>) -> Vec<(PathBuf, Spec)> {
    let mut problem = |path: &Path, why: String| problems.push(Problem { path: path.to_owned(), why });
    let files = match list(directory) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problem(directory, error.to_string());
            return Vec::new();
        }
    };
    let mut specs = Vec::new();
    for (path, format) in files {
        match load(&path, format) {
            Ok(spec) => specs.push((path, spec)),
            Err(why) => problem(&path, why),
        }
    }
    specs
}

fn list(directory: &Path) -> io::Result<Vec<(PathBuf, Format)>> {
    // A specification decides what runs as root on the host.
    only_root_writes(&fs::metadata(directory)?)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Format::Json,
            Some("yaml") => Format::Yaml,
            _ => continue,
        };
        if files.len() == MOST_FILES {
            return Err(io::Error::other("more than 1024 files"));
        }
        files.push((path, format));
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

fn load(path: &Path, format: Format) -> Result<Spec, String> {
    let open = || -> io::Result<Vec<u8>> {
        let file = File::options().read(true).custom_flags(NONBLOCK).open(path)?;
        let found = file.metadata()?;
        only_root_writes(&found)?;
        if !found.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::other("longer than 1 MiB"));
        }
        Ok(bytes)
    };
    parse(&open().map_err(|e| e.to_string())?, format)
}
