//! The environment, built from zero (R15): defaults, then the image's, then the client's; later wins, order kept.

use minicbor::bytes::ByteVec;
use model::container::EnvVar;

use super::error::{Error, cut};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest string that execve(2) takes (MAX_ARG_STRLEN, with its NUL).
const MAX_STRING: usize = 128 << 10;

/// What stands in the environment if neither image nor client says otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults<'a> {
    pub(crate) home: &'a str,
    /// Empty: none.
    pub(crate) hostname: &'a str,
    pub(crate) tty: bool,
}

/// The environment as `NAME=value` strings.
///
/// # Errors
/// An entry without `=` or without a name, a NUL, a string longer than execve(2) takes, a `HOME` with line breaks.
pub(crate) fn build(defaults: Defaults<'_>, image: &[String], client: &[EnvVar]) -> Result<Vec<ByteVec>, Error> {
    let mut env = Env::default();
    env.set("PATH", PATH.as_bytes())?;
    if !defaults.hostname.is_empty() {
        env.set("HOSTNAME", defaults.hostname.as_bytes())?;
    }
    if defaults.tty {
        env.set("TERM", b"xterm")?;
    }
    env.set("HOME", defaults.home.as_bytes())?;
    for entry in image {
        let without = || Error::Env { name: cut(entry), why: "has no `=`" };
        let (name, value) = entry.split_once('=').ok_or_else(without)?;
        env.set(name, value.as_bytes())?;
    }
    for EnvVar { name, value } in client {
        env.set(name, value)?;
    }
    Ok(env.strings)
}

/// An environment with some variables taken away and others set.
///
/// # Errors
/// As [`build`].
pub(crate) fn adjusted(env: &[ByteVec], removed: &[&str], set: &[EnvVar]) -> Result<Vec<ByteVec>, Error> {
    let mut adjusted = Env::default();
    let name = |string: &ByteVec| string.split(|byte| *byte == b'=').next().map(|name| String::from_utf8_lossy(name).into_owned());
    for (name, string) in env.iter().filter_map(|string| Some((name(string)?, string))) {
        if !removed.contains(&name.as_str()) {
            adjusted.set(&name, &string[(name.len() + 1).min(string.len())..])?;
        }
    }
    for EnvVar { name, value } in set {
        adjusted.set(name, value)?;
    }
    Ok(adjusted.strings)
}

/// The environment of a process with a terminal beside the main one.
pub(crate) fn with_terminal(env: &[ByteVec]) -> Vec<ByteVec> {
    let mut env = env.to_vec();
    if !env.iter().any(|string| string.starts_with(b"TERM=")) {
        env.push(b"TERM=xterm".to_vec().into());
    }
    env
}

#[derive(Default)]
struct Env {
    strings: Vec<ByteVec>,
    places: std::collections::HashMap<String, usize>,
}

impl Env {
    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Error> {
        let refuse = |why| Err(Error::Env { name: cut(name), why });
        if name.is_empty() {
            return refuse("has no name");
        }
        if name.contains(['=', '\0']) {
            return refuse("its name has `=` or NUL");
        }
        if value.contains(&0) {
            return refuse("its value has NUL");
        }
        if name.len() + value.len() + 2 > MAX_STRING {
            return refuse("is longer than the 131072 bytes that execve(2) takes");
        }
        // Programs write HOME into line-oriented files.
        if name == "HOME" && value.iter().any(u8::is_ascii_control) {
            return refuse("has control characters");
        }
        let string: ByteVec = [name.as_bytes(), b"=", value].concat().into();
        match self.places.get(name) {
            Some(place) => self.strings[*place] = string,
            None => {
                self.places.insert(name.to_owned(), self.strings.len());
                self.strings.push(string);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults<'static> = Defaults { home: "/root", hostname: "h", tty: false };

    fn built(defaults: Defaults<'_>, image: &[&str], client: &[(&str, &str)]) -> Result<Vec<String>, Error> {
        let image: Vec<_> = image.iter().map(|entry| (*entry).to_owned()).collect();
        let var = |(name, value): &(&str, &str)| EnvVar { name: (*name).into(), value: value.as_bytes().to_vec().into() };
        let client: Vec<_> = client.iter().map(var).collect();
        Ok(build(defaults, &image, &client)?.into_iter().map(|s| String::from_utf8(s.into()).unwrap()).collect())
    }

    #[test]
    fn later_wins_and_order_is_kept() {
        let path = format!("PATH={PATH}");
        assert_eq!(built(DEFAULTS, &[], &[]).unwrap(), [&path, "HOSTNAME=h", "HOME=/root"]);
        let tty = Defaults { tty: true, hostname: "", ..DEFAULTS };
        assert_eq!(built(tty, &[], &[("TERM", "vt100")]).unwrap(), [&path, "TERM=vt100", "HOME=/root"]);
        let got = built(DEFAULTS, &["PATH=/x", "A=1", "B=2", "HOME=/h", "A=3"], &[("B", "a=b"), ("C", "\n"), ("A", "")]).unwrap();
        assert_eq!(got, ["PATH=/x", "HOSTNAME=h", "HOME=/h", "A=", "B=a=b", "C=\n"]);
    }

    #[test]
    fn ex_19_nothing_comes_from_outside_and_bad_entries_are_refused() {
        for bad in ["SENTINEL", "*", "=x", "A=\0", "", "HOME=/a\nb", &format!("A={}", "x".repeat(128 << 10))] {
            assert!(built(DEFAULTS, &[bad], &[]).is_err(), "{bad:.20}");
        }
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0"), ("HOME", "/a\r")] {
            assert!(built(DEFAULTS, &[], &[(name, value)]).is_err(), "{name:?}");
        }
        let got = built(DEFAULTS, &[], &[]).unwrap();
        assert!(std::env::vars().all(|(name, _)| matches!(&*name, "PATH" | "HOME" | "HOSTNAME")
            || !got.iter().any(|string| string.starts_with(&format!("{name}=")))));
    }

    #[test]
    fn a_terminal_says_its_kind_once() {
        let env: Vec<ByteVec> = vec![b"A=1".to_vec().into()];
        let with = with_terminal(&env);
        assert_eq!(with.len(), 2);
        assert_eq!(with_terminal(&with), with);
    }
}
