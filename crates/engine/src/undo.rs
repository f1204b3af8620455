//! Undo, written beside do.
//!
//! The way back is pushed *before* its step, because the step may fail half way; therefore every way back is
//! idempotent and takes only names. Unwinding runs in a task of its own: a cancelled request cannot cancel cleanup.

use std::{future::Future, pin::Pin};

type WayBack = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Ways back, newest last.
#[derive(Default)]
pub(crate) struct Undo {
    steps: Vec<(&'static str, WayBack)>,
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|(name, _)| name)).finish()
    }
}

impl Undo {
    /// Adds the way back of the step that comes next.
    pub(crate) fn push<F, W>(&mut self, step: &'static str, way_back: W)
    where
        W: FnOnce() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.steps.push((step, Box::new(move || Box::pin(way_back()))));
    }

    /// Everything went well: nothing will be undone.
    pub(crate) fn disarm(&mut self) {
        self.steps.clear();
    }

    /// Goes all the way back, newest step first, and never stops early. Returns what could not be undone.
    pub(crate) async fn unwind(mut self) -> Vec<(&'static str, String)> {
        let mut left = Vec::new();
        while let Some((step, way_back)) = self.steps.pop() {
            if let Err(why) = way_back().await {
                tracing::warn!(step, why, "could not be undone");
                left.push((step, why));
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn newest_first_and_never_stops() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::default();
        for (name, result) in [("a", Ok(())), ("b", Err("no".to_owned())), ("c", Ok(()))] {
            let seen = seen.clone();
            undo.push(name, move || async move {
                seen.lock().unwrap().push(name);
                result
            });
        }
        assert_eq!(undo.unwind().await, [("b", "no".to_owned())]);
        assert_eq!(*seen.lock().unwrap(), ["c", "b", "a"]);
    }

    #[tokio::test]
    async fn disarmed_does_nothing() {
        let mut undo = Undo::default();
        undo.push("a", || async { Err("must not run".to_owned()) });
        undo.disarm();
        assert!(undo.unwind().await.is_empty());
    }
}
