//! A file of any HTTP server, for ADD: no registry, no credentials, nothing that the answer says is a path.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use crate::{
    ConnectError, Error, Failure, Origin, Scheme, Step, Tried, Url,
    client::{ClientKey, HttpClient},
    dial::Guard,
    endpoint::tls_of,
    exchange::{is_redirect, parse_http_date, redirect},
    failure::{RedirectError, clean, from_http},
    source::Shared,
    url::is_inner,
};

/// How long the next piece of a body is waited for.
const PIECE: Duration = Duration::from_secs(60);
/// For a whole body.
const WHOLE: Duration = Duration::from_secs(3600);
/// Bytes of an ETag that are remembered.
const ETAG: usize = 1000;

/// What a server says of a version of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// `ETag`, with its quotes.
    pub etag: Option<String>,
    /// `Last-Modified`, in seconds since 1970.
    pub modified: Option<u64>,
    modified_text: Option<String>,
}

/// A file on its way.
pub struct Fetching {
    /// Which version of it.
    pub version: Version,
    url: Url,
    body: Incoming,
    left: u64,
    most: u64,
    until: Instant,
    /// Keeps the connection.
    _client: Arc<HttpClient>,
}

impl fmt::Debug for Fetching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetching").field("url", &self.url).field("version", &self.version).finish_non_exhaustive()
    }
}

fn gave_up(url: &Url, why: Failure) -> Error {
    let tried = vec![Tried { place: url.origin.to_string(), why }];
    Error::Asked { step: Step::File, name: url.to_string(), tried }
}

impl Fetching {
    /// The next piece; `None`: that was all.
    ///
    /// # Errors
    /// More than was allowed, too slow, cut off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let wait = PIECE.min(self.until.saturating_duration_since(Instant::now()));
            let frame = match tokio::time::timeout(wait, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(gave_up(&self.url, from_http(&error))),
                Err(_) => return Err(gave_up(&self.url, Failure::Stalled(wait))),
            };
            let Ok(data) = frame.into_data() else { continue };
            let left = self.left.checked_sub(data.len() as u64);
            self.left = left.ok_or_else(|| gave_up(&self.url, Failure::TooLarge(self.most)))?;
            return Ok(Some(data));
        }
    }
}

/// Asks for a file of at most `most` bytes; `None`: it is still the version that is known.
pub(crate) async fn fetch(shared: &Shared, url: &Url, known: Option<&Version>, most: u64) -> Result<Option<Fetching>, Error> {
    let (mut at, mut redirects) = (url.clone(), 0);
    loop {
        let failed = |why| gave_up(url, why);
        let client = client(shared, url, &at.origin).await.map_err(failed)?;
        let response = ask(shared, &client, &at, known).await.map_err(failed)?;
        match response.status() {
            StatusCode::NOT_MODIFIED if known.is_some() => return Ok(None),
            status if is_redirect(status) => at = redirect(&at, response.headers(), &mut redirects).map_err(failed)?,
            StatusCode::OK => {
                let version = version(response.headers());
                let body = plain(response, most).map_err(failed)?;
                let until = Instant::now() + WHOLE;
                return Ok(Some(Fetching { version, url: url.clone(), body, left: most, most, until, _client: client }));
            }
            status => {
                let (code, message) = (String::new(), status.canonical_reason().unwrap_or_default().to_owned());
                return Err(failed(Failure::Status { status: status.as_u16(), code, message, retry_after: None }));
            }
        }
    }
}

/// Bytes as they are stored: a decoder of HTTP codings would be one more thing to feed bombs to (R27).
fn plain(response: Response<Incoming>, most: u64) -> Result<Incoming, Failure> {
    let coding = response.headers().get(header::CONTENT_ENCODING).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    if let Some(coding) = coding.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity")) {
        return Err(Failure::Encoding(clean(&coding, 40)));
    }
    if response.body().size_hint().lower() > most {
        return Err(Failure::TooLarge(most));
    }
    Ok(response.into_body())
}

/// Where an answer leads is not this machine nor its link, unless that is where it was asked for (R25).
async fn client(shared: &Shared, first: &Url, origin: &Origin) -> Result<Arc<HttpClient>, Failure> {
    let outward = *origin != first.origin && !first.origin.is_literal_loopback();
    let guard = if outward { Guard::Outward } else { Guard::Open };
    if let Some(address) = origin.address().filter(|address| outward && is_inner(*address)) {
        return Err(Failure::Connect(ConnectError::Inner(address)));
    }
    let tls = (origin.scheme == Scheme::Https).then(|| tls_of(&shared.config, origin).unwrap_or_default());
    let key = ClientKey { tls, guard, connect: shared.config.timeouts.connect };
    shared.clients.get(&key).await.map_err(Failure::Config)
}

async fn ask(shared: &Shared, client: &HttpClient, url: &Url, known: Option<&Version>) -> Result<Response<Incoming>, Failure> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = url.uri().map_err(|e| Failure::Redirect(RedirectError::Url(e)))?;
    let headers = request.headers_mut();
    let mut set = |name, value: Option<&str>| {
        if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
            headers.insert(name, value);
        }
    };
    set(header::USER_AGENT, Some(shared.config.user_agent.as_str()));
    set(header::ACCEPT_ENCODING, Some("identity"));
    set(header::IF_NONE_MATCH, known.and_then(|known| known.etag.as_deref()));
    set(header::IF_MODIFIED_SINCE, known.and_then(|known| known.modified_text.as_deref()));
    if let Some(authorization) = shared.clients.proxies.authorization(url) {
        headers.insert(header::PROXY_AUTHORIZATION, authorization);
    }
    let deadline = shared.config.timeouts.headers + shared.config.timeouts.connect;
    match tokio::time::timeout(deadline, client.request(request)).await {
        Ok(answer) => answer.map_err(|e| from_http(&e)),
        Err(_) => Err(Failure::NoAnswer(deadline)),
    }
}

fn version(headers: &HeaderMap) -> Version {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| text.len() <= ETAG);
    let modified_text = text(header::LAST_MODIFIED).map(str::to_owned);
    Version {
        etag: text(header::ETAG).map(str::to_owned),
        modified: modified_text.as_deref().and_then(|text| parse_http_date(text.trim())),
        modified_text,
    }
}

impl Version {
    /// Whether a server can be asked if it still is this one.
    pub fn is_known(&self) -> bool {
        self.etag.is_some() || self.modified_text.is_some()
    }
}
