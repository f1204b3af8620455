//! `RUN --mount`: what is there only while a program of a build runs (docker's frontend, reference.md, "RUN --mount").

use std::str::FromStr;

use crate::{Problem, suggest::closest};

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "id",
    "sharing",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];
/// Without a value they say yes.
const SWITCHES: [&str; 5] = ["readonly", "ro", "readwrite", "rw", "required"];

/// A mount, with its variables expanded. Paths are as they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub kind: MountKind,
    /// Where; `None`: where its kind is by itself.
    pub target: Option<String>,
    /// It cannot be written to.
    pub readonly: bool,
}

/// Kinds of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, of a stage or an image; what is written to them is lost.
    Bind {
        /// `None`: the context.
        from: Option<String>,
        /// A path in it.
        source: String,
    },
    /// A directory that outlives the build.
    Cache {
        /// Its name; `None`: its target.
        id: Option<String>,
        /// What it begins with: a stage or an image.
        from: Option<String>,
        /// A path in that.
        source: String,
        /// With whom.
        sharing: Sharing,
        /// Of the directory, when it is new.
        owner: Owner,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; `None`: as much as the kernel likes.
        size: Option<u64>,
    },
    /// A file or variable with what nobody else is to know.
    Secret {
        /// Its name.
        id: String,
        /// The variable that has it. It is a file too only if it has a target.
        env: Option<String>,
        /// The step fails without it.
        required: bool,
        /// Of the file.
        owner: Owner,
    },
    /// The socket of an agent that knows keys.
    Ssh {
        /// Its name.
        id: String,
        /// The step fails without it.
        required: bool,
        /// Of the socket.
        owner: Owner,
    },
}

/// Who else may have a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// Nobody: who comes second gets another one.
    Private,
    /// Nobody: who comes second waits.
    Locked,
}

/// Owner and mode, as far as they are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Uid.
    pub uid: u32,
    /// Gid.
    pub gid: u32,
}

type Fields = Vec<(String, Option<String>)>;

/// Reads the value of `--mount`. `expand` puts values in for variables.
///
/// # Errors
/// What is wrong with it, in docker's words.
pub fn read(text: &str, expand: impl Fn(&str) -> Result<String, Problem>) -> Result<Mount, Problem> {
    mount(&fields(text, expand)?).map_err(wrong)
}

/// What can be known about `--mount` before its variables are.
pub(crate) fn check(text: &str) -> Result<(), Problem> {
    let fields = fields(text, |value| Ok(value.to_owned()))?;
    if get(&fields, &["from"]).is_some_and(has_variable) {
        return Err(wrong("'from' doesn't support variable expansion, define alias stage instead".to_owned()));
    }
    if fields.iter().any(|(_, value)| value.as_deref().is_some_and(has_variable)) {
        return Ok(());
    }
    mount(&fields).map(drop).map_err(wrong)
}

/// The value of `from=`, which is a stage's or an image's name.
pub fn from(text: &str) -> Option<String> {
    let fields = fields(text, |value| Ok(value.to_owned())).ok()?;
    get(&fields, &["from"]).filter(|from| !from.is_empty()).map(str::to_owned)
}

fn wrong(why: String) -> Problem {
    Problem::FlagValue { instruction: "RUN", flag: "--mount".to_owned(), why }
}

fn has_variable(value: &str) -> bool {
    value.split_once('$').is_some_and(|(_, rest)| !rest.is_empty())
}

fn hint<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    closest(word, candidates).map_or_else(String::new, |near| format!(" (did you mean {near}?)"))
}

/// `key=value`, or a key alone; keys are known ones.
fn fields(text: &str, expand: impl Fn(&str) -> Result<String, Problem>) -> Result<Fields, Problem> {
    let one = |field: &str| {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let key = key.trim().to_ascii_lowercase();
        if !KEYS.contains(&key.as_str()) {
            return Err(wrong(format!("unexpected key '{key}' in '{field}'{}", hint(&key, KEYS))));
        }
        if value.is_none() && !SWITCHES.contains(&key.as_str()) {
            return Err(wrong(format!("invalid field '{field}' must be a key=value pair")));
        }
        Ok((key, value.map(&expand).transpose()?))
    };
    text.split(',').map(one).collect()
}

/// The last of a key's values; alone it has none.
fn find<'f>(fields: &'f Fields, keys: &[&str]) -> Option<&'f (String, Option<String>)> {
    fields.iter().rev().find(|(key, _)| keys.contains(&key.as_str()))
}

fn get<'f>(fields: &'f Fields, keys: &[&str]) -> Option<&'f str> {
    find(fields, keys)?.1.as_deref()
}

