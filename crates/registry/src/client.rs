//! HTTP clients: one per way of speaking TLS, alive as long as a pull uses it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    ConfigError, Timeouts,
    dial::{Dial, FixedNames, Guard, Proxies},
    endpoint::TlsSettings,
    tls::client_config,
};

/// A connection pool over [`Dial`].
pub(crate) type HttpClient = Client<Dial, Full<Bytes>>;

/// What two requests must have in common to share a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientKey {
    /// `None` = plain http.
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) guard: Guard,
    pub(crate) connect: Duration,
}

/// The pools in use. A pool ends with the last pull that holds it: an idle daemon has no connections and no
/// certificates in memory.
pub(crate) struct Clients {
    pools: Mutex<BTreeMap<ClientKey, Weak<HttpClient>>>,
    idle: Duration,
    pub(crate) proxies: Proxies,
    pub(crate) fixed: FixedNames,
}

/// Response header blocks, and the pieces in which HTTP/1 bodies are read.
const HEADER_LIMIT: usize = 64 * 1024;

impl Clients {
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        Self { pools: Mutex::default(), idle: timeouts.idle, proxies: Proxies::from_env(), fixed: FixedNames::default() }
    }

    /// The pool for a key, made if there is none.
    pub(crate) async fn get(&self, key: &ClientKey) -> Result<Arc<HttpClient>, ConfigError> {
        if let Some(found) = self.lock().get(key).and_then(Weak::upgrade) {
            return Ok(found);
        }
        let settings = key.tls.clone();
        // Reads and parses certificate files.
        let made = tokio::task::spawn_blocking(move || client_config(settings.as_ref())).await;
        let tls = made.map_err(|e| ConfigError::Read { path: "certificates".into(), source: e.into() })??;
        let client = Arc::new(self.build(Dial::new(tls, key.guard, self.proxies.clone(), key.connect, &self.fixed)));
        let mut pools = self.lock();
        pools.retain(|_, pool| pool.strong_count() > 0);
        if let Some(other) = pools.get(key).and_then(Weak::upgrade) {
            return Ok(other);
        }
        pools.insert(key.clone(), Arc::downgrade(&client));
        Ok(client)
    }

    fn build(&self, dial: Dial) -> HttpClient {
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.idle)
            .pool_max_idle_per_host(8)
            .http1_max_buf_size(HEADER_LIMIT)
            .http2_max_header_list_size(HEADER_LIMIT as u32)
            .http2_initial_stream_window_size(1 << 20)
            .http2_initial_connection_window_size(4 << 20)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(20))
            .build(dial)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ClientKey, Weak<HttpClient>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
