//! Named points at which tests make a step fail or the daemon die: `CREEL_FAILPOINTS=pod.network=error:1,ctr.shim=kill`.
//!
//! An action is `error` or `kill` (SIGKILL of the daemon itself), with `:N` for the first N times only. Without the
//! variable a point costs one load of a static.

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock},
};

use model::ErrorKind;

use crate::error::{About, Error};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Error,
    Kill,
}

type Points = HashMap<String, (Action, u32)>;

fn parse(text: &str) -> Points {
    let point = |entry: &str| {
        let (name, action) = entry.trim().split_once('=')?;
        let (action, count) = action.split_once(':').unwrap_or((action, "4294967295"));
        let action = match action {
            "error" => Action::Error,
            "kill" => Action::Kill,
            _ => return None,
        };
        Some((name.to_owned(), (action, count.parse().ok()?)))
    };
    text.split(',').filter_map(point).collect()
}

static POINTS: OnceLock<Option<Mutex<Points>>> = OnceLock::new();

/// Passes, fails, or never returns, as the environment says.
pub(crate) fn hit(name: &'static str, about: impl Into<About>) -> Result<(), Error> {
    let points = POINTS.get_or_init(|| std::env::var("CREEL_FAILPOINTS").ok().map(|text| Mutex::new(parse(&text))));
    let Some(points) = points else { return Ok(()) };
    let mut points = points.lock().unwrap_or_else(|e| e.into_inner());
    match points.get_mut(name) {
        Some((_, 0)) | None => Ok(()),
        Some((action, left)) => {
            *left -= 1;
            match action {
                Action::Error => Err(Error::new(ErrorKind::Internal, about.into(), format!("failpoint {name}"))),
                Action::Kill => {
                    let myself = rustix::process::getpid();
                    rustix::process::kill_process(myself, rustix::process::Signal::KILL).ok();
                    Err(Error::new(ErrorKind::Internal, about.into(), format!("failpoint {name}: still alive")))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_parse() {
        let points = parse("a.b=error:1, c=kill,nonsense,d=else");
        assert_eq!(points.len(), 2);
        assert_eq!(points["a.b"], (Action::Error, 1));
        assert_eq!(points["c"].0, Action::Kill);
    }
}