fn truth(fields: &Fields, keys: &[&str]) -> Result<Option<bool>, String> {
    match find(fields, keys) {
        None => Ok(None),
        Some((_, None)) => Ok(Some(true)),
        Some((key, Some(value))) => match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(format!("invalid value for {key}: {value}")),
        },
    }
}

fn number<T: FromStr>(fields: &Fields, key: &str) -> Result<Option<T>, String> {
    get(fields, &[key]).map(|value| value.parse().map_err(|_| format!("invalid value {value} for {key}"))).transpose()
}

fn owner(fields: &Fields) -> Result<Owner, String> {
    let octal = |value: &str| {
        let digits = value.chars().all(|c| c.is_digit(8));
        let mode = if digits { u32::from_str_radix(value, 8).ok() } else { None };
        mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| format!("invalid value {value} for mode"))
    };
    Ok(Owner {
        mode: get(fields, &["mode"]).map(octal).transpose()?,
        uid: number(fields, "uid")?.unwrap_or(0),
        gid: number(fields, "gid")?.unwrap_or(0),
    })
}

fn mount(fields: &Fields) -> Result<Mount, String> {
    let kind = get(fields, &["type"]).unwrap_or("bind");
    if !TYPES.contains(&kind) {
        return Err(format!("unsupported mount type {kind:?}{}", hint(kind, TYPES)));
    }
    only_its_own(fields, kind)?;
    let target = get(fields, &["target", "dst", "destination"]).filter(|target| !target.is_empty()).map(str::to_owned);
    let id = get(fields, &["id"]).filter(|id| !id.is_empty()).map(str::to_owned);
    let from = get(fields, &["from"]).filter(|from| !from.is_empty()).map(str::to_owned);
    let source = get(fields, &["source", "src"]);
    let path = || source.filter(|source| !source.is_empty()).unwrap_or("/").to_owned();
    let required = truth(fields, &["required"])?.unwrap_or(false);
    let readonly = match (truth(fields, &["readonly", "ro"])?, truth(fields, &["readwrite", "rw"])?) {
        (Some(readonly), _) => readonly,
        (None, Some(writable)) => !writable,
        (None, None) => kind == "bind",
    };
    let kind = match kind {
        "cache" => MountKind::Cache { id, from, source: path(), sharing: sharing(fields)?, owner: owner(fields)? },
        "tmpfs" => MountKind::Tmpfs { size: get(fields, &["size"]).map(bytes).transpose()? },
        "secret" => {
            if source.is_some() && id.is_some() {
                return Err("both source and id can't be set".to_owned());
            }
            let last = |path: &String| path.rsplit('/').find(|part| !part.is_empty()).map(str::to_owned);
            let id = id.or_else(|| source.map(str::to_owned)).or_else(|| target.as_ref().and_then(last));
            let id = id.ok_or("invalid secret mount. one of source, target required")?;
            let env = get(fields, &["env"]).map(str::to_owned);
            if env.as_deref().is_some_and(|name| name.is_empty() || name.contains(['=', '\0'])) {
                return Err("invalid value for env: not the name of a variable".to_owned());
            }
            MountKind::Secret { id, env, required, owner: owner(fields)? }
        }
        "ssh" => MountKind::Ssh { id: id.unwrap_or_else(|| "default".to_owned()), required, owner: owner(fields)? },
        _ => MountKind::Bind { from, source: path() },
    };
    if target.is_none() && matches!(kind, MountKind::Bind { .. } | MountKind::Cache { .. } | MountKind::Tmpfs { .. }) {
        return Err("invalid mount target \"\": target is required".to_owned());
    }
    Ok(Mount { kind, target, readonly })
}

/// What one kind of mount has means nothing to another.
fn only_its_own(fields: &Fields, kind: &str) -> Result<(), String> {
    for (key, _) in fields {
        let fits = match key.as_str() {
            "from" => matches!(kind, "bind" | "cache"),
            "source" | "src" => matches!(kind, "bind" | "cache" | "secret"),
            "mode" | "uid" | "gid" => matches!(kind, "cache" | "secret" | "ssh"),
            "id" => matches!(kind, "cache" | "secret" | "ssh"),
            "sharing" => kind == "cache",
            "size" => kind == "tmpfs",
            "required" => matches!(kind, "secret" | "ssh"),
            "env" => kind == "secret",
            "readonly" | "ro" | "readwrite" | "rw" => matches!(kind, "bind" | "cache" | "tmpfs"),
            _ => true,
        };
        if !fits {
            return Err(format!("unexpected key '{key}' for mount type '{kind}'"));
        }
    }
    Ok(())
}

