//! One clean-up of a kind at a time: two would report each other's bytes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tonic::Status;

/// Whether one of a kind is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Pruning(Arc<AtomicBool>);

/// One that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<AtomicBool>);

impl Pruning {
    /// Begins one.
    ///
    /// # Errors
    /// There is one, in docker's words.
    pub(super) fn begin(&self) -> Result<Turn, Status> {
        match self.0.swap(true, Ordering::AcqRel) {
            true => Err(Status::already_exists("a prune operation is already running")),
            false => Ok(Turn(self.0.clone())),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let pruning = Pruning::default();
        let turn = pruning.begin().unwrap();
        assert_eq!(pruning.clone().begin().unwrap_err().message(), "a prune operation is already running");
        drop(turn);
        assert!(pruning.begin().is_ok());
    }
}
