//! A build as it is remembered.

use std::time::Duration;

use minicbor::{Decode, Encode, bytes::ByteVec};
use model::{BuildId, pod::Timestamp};

use super::{BuildEvent, StepEnd};
use crate::clock;

/// A build, on the disk. Field numbers are for ever.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PastBuild {
    /// Its id.
    #[n(0)]
    pub id: BuildId,
    /// What was asked for.
    #[n(1)]
    pub asked: Asked,
    /// When it began.
    #[n(2)]
    pub begun: Timestamp,
    /// When it ended; `None`: it runs.
    #[n(3)]
    pub ended: Option<Timestamp>,
    /// Why there is no image.
    #[n(4)]
    pub failure: Option<PastFailure>,
    /// The image that it has become.
    #[n(5)]
    pub image: Option<String>,
    /// The digest of the manifest that was pushed or written.
    #[n(6)]
    pub manifest: Option<String>,
    /// Its first steps.
    #[n(7)]
    pub steps: Vec<PastStep>,
    /// Steps that are not among them.
    #[n(8)]
    pub more: u64,
}

/// What was asked for, without what may be secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Asked {
    /// The client's directory; empty: an archive, or nothing.
    #[n(0)]
    pub context: String,
    /// What the Dockerfile is called.
    #[n(1)]
    pub file: String,
    /// The stage; empty: the last one.
    #[n(2)]
    pub target: String,
    /// Names of the image.
    #[n(3)]
    pub names: Vec<String>,
    /// Names of the arguments that were given: of their values nobody knows what they are.
    #[n(4)]
    pub args: Vec<String>,
    /// Platforms, if any were named.
    #[n(5)]
    pub platforms: Vec<String>,
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PastFailure {
    /// The client has gone.
    #[n(0)]
    pub canceled: bool,
    /// Why.
    #[n(1)]
    pub message: String,
    /// The lines of the Dockerfile around.
    #[n(2)]
    pub excerpt: String,
}

/// A step of a build.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PastStep {
    /// From 1.
    #[n(0)]
    pub number: u32,
    /// `[2/4] RUN make`
    #[n(1)]
    pub title: String,
    /// When it began, in nanoseconds since the build did.
    #[n(2)]
    pub begun: u64,
    /// Nanoseconds that it took; `None`: it has not ended.
    #[n(3)]
    pub took: Option<u64>,
    /// It was there.
    #[n(4)]
    pub cached: bool,
    /// It was not done, because something else failed.
    #[n(5)]
    pub canceled: bool,
    /// Why it has failed; empty: it has not.
    #[n(6)]
    pub error: String,
}

/// Something that a step has said, on the disk. Field numbers are for ever.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PastOutput {
    /// Which step.
    #[n(0)]
    pub step: u32,
    /// When, in nanoseconds since the build began.
    #[n(1)]
    pub at: u64,
    /// What.
    #[n(2)]
    pub data: ByteVec,
}

impl PastBuild {
    /// `Running`, `Completed`, `Error` or `Canceled`.
    pub fn status(&self) -> &'static str {
        match (&self.ended, &self.failure) {
            (None, _) => "Running",
            (_, None) => "Completed",
            (_, Some(failure)) if failure.canceled => "Canceled",
            (_, Some(_)) => "Error",
        }
    }

    /// As if it ended now, for this reason.
    pub(super) fn fails(&mut self, canceled: bool, message: &str) {
        let (message, excerpt) = (message.to_owned(), String::new());
        self.failure = Some(PastFailure { canceled, message, excerpt });
        self.ended = Some(clock::now());
    }

    /// What happened, in order, with the nanoseconds since the build began.
    pub fn replayed(&self, said: Vec<PastOutput>) -> Vec<(Duration, BuildEvent)> {
        let mut all = Vec::with_capacity(2 * self.steps.len() + said.len());
        for PastStep { number, title, begun, took, cached, canceled, error } in &self.steps {
            all.push((*begun, 0, BuildEvent::Begun { step: *number, title: title.clone() }));
            let end = match (cached, canceled, error.as_str()) {
                (true, ..) => StepEnd::Cached,
                (_, true, _) => StepEnd::Canceled,
                (.., "") => StepEnd::Made,
                (.., error) => StepEnd::Failed(error.to_owned()),
            };
            if let Some(took) = took {
                let done = BuildEvent::Done { step: *number, took: Duration::from_nanos(*took), end };
                all.push((begun.saturating_add(*took), 2, done));
            }
        }
        all.extend(said.into_iter().map(|said| (said.at, 1, BuildEvent::Output { step: said.step, data: said.data.into() })));
        // What a step says at the moment of its end comes before that.
        all.sort_by_key(|(at, rank, _)| (*at, *rank));
        all.into_iter().map(|(at, _, event)| (Duration::from_nanos(at), event)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told_in_its_order() {
        let step = |number, begun, took| PastStep {
            number,
            title: format!("step {number}"),
            begun,
            took: Some(took),
            cached: false,
            canceled: false,
            error: String::new(),
        };
        let build = PastBuild {
            id: BuildId::from_bytes([1; 32]),
            asked: Asked::default(),
            begun: 0,
            ended: Some(30),
            failure: None,
            image: None,
            manifest: None,
            steps: vec![step(1, 0, 10), step(2, 5, 20)],
            more: 0,
        };
        let said = |step, at| PastOutput { step, at, data: b"x".to_vec().into() };
        let told: Vec<String> = build
            .replayed(vec![said(1, 10), said(2, 12)])
            .into_iter()
            .map(|(at, event)| match event {
                BuildEvent::Begun { step, .. } => format!("{} begun {step}", at.as_nanos()),
                BuildEvent::Output { step, .. } => format!("{} said {step}", at.as_nanos()),
                BuildEvent::Done { step, .. } => format!("{} done {step}", at.as_nanos()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, ["0 begun 1", "5 begun 2", "10 said 1", "10 done 1", "12 said 2", "25 done 2"]);
    }
}