fn sharing(fields: &Fields) -> Result<Sharing, String> {
    match get(fields, &["sharing"]) {
        None | Some("shared") => Ok(Sharing::Shared),
        Some("private") => Ok(Sharing::Private),
        Some("locked") => Ok(Sharing::Locked),
        Some(other) => Err(format!("unsupported sharing value {other:?}{}", hint(other, ["shared", "private", "locked"]))),
    }
}

/// Bytes: a number, and a unit of 1024 if any (`64m`, `1.5g`, `2GiB`).
fn bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("invalid value for size: {text}");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if unit.contains('i') => return Err(bad()),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(bad()),
    };
    let scale = 1_u64 << (10 * power);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let part: f64 = format!("0.{part}").parse().map_err(|_| bad())?;
    whole.checked_mul(scale).and_then(|all| all.checked_add((part * scale as f64) as u64)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Result<Mount, String> {
        read(text, |value| Ok(value.replace("$V", "value"))).map_err(|e| e.to_string())
    }

    fn bind(from: Option<&str>, source: &str, target: &str, readonly: bool) -> Mount {
        let kind = MountKind::Bind { from: from.map(str::to_owned), source: source.to_owned() };
        Mount { kind, target: Some(target.to_owned()), readonly }
    }

    #[test]
    fn binds() {
        assert_eq!(told("target=/x"), Ok(bind(None, "/", "/x", true)));
        assert_eq!(told("type=bind,from=a,src=/$V,dst=b,rw"), Ok(bind(Some("a"), "/value", "b", false)));
        assert_eq!(told("Destination=/x,readonly=false"), Ok(bind(None, "/", "/x", false)));
    }

    #[test]
    fn the_others() {
        let owner = Owner { mode: Some(0o700), uid: 5, gid: 0 };
        let kind = MountKind::Cache { id: None, from: None, source: "/".into(), sharing: Sharing::Locked, owner };
        assert_eq!(
            told("type=cache,target=/c,sharing=locked,mode=0700,uid=5"),
            Ok(Mount { kind, target: Some("/c".into()), readonly: false })
        );
        assert_eq!(told("type=tmpfs,target=/t,size=1.5k").unwrap().kind, MountKind::Tmpfs { size: Some(1536) });
        let secret = |id: &str, env: Option<&str>, required| MountKind::Secret {
            id: id.into(),
            env: env.map(str::to_owned),
            required,
            owner: Owner::default(),
        };
        assert_eq!(told("type=secret,target=/a/key").unwrap().kind, secret("key", None, false));
        assert_eq!(told("type=secret,id=k,env=K,required").unwrap().kind, secret("k", Some("K"), true));
        let ssh = MountKind::Ssh { id: "default".into(), required: false, owner: Owner::default() };
        assert_eq!(told("type=ssh"), Ok(Mount { kind: ssh, target: None, readonly: false }));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("type=cahce,target=/x", "unsupported mount type \"cahce\" (did you mean cache?)"),
            ("type=bind,tarket=/x", "unexpected key 'tarket' in 'tarket=/x' (did you mean target?)"),
            ("type=bind,target", "invalid field 'target' must be a key=value pair"),
            ("type=cache,target=/x,sharing=lokced", "unsupported sharing value \"lokced\" (did you mean locked?)"),
            ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
            ("type=cache,target=/x,uid=a", "invalid value a for uid"),
            ("type=bind,target=/x,uid=1", "unexpected key 'uid' for mount type 'bind'"),
            ("type=bind,target=/x,ro=perhaps", "invalid value for ro: perhaps"),
            ("type=cache", "target is required"),
            ("type=secret", "one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id"),
            ("type=tmpfs,target=/x,size=much", "invalid value for size: much"),
            ("type=tmpfs,target=/x,bind-propagation=shared", "unexpected key 'bind-propagation'"),
            ("", "unexpected key ''"),
        ] {
            let error = told(text).unwrap_err();
            assert!(error.starts_with("RUN: --mount: ") && error.contains(part), "{text}: {error}");
        }
        for bad in ["", "b1", "99999999999999999999", "1x", "1ib", "."] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_has_variables_is_checked_later() {
        assert!(check("type=$T,target=/x").is_ok());
        assert!(check("type=cache,id=$ID").is_ok());
        assert!(check("from=$S,target=/x").unwrap_err().to_string().contains("define alias stage instead"));
        assert!(check("type=cache").is_err());
        assert_eq!(from("from=a,target=/x").as_deref(), Some("a"));
    }
}
