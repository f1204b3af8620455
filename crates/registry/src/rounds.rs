//! Which place is asked next, and when: mirrors in order, then pauses and further rounds, within bounds.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use crate::{Failure, Timeouts};

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Ask this place.
    Ask(usize),
    /// Wait, then come back.
    Wait(Duration),
    /// No place is left that is worth asking.
    Over,
}

/// The course of one request over several places. Pure: who calls does the asking and the waiting.
#[derive(Debug)]
pub(crate) struct Rounds {
    timeouts: Timeouts,
    /// Places still to be asked in this round.
    queue: VecDeque<usize>,
    /// Places that failed in this round in a way that may pass, and when they want to be asked again.
    again: Vec<(usize, Duration)>,
    /// Rounds over.
    round: u32,
    progressed: bool,
    /// The last failure of each place, in the order in which they failed first.
    failures: Vec<(usize, Failure)>,
}

const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

impl Rounds {
    pub(crate) fn new(timeouts: Timeouts, places: impl IntoIterator<Item = usize>) -> Self {
        Self { timeouts, queue: places.into_iter().collect(), again: Vec::new(), round: 0, progressed: false, failures: Vec::new() }
    }

    /// What to do now. After `Ask` comes either success or [`Rounds::failed`].
    pub(crate) fn turn(&mut self) -> Turn {
        if let Some(place) = self.queue.front() {
            return Turn::Ask(*place);
        }
        let Some(wait) = self.again.iter().map(|(_, wait)| *wait).min() else { return Turn::Over };
        self.queue = self.again.drain(..).map(|(place, _)| place).collect();
        self.round += 1;
        Turn::Wait(wait)
    }

    /// The place that was to be asked did not give it.
    pub(crate) fn failed(&mut self, failure: Failure) {
        let Some(place) = self.queue.pop_front() else { return };
        if failure.tries(self.timeouts.retries, self.progressed) > self.round {
            let wait = failure.retry_after().map_or_else(|| self.backoff(), |wait| wait.min(self.timeouts.retry_after));
            self.again.push((place, wait));
        }
        match self.failures.iter_mut().find(|(known, _)| *known == place) {
            Some((_, last)) => *last = failure,
            None => self.failures.push((place, failure)),
        }
    }

    /// A place that is not even asked.
    pub(crate) fn skip(&mut self, place: usize, failure: Failure) {
        self.queue.retain(|queued| *queued != place);
        self.failures.push((place, failure));
    }

    /// The first bytes have come.
    pub(crate) fn started(&mut self) {
        self.progressed = true;
    }

    /// Much has come since the last failure: what was counted before is forgotten.
    pub(crate) fn advanced(&mut self) {
        self.round = 0;
    }

    pub(crate) fn into_failures(self) -> Vec<(usize, Failure)> {
        self.failures
    }

    pub(crate) fn take_failures(&mut self) -> Vec<(usize, Failure)> {
        std::mem::take(&mut self.failures)
    }

    fn backoff(&self) -> Duration {
        let full = self.timeouts.backoff.saturating_mul(1 << self.round.min(16)).min(LONGEST_BACKOFF);
        // RandomState is seeded by the system; more is not needed to keep a thousand nodes from asking in step.
        let random = RandomState::new().hash_one(0u8) as u32;
        full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnectError;

    fn status(status: u16, retry_after: Option<u64>) -> Failure {
        let retry_after = retry_after.map(Duration::from_secs);
        Failure::Status { status, code: String::new(), message: String::new(), retry_after }
    }

    #[test]
    fn places_are_asked_in_order_and_again_only_if_it_may_help() {
        let mut rounds = Rounds::new(Timeouts::default(), [2, 0, 1]);
        assert_eq!(rounds.turn(), Turn::Ask(2));
        rounds.failed(status(404, None));
        assert_eq!(rounds.turn(), Turn::Ask(0));
        rounds.failed(status(503, None));
        assert_eq!(rounds.turn(), Turn::Ask(1));
        rounds.failed(status(403, None));
        let Turn::Wait(wait) = rounds.turn() else { panic!() };
        assert!((Duration::from_millis(125)..=Duration::from_millis(250)).contains(&wait), "{wait:?}");
        assert_eq!(rounds.turn(), Turn::Ask(0));
        rounds.failed(status(404, None));
        assert_eq!(rounds.turn(), Turn::Over);
        let places: Vec<usize> = rounds.into_failures().into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, [2, 0, 1]);
        assert_eq!(Rounds::new(Timeouts::default(), []).turn(), Turn::Over);
    }

    fn asked(failure: impl Fn() -> Failure, started: bool) -> usize {
        let mut rounds = Rounds::new(Timeouts::default(), [0]);
        if started {
            rounds.started();
        }
        let mut count = 0;
        loop {
            match rounds.turn() {
                Turn::Ask(_) => {
                    count += 1;
                    rounds.failed(failure());
                }
                Turn::Wait(wait) => assert!(wait <= Duration::from_secs(60)),
                Turn::Over => return count,
            }
        }
    }

    #[test]
    fn retries_and_waits_are_bounded() {
        assert_eq!(asked(|| status(503, None), false), 6);
        assert_eq!(asked(|| status(429, Some(1_000_000_000)), false), 6);
        let refused = || Failure::Connect(ConnectError::Tcp("refused".into()));
        assert_eq!(asked(refused, false), 3);
        assert_eq!(asked(refused, true), 6);
        assert_eq!(asked(|| Failure::Connect(ConnectError::Deadline(Duration::ZERO)), false), 1);
        let expired = || Failure::Connect(ConnectError::Tls(crate::TlsProblem::Expired));
        assert_eq!(asked(expired, true), 1);
    }
}
