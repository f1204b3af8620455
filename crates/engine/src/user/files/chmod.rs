//! Permissions as chmod(1) is told them: a number, or what is to change.

/// Most clauses of one text.
const MOST: usize = 100;

/// What becomes of the permissions of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// They are these.
    Exactly(u32),
    /// They are changed, one after the other.
    Changes(Vec<Change>),
}

/// `go+rX`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Of whom: the bits of `rwx` of all that are meant.
    who: u32,
    /// Set-id and sticky bits that may change.
    special: u32,
    act: Act,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// `rwx` as bits of the last three, the special bits, and whether there was an `X`.
    Bits { rwx: u32, special: u32, search: bool },
    /// What `u`, `g` or `o` has: how far its bits are from the last three.
    Of(u32),
}

impl Chmod {
    /// Reads `755`, `u=rwX,go=rX`, `+x`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
            return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self::Exactly);
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let acts = clause.find(['+', '-', '=']).filter(|_| changes.len() < MOST)?;
            let (who, special) = whose(&clause[..acts])?;
            let mut rest = &clause[acts..];
            while let Some(act) = rest.chars().next() {
                let act = match act {
                    '+' => Act::Add,
                    '-' => Act::Remove,
                    _ => Act::Set,
                };
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
                changes.push(Change { who, special, act, what: what(&rest[1..end])? });
                rest = &rest[end..];
            }
        }
        Some(Self::Changes(changes))
    }

    /// What a directory or another file with these permissions has then.
    pub(crate) fn of(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Exactly(mode) => *mode,
            Self::Changes(changes) => changes.iter().fold(mode & 0o7777, |mode, change| change.of(mode, is_directory)),
        }
    }
}

fn whose(text: &str) -> Option<(u32, u32)> {
    if text.is_empty() {
        return Some((0o777, 0o7000));
    }
    text.chars().try_fold((0, 0), |(who, special), c| match c {
        'u' => Some((who | 0o700, special | 0o4000)),
        'g' => Some((who | 0o070, special | 0o2000)),
        'o' => Some((who | 0o007, special)),
        'a' => Some((0o777, 0o7000)),
        _ => None,
    })
}

fn what(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::Of(6)),
        "g" => return Some(What::Of(3)),
        "o" => return Some(What::Of(0)),
        _ => {}
    }
    let (mut rwx, mut special, mut search) = (0, 0, false);
    for c in text.chars() {
        match c {
            'r' => rwx |= 4,
            'w' => rwx |= 2,
            'x' => rwx |= 1,
            'X' => search = true,
            's' => special |= 0o6000,
            't' => special |= 0o1000,
            _ => return None,
        }
    }
    Some(What::Bits { rwx, special, search })
}

impl Change {
    fn of(&self, mode: u32, is_directory: bool) -> u32 {
        let (rwx, special) = match self.what {
            What::Of(shift) => ((mode >> shift) & 7, 0),
            What::Bits { rwx, special, search } => {
                let searchable = search && (is_directory || mode & 0o111 != 0);
                // The sticky bit is nobody's in particular.
                let allowed = self.special | 0o1000;
                (rwx | u32::from(searchable), special & allowed)
            }
        };
        let bits = ((rwx * 0o111) & self.who) | special;
        match self.act {
            Act::Add => mode | bits,
            Act::Remove => mode & !bits,
            Act::Set => (mode & !self.who & !self.special) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_chmod_does() {
        for (text, before, is_directory, after) in [
            ("755", 0o600, false, 0o755),
            ("0", 0o600, false, 0),
            ("4755", 0o600, true, 0o4755),
            ("+x", 0o644, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+X", 0o744, false, 0o755),
            ("go-rwx", 0o777, false, 0o700),
            ("g=u,o=", 0o640, false, 0o660),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("+t", 0o755, true, 0o1755),
            ("u+r-w", 0o200, false, 0o400),
            ("a=r", 0o4755, false, 0o444),
            ("u=,u+w", 0o755, false, 0o255),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().of(before, is_directory), after, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in ["", "9", "77777", "rwx", "u", "u+q", "z+x", "u+x,", ",", "8", "u+ug", "0x1", "é+x", &"u+x,".repeat(1000)] {
            assert_eq!(Chmod::parse(bad), None, "{bad}");
        }
    }
}
