//! What is done to things one by one: what goes wrong with one of them is said, and does not stop the others.

use tonic::Status;

use crate::{
    error::{Error, Exit},
    output,
};

/// What has come of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Each {
    failed: bool,
}

impl Each {
    /// The outcome for one of them, which is said if it is a refusal.
    pub(crate) fn note<T>(&mut self, outcome: Result<T, Status>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(status) => {
                self.failed = true;
                self.say(&status);
                None
            }
        }
    }

    /// A refusal that is no failure.
    pub(crate) fn say(self, status: &Status) {
        output::note(&format!("Error response from daemon: {}", status.message()));
    }

    /// 1 if one of them failed.
    pub(crate) fn exit(self) -> Result<Exit, Error> {
        Ok(Exit(u8::from(self.failed)))
    }
}
