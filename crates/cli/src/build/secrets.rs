//! `--secret`: what RUN may see and nothing keeps.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::PathBuf};

use crate::{
    container::options::{here, wrong},
    error::{self, Error},
};

/// The largest secret, as docker has it.
const LARGEST: u64 = 500 << 10;

/// Where the value of a secret is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Variable(String),
    File(PathBuf),
}

/// The values of all secrets, by their ids.
pub(super) fn read(flags: &[String]) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    flags.iter().map(|text| parse(text, here).and_then(|(id, place)| Ok((id.clone(), value(&id, place)?)))).collect()
}

/// `id=ID[,src=FILE|,env=NAME][,type=file|env]`; without a place, the variable or the file of that name.
fn parse(text: &str, here: impl Fn(&str) -> Option<String>) -> Result<(String, Place), Error> {
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| wrong("--secret", text, format!("invalid field '{field}' must be a key=value pair")))?;
        let place = match key.to_ascii_lowercase().as_str() {
            "id" => &mut id,
            "src" | "source" => &mut source,
            "env" => &mut variable,
            "type" => &mut kind,
            _ => return Err(wrong("--secret", text, format!("unexpected key '{key}' in '{field}'"))),
        };
        *place = Some(value.to_owned());
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("--secret", text, "an id is missing"))?;
    let place = match (kind.as_deref(), variable, source) {
        (None | Some("file" | "env"), Some(_), Some(_)) => return Err(wrong("--secret", text, "either a file or a variable")),
        (None | Some("env"), Some(name), None) | (Some("env"), None, Some(name)) => Place::Variable(name),
        (None | Some("file"), None, Some(file)) => Place::File(file.into()),
        (Some("env"), None, None) => Place::Variable(id.clone()),
        (Some("file"), None, None) => Place::File(id.clone().into()),
        (None, None, None) if here(&id).is_some() => Place::Variable(id.clone()),
        (None, None, None) => Place::File(id.clone().into()),
        (Some("file"), Some(_), None) => return Err(wrong("--secret", text, "type=file with a variable")),
        (Some(other), ..) => return Err(wrong("--secret", text, format!("unsupported secret type {other:?}"))),
    };
    Ok((id, place))
}

fn value(id: &str, place: Place) -> Result<Vec<u8>, Error> {
    let file = match place {
        Place::Variable(name) => {
            let missing = || Error::Words(format!("ERROR: secret {id}: the variable {name} is not set"));
            return here(&name).map(String::into_bytes).ok_or_else(missing);
        }
        Place::File(file) => file,
    };
    let failed = || format!("ERROR: secret {id}: open {}", file.display());
    let mut value = Vec::new();
    File::open(&file).and_then(|open| open.take(LARGEST + 1).read_to_end(&mut value)).map_err(error::io(failed()))?;
    if value.len() as u64 > LARGEST {
        return Err(Error::Words(format!("ERROR: secret {id}: {} is larger than 500 KiB", file.display())));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_secrets() {
        let told = |text: &str| parse(text, |name| (name == "TOKEN").then(|| "x".to_owned())).map_err(|e| e.to_string());
        let file = |id: &str, path: &str| Ok((id.to_owned(), Place::File(path.into())));
        let variable = |id: &str, name: &str| Ok((id.to_owned(), Place::Variable(name.to_owned())));
        assert_eq!(told("id=a,src=/x"), file("a", "/x"));
        assert_eq!(told("id=a,env=B"), variable("a", "B"));
        assert_eq!(told("type=env,id=a,source=B"), variable("a", "B"));
        assert_eq!(told("id=TOKEN"), variable("TOKEN", "TOKEN"));
        assert_eq!(told("id=other"), file("other", "other"));
        for bad in ["", "src=/x", "id=a,scr=/x", "id=a,src=b,env=c", "id=a,type=cloud", "id="] {
            assert!(told(bad).is_err(), "{bad}");
        }
    }
}
