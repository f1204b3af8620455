//! The one door from async to blocking code.

/// Runs `work` on a blocking thread. A panic in it is a panic here: a bug, caught per request at the front door.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        // The runtime is going down and took the task with it; nobody is left to read an answer.
        Err(_) => std::future::pending().await,
    }
}
