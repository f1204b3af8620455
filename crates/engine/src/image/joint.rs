//! Joint work that ends with its last waiter: pulls, and the layers that several pulls share.
//!
//! Unlike a pod's set-up (`crate::flight`), a pull that nobody waits for is not wanted any more: CRI's PullImage has no
//! deadline, its client's only way to stop it is to go away.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{sync::watch, task::AbortHandle};

type Outcome<V, E> = watch::Receiver<Option<Result<V, E>>>;

/// Work in progress by key.
pub(super) struct Joint<K, V, E> {
    running: Mutex<HashMap<K, Weak<Job<V, E>>>>,
}

/// One piece of work; aborted when the last of its waiters drops it.
struct Job<V, E> {
    outcome: Outcome<V, E>,
    task: AbortHandle,
}

impl<V, E> Drop for Job<V, E> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K, V, E> Default for Joint<K, V, E> {
    fn default() -> Self {
        Self { running: Mutex::default() }
    }
}

impl<K, V, E> std::fmt::Debug for Joint<K, V, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joint").finish_non_exhaustive()
    }
}

impl<K, V, E> Joint<K, V, E>
where
    K: Eq + Hash,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Joins the work under `key`, or starts `make()`. `None`: the work crashed.
    pub(super) async fn join<F>(&self, key: K, make: impl FnOnce() -> F) -> Option<Result<V, E>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let job = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|_, job| job.strong_count() > 0);
            // Work that has ended belongs to those who waited for it: who comes later starts anew.
            let current = running.get(&key).and_then(Weak::upgrade).filter(|job| job.outcome.borrow().is_none());
            match current {
                Some(job) => job,
                None => {
                    let job = start(make());
                    running.insert(key, Arc::downgrade(&job));
                    job
                }
            }
        };
        let mut outcome = job.outcome.clone();
        let done = outcome.wait_for(Option::is_some).await.ok()?;
        done.clone()
    }
}

fn start<V, E, F>(work: F) -> Arc<Job<V, E>>
where
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
    F: Future<Output = Result<V, E>> + Send + 'static,
{
    let (sender, outcome) = watch::channel(None);
    let task = tokio::spawn(async move {
        let result = work.await;
        sender.send_replace(Some(result));
    });
    Arc::new(Job { outcome, task: task.abort_handle() })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use super::*;

    async fn slow(count: Arc<AtomicU32>) -> Result<u32, String> {
        tokio::time::sleep(Duration::from_millis(40)).await;
        Ok(count.fetch_add(1, Ordering::SeqCst))
    }

    #[tokio::test]
    async fn shared_by_all_and_one_who_leaves_stops_nobody() {
        let (joint, count) = (Joint::default(), Arc::new(AtomicU32::new(0)));
        let early = tokio::time::timeout(Duration::from_millis(5), joint.join(1, || slow(count.clone())));
        let (left, stayed, joined) =
            tokio::join!(early, joint.join(1, || slow(count.clone())), joint.join(1, || slow(count.clone())));
        assert!(left.is_err());
        assert_eq!((stayed, joined), (Some(Ok(0)), Some(Ok(0))));
    }

    #[tokio::test]
    async fn the_last_waiter_takes_the_work_with_it() {
        let (joint, count) = (Joint::default(), Arc::new(AtomicU32::new(0)));
        let gone = tokio::time::timeout(Duration::from_millis(5), joint.join(1, || slow(count.clone()))).await;
        assert!(gone.is_err());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(count.load(Ordering::SeqCst), 0, "it was aborted");
        assert_eq!(joint.join(1, || slow(count.clone())).await, Some(Ok(0)), "and can be started anew");
    }
}
