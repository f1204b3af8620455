//! Single flight: who asks for a thing that is being made joins the attempt; the attempt outlives its callers.
//!
//! A dropped request detaches (R45): the attempt runs on in its own task, and a retry joins it or finds its result.
//! Nothing stays reserved after a failed attempt: its entry is gone before its error is delivered.

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc, sync::Mutex};

use tokio::sync::watch;

/// An attempt's outcome, once there is one.
type Outcome<V, E> = watch::Receiver<Option<Result<V, E>>>;
type Running<K, V, E> = Arc<Mutex<HashMap<K, Outcome<V, E>>>>;

/// Attempts in flight by key.
pub(crate) struct Flights<K, V, E> {
    running: Running<K, V, E>,
}

impl<K, V, E> Default for Flights<K, V, E> {
    fn default() -> Self {
        Self { running: Arc::default() }
    }
}

impl<K, V, E> std::fmt::Debug for Flights<K, V, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

/// The attempt's task ended without a result: it panicked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crashed;

impl<K, V, E> Flights<K, V, E>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Joins the attempt under `key`, or starts `make()` in a task of its own.
    pub(crate) async fn join<F>(&self, key: K, make: impl FnOnce() -> F) -> Result<Result<V, E>, Crashed>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let mut result = {
            let mut running = self.running.lock().unwrap_or_else(|e| e.into_inner());
            match running.get(&key) {
                Some(attempt) => attempt.clone(),
                None => {
                    let (sender, attempt) = watch::channel(None);
                    running.insert(key.clone(), attempt.clone());
                    let (entry, future) = (Entry { running: self.running.clone(), key }, make());
                    tokio::spawn(async move {
                        let outcome = future.await;
                        drop(entry);
                        sender.send_replace(Some(outcome));
                    });
                    attempt
                }
            }
        };
        let done = result.wait_for(Option::is_some).await.map_err(|_| Crashed)?;
        done.clone().ok_or(Crashed)
    }

    /// How many attempts are in flight.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.running.lock().unwrap().len()
    }
}

/// Takes the attempt off the table, also when its task panics.
struct Entry<K: Eq + Hash, V, E> {
    running: Running<K, V, E>,
    key: K,
}

impl<K: Eq + Hash, V, E> Drop for Entry<K, V, E> {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(|e| e.into_inner()).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn joined_survives_its_callers_and_frees_its_key() {
        let flights = Arc::new(Flights::<u8, u32, String>::default());
        let made = Arc::new(AtomicU32::new(0));
        let call = || {
            let (flights, made) = (flights.clone(), made.clone());
            async move {
                flights
                    .join(1, || async move {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        Ok(made.fetch_add(1, Ordering::SeqCst))
                    })
                    .await
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(5), call()).await.is_err(), "the first caller goes away");
        let (a, b) = tokio::join!(call(), call());
        assert_eq!((a.unwrap(), b.unwrap()), (Ok(0), Ok(0)));
        assert_eq!(flights.len(), 0);
        assert_eq!(call().await.unwrap(), Ok(1), "a new attempt after the end of the old one");
    }

    #[tokio::test]
    async fn a_failed_or_crashed_attempt_reserves_nothing() {
        let flights = Flights::<u8, u32, String>::default();
        assert_eq!(flights.join(1, || async { Err("no".to_owned()) }).await.unwrap(), Err("no".to_owned()));
        assert!(flights.join(1, || async { panic!("on purpose") }).await.is_err());
        assert_eq!(flights.join(1, || async { Ok(7) }).await.unwrap(), Ok(7));
    }
}
