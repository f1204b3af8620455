//! Signals by number, as Linux on amd64 and arm64 numbers them (signal(7)).

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};

/// Why a string is not a signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a signal: {0:?} (a name such as SIGTERM or TERM, or a number from 1 to 64)")]
pub struct SignalError(pub String);

/// A signal from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Signal(#[n(0)] u8);

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
    "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that a program may use: glibc keeps 32 and 33 for itself.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    /// SIGKILL.
    pub const KILL: Self = Self(9);
    /// SIGTERM.
    pub const TERM: Self = Self(15);
    /// SIGCONT.
    pub const CONT: Self = Self(18);

    /// The signal with this number.
    pub fn from_number(number: i32) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| (1..=RTMAX).contains(n)).map(Self)
    }

    /// The signal's number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if usize::from(n) <= NAMES.len() => write!(f, "SIG{}", NAMES[usize::from(n) - 1]),
            RTMIN => f.write_str("SIGRTMIN"),
            RTMAX => f.write_str("SIGRTMAX"),
            n if n > RTMIN && n <= RTMIN + 15 => write!(f, "SIGRTMIN+{}", n - RTMIN),
            n if n > RTMIN => write!(f, "SIGRTMAX-{}", RTMAX - n),
            n => write!(f, "{n}"),
        }
    }
}

impl FromStr for Signal {
    type Err = SignalError;
    fn from_str(text: &str) -> Result<Self, SignalError> {
        let wrong = || SignalError(text.chars().take(40).collect());
        if let Ok(number) = text.parse::<i32>() {
            return Self::from_number(number).ok_or_else(wrong);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let offset = |digits: &str| digits.parse::<u8>().ok().filter(|n| *n <= RTMAX - RTMIN).ok_or_else(wrong);
        match name {
            "RTMIN" => Ok(Self(RTMIN)),
            "RTMAX" => Ok(Self(RTMAX)),
            "IOT" => Ok(Self(6)),
            "CLD" => Ok(Self(17)),
            "POLL" => Ok(Self(29)),
            name if name.starts_with("RTMIN+") => Ok(Self(RTMIN + offset(&name[6..])?)),
            name if name.starts_with("RTMAX-") => Ok(Self(RTMAX - offset(&name[6..])?)),
            name => match NAMES.iter().zip(1..).find(|(known, _)| **known == name) {
                Some((_, number)) => Ok(Self(number)),
                None => Err(wrong()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        for number in (1..=31).chain(34..=64) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal, "{signal}");
            assert_eq!(number.to_string().parse::<Signal>().unwrap(), signal);
        }
        assert_eq!("term".parse::<Signal>().unwrap(), Signal::TERM);
        assert_eq!("RTMIN+3".parse::<Signal>().unwrap().number(), 37);
        for bad in ["", "0", "65", "-1", "SIGNOPE", "RTMIN+99", "RTMAX-x"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }
}
