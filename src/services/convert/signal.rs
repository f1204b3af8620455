//! Signals: CRI numbers them by its own list, so they are matched by name and never by number.

use api::runtime as cri;
use model::Signal;

use super::{Result, invalid, known};

/// The signal that is meant; `None`: none was chosen.
pub(crate) fn from_proto(field: &str, number: i32) -> Result<Option<Signal>> {
    let signal: cri::Signal = known(field, number)?;
    if signal == cri::Signal::RuntimeDefault {
        return Ok(None);
    }
    let name = signal.as_str_name().trim_start_matches("SIGNAL_").replace("PLUS", "+").replace("MINUS", "-");
    name.parse().map(Some).map_err(|e| invalid(field, e))
}

/// CRI's value for a signal. The two that libc keeps for itself have none and show as the default.
pub(crate) fn to_proto(signal: Signal) -> i32 {
    let name = format!("SIGNAL_{signal}").replace('+', "PLUS").replace('-', "MINUS");
    cri::Signal::from_str_name(&name).unwrap_or(cri::Signal::RuntimeDefault).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_the_kernels_number() {
        for (signal, number) in [
            (cri::Signal::Sigabrt, 6),
            (cri::Signal::Sigiot, 6),
            (cri::Signal::Sigcld, 17),
            (cri::Signal::Sigpoll, 29),
            (cri::Signal::Sigkill, 9),
            (cri::Signal::Sigterm, 15),
            (cri::Signal::Sigusr1, 10),
            (cri::Signal::Sigrtmin, 34),
            (cri::Signal::Sigrtminplus15, 49),
            (cri::Signal::Sigrtmaxminus14, 50),
            (cri::Signal::Sigrtmax, 64),
        ] {
            assert_eq!(from_proto("f", signal.into()).unwrap().unwrap().number(), number, "{signal:?}");
        }
        for number in 1..=65 {
            let signal = from_proto("f", number).unwrap().unwrap_or_else(|| panic!("{number} is no signal"));
            assert_eq!(from_proto("f", to_proto(signal)).unwrap(), Some(signal), "{number}");
        }
        assert_eq!(from_proto("f", 0).unwrap(), None);
        assert!(from_proto("f", 66).is_err() && from_proto("f", -1).is_err());
    }
}
