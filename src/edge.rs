//! The edge of the server: every request passes here once. A span with an id, a limit on what is worked on at once,
//! panics caught, failures logged.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{HeaderMap, Request, Response},
};
use tower::{Layer, Service};
use tracing::Instrument;

use crate::services::status;

/// Puts [`Edge`] around a service.
#[derive(Clone, Debug)]
pub(crate) struct EdgeLayer {
    slots: Arc<Semaphore>,
}

impl EdgeLayer {
    /// At most `max_requests` that change something are worked on at once.
    pub(crate) fn new(max_requests: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(max_requests)) }
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge { inner, slots: self.slots.clone() }
    }
}

/// The service with the edge around it.
#[derive(Clone, Debug)]
pub(crate) struct Edge<S> {
    inner: S,
    slots: Arc<Semaphore>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one to call; the fresh one takes its place.
        let fresh = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, fresh);
        let rpc = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let span = tracing::info_span!("rpc", id = NEXT.fetch_add(1, Ordering::Relaxed), name = rpc);
        Box::pin(pass(inner, request, self.slots.clone(), rpc).instrument(span))
    }
}

async fn pass<S>(mut inner: S, request: Request<Body>, slots: Arc<Semaphore>, rpc: String) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let start = Instant::now();
    let limit = request.headers().get("grpc-timeout").and_then(|text| deadline(text.to_str().ok()?));
    let work = async {
        // Given back when the answer begins: a stream of events does not hold it. What only reads never waits.
        let _slot = if only_reads(&rpc) { None } else { slots.acquire().await.ok() };
        inner.call(request).await
    };
    // The server behind this has the same limit and would call it CANCELLED, which to a client is something else: sometimes
    // its own clock is the later one.
    let limited = async {
        match limit {
            Some(limit) => tokio::time::timeout(limit.saturating_sub(EARLIER), work).await,
            None => Ok(work.await),
        }
    };
    let response = match AssertUnwindSafe(limited).catch_unwind().await {
        Ok(Ok(result)) => result?,
        Ok(Err(_)) => status::too_late().into_http(),
        Err(panic) => {
            tracing::error!(panic = panic_text(panic.as_ref()), "request panicked");
            status::panicked().into_http()
        }
    };
    log(response.headers(), start);
    Ok(response)
}

/// How much less than its client a request is waited for.
const EARLIER: Duration = Duration::from_millis(2);

/// The deadline that a caller has set on a call (gRPC over HTTP/2, "Timeout").
pub(crate) fn deadline(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// RPCs that answer from memory and the kernel's counters. The kubelet's lists must not wait behind five hundred pods that are being stopped.
fn only_reads(rpc: &str) -> bool {
    const PREFIXES: [&str; 3] = ["List", "Stream", "Get"];
    const NAMES: [&str; 12] = [
        "Version",
        "Status",
        "RuntimeConfig",
        "PodSandboxStatus",
        "PodSandboxStats",
        "ContainerStatus",
        "ContainerStats",
        "ImageStatus",
        "ImageFsInfo",
        "Info",
        "Check",
        "Watch",
    ];
    PREFIXES.iter().any(|prefix| rpc.starts_with(prefix)) || NAMES.contains(&rpc)
}

/// A failed answer without content says so in its headers.
fn log(headers: &HeaderMap, start: Instant) {
    let took_ms = start.elapsed().as_millis();
    match Status::from_header_map(headers).filter(|status| status.code() != Code::Ok) {
        None => tracing::debug!(took_ms, "done"),
        Some(status) => {
            let (code, message) = (status.code(), status.message());
            match code {
                Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable | Code::ResourceExhausted => {
                    tracing::warn!(?code, message, took_ms, "failed");
                }
                _ => tracing::info!(?code, message, took_ms, "refused"),
            }
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let bug = service_fn(|_: Request<Body>| async {
            if true {
                panic!("bug");
            }
            Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
        });
        let response = EdgeLayer::new(8).layer(bug).oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::Internal);
    }

    #[tokio::test]
    async fn a_deadline_that_passes_is_called_so() {
        let slow = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, std::convert::Infallible>>());
        for timeout in ["30m", "1n", "0S"] {
            let request = Request::builder().header("grpc-timeout", timeout).body(Body::empty()).unwrap();
            let response = EdgeLayer::new(8).layer(slow).oneshot(request).await.unwrap();
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{timeout}");
        }
    }

    #[tokio::test]
    async fn lists_do_not_wait_for_slots() {
        let fine = service_fn(|_: Request<Body>| async { Ok::<_, std::convert::Infallible>(Response::new(Body::empty())) });
        let edge = EdgeLayer { slots: Arc::new(Semaphore::new(0)) }.layer(fine);
        let request = |rpc: &str| {
            Request::builder().uri(format!("http://localhost/runtime.v1.RuntimeService/{rpc}")).body(Body::empty()).unwrap()
        };
        for rpc in ["ListContainers", "PodSandboxStatus", "ContainerStats", "ImageFsInfo", "GetContainerEvents", "Version", "Check"]
        {
            edge.clone().oneshot(request(rpc)).await.unwrap();
        }
        let waiting = edge.oneshot(request("StopContainer"));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), waiting).await.is_err());
    }
}
