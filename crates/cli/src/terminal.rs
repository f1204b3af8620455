//! The terminal that we run on: raw while a session lasts, its size, and the keys that end a session.

use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::Error;

/// Standard input in raw mode: what is typed goes to the session, and the session's terminal echoes it. Back to what it was
/// when dropped.
pub(crate) struct Raw(Termios);

impl Raw {
    /// `None`: standard input is no terminal.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Whether somebody types on a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Columns and rows. `None`: there is no terminal, or it does not know.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout())).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Keys that leave a session: `ctrl-p,ctrl-q` as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys(Vec<u8>);

impl Keys {
    /// Letters and `ctrl-` with a letter or one of `@[\]^_`, separated by commas. Nothing: there are none.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let refused = |why: &str| Error::Option { option: "--detach-keys", value: text.to_owned(), why: why.to_owned() };
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let key = |name: &str| match name.as_bytes() {
            [letter] => Ok(*letter),
            [b'c', b't', b'r', b'l', b'-', letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => {
                Ok(letter.to_ascii_uppercase() & 0x1f)
            }
            _ => Err(refused("not a list of letters and ctrl-LETTER, separated by commas")),
        };
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub(crate) struct Watcher {
    keys: Vec<u8>,
    /// How many of them were typed last.
    typed: usize,
}

impl Watcher {
    /// For these keys.
    pub(crate) fn new(keys: Keys) -> Self {
        Self { keys: keys.0, typed: 0 }
    }

    /// What of the typed bytes is for the session, and whether the keys were among them. A beginning of the keys is kept
    /// back until it is known not to be them.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut passed = Vec::with_capacity(typed.len() + self.typed);
        for byte in typed {
            let mut kept = self.keys[..self.typed].to_vec();
            kept.push(*byte);
            // The longest end of what was typed that is a beginning of the keys.
            let longest = (0..=kept.len()).rev().find(|length| self.keys.starts_with(&kept[kept.len() - length..]));
            self.typed = longest.unwrap_or(0);
            passed.extend_from_slice(&kept[..kept.len() - self.typed]);
            if self.typed == self.keys.len() {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_people_write_them() {
        assert_eq!(Keys::parse("ctrl-p,ctrl-q").unwrap(), Keys(vec![16, 17]));
        assert_eq!(Keys::parse("a,ctrl-\\,ctrl-@").unwrap(), Keys(vec![b'a', 28, 0]));
        assert_eq!(Keys::parse("").unwrap(), Keys(Vec::new()));
        for wrong in ["ctrl-", "ctrl-P", "ab", ",", "ctrl-p,", "strg-p"] {
            assert!(Keys::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_found_and_their_beginnings_passed_on() {
        let watch = |typed: &[&[u8]]| {
            let mut watcher = Watcher::new(Keys(b"aab".to_vec()));
            let mut passed = Vec::new();
            for part in typed {
                let (bytes, found) = watcher.filter(part);
                passed.extend(bytes);
                if found {
                    return (String::from_utf8(passed).unwrap(), true);
                }
            }
            (String::from_utf8(passed).unwrap(), false)
        };
        assert_eq!(watch(&[b"xaab", b"y"]), ("x".into(), true));
        assert_eq!(watch(&[b"aa", b"ab"]), ("a".into(), true));
        assert_eq!(watch(&[b"a", b"a", b"x", b"a"]), ("aax".into(), false));
        let mut none = Watcher::new(Keys(Vec::new()));
        assert_eq!(none.filter(b"ab"), (b"ab".to_vec(), false));
    }
}
