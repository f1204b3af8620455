//! One request to one place: headers, redirects, a 401 answered once, bounded bodies in both directions.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use serde::Deserialize;

use crate::{
    ConnectError, Failure, Origin, Scheme, Url, UrlError,
    client::{ClientKey, HttpClient},
    dial::Guard,
    endpoint::{Endpoint, tls_of},
    failure::{RedirectError, clean, from_http},
    parse_challenge,
    source::Session,
    token::{Authorization, Party},
    url::is_inner,
};

const MOST_REDIRECTS: usize = 5;
/// Of an error's body; more than any registry's own message.
const ERROR_LIMIT: u64 = 64 * 1024;
const ERROR_DEADLINE: Duration = Duration::from_secs(5);

/// What a request has besides its URL.
#[derive(Clone, Default)]
pub(crate) struct Ask {
    pub(crate) accept: Option<&'static str>,
    /// First byte wanted, if not from the start.
    pub(crate) from: Option<u64>,
    /// Shown to the origin that is asked first, nobody else.
    pub(crate) authorization: Option<HeaderValue>,
    /// What is done.
    pub(crate) act: Act,
}

/// Method and body of a request.
#[derive(Clone, Debug, Default)]
pub(crate) enum Act {
    #[default]
    Get,
    Head,
    /// A form to POST.
    Form(String),
    /// Begins an upload.
    Post,
    /// A piece of an upload, from a position in the whole.
    Patch {
        from: u64,
        piece: Bytes,
    },
    /// A whole document or the end of an upload.
    Put {
        media_type: String,
        body: Bytes,
    },
}

/// The slowest uplink that is waited for, in bytes per second: time to send is not the server's thinking time.
const SLOWEST_UPLINK: u64 = 32 * 1024;

impl Act {
    fn method(&self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Form(_) | Self::Post => Method::POST,
            Self::Patch { .. } => Method::PATCH,
            Self::Put { .. } => Method::PUT,
        }
    }

    fn body(&self) -> Bytes {
        match self {
            Self::Get | Self::Head | Self::Post => Bytes::new(),
            Self::Form(form) => Bytes::from(form.clone()),
            Self::Patch { piece, .. } => piece.clone(),
            Self::Put { body, .. } => body.clone(),
        }
    }

    fn content_type(&self) -> Option<&str> {
        match self {
            Self::Get | Self::Head | Self::Post => None,
            Self::Form(_) => Some("application/x-www-form-urlencoded"),
            Self::Patch { .. } => Some("application/octet-stream"),
            Self::Put { media_type, .. } => Some(media_type),
        }
    }

    /// Whether an answer's redirect is followed. 301 to 303 would turn an upload into a GET.
    fn follows(&self, status: StatusCode) -> bool {
        match self {
            Self::Get | Self::Head => is_redirect(status),
            Self::Form(_) => false,
            Self::Post | Self::Patch { .. } | Self::Put { .. } => matches!(status.as_u16(), 307 | 308),
        }
    }
}

impl Session {
    /// Asks a place: follows redirects and answers each origin's first 401. An error status is a failure, any other
    /// the caller's.
    pub(crate) async fn ask(&self, endpoint: &Endpoint, url: Url, ask: &Ask) -> Result<Response<Incoming>, Failure> {
        let mut url = url;
        let mut redirects = 0;
        let mut answered: Vec<Origin> = Vec::new();
        loop {
            let origin = url.origin.clone();
            let login = self.login_for(endpoint, &origin);
            let party = Party { origin: &origin, repository: &self.repository, access: self.access, login };
            let used = self.shared.tokens.current(party).await;
            let this = Ask { authorization: used.header.clone(), ..ask.clone() };
            let response = self.send(endpoint, &url, &this).await?;
            if response.status() == StatusCode::UNAUTHORIZED && !answered.contains(&origin) {
                let challenges = challenges(response.headers())?;
                if self.shared.tokens.renew(self, endpoint, party, &used, &challenges).await? {
                    answered.push(origin);
                    continue;
                }
            }
            if ask.act.follows(response.status()) {
                url = redirect(&url, response.headers(), &mut redirects)?;
                continue;
            }
            if response.status().is_client_error() || response.status().is_server_error() {
                return Err(self.refused(response, party, &used).await);
            }
            return Ok(response);
        }
    }

    async fn refused(&self, response: Response<Incoming>, party: Party<'_>, used: &Authorization) -> Failure {
        self.status_failure(response, |text| party.login.scrub(&used.scrub(text))).await
    }

    /// A token server's answer: redirects are followed for GET, with the login only at the first origin.
    pub(crate) async fn ask_for_token(&self, endpoint: &Endpoint, url: Url, ask: Ask) -> Result<Response<Incoming>, Failure> {
        let first = url.origin.clone();
        let mut url = url;
        let mut redirects = 0;
        loop {
            let this = Ask { authorization: ask.authorization.clone().filter(|_| url.origin == first), ..ask.clone() };
            let response = self.send(endpoint, &url, &this).await?;
            if !ask.act.follows(response.status()) {
                return Ok(response);
            }
            url = redirect(&url, response.headers(), &mut redirects)?;
        }
    }

    /// One request and the headers of its answer.
    async fn send(&self, endpoint: &Endpoint, url: &Url, ask: &Ask) -> Result<Response<Incoming>, Failure> {
        let (client, connect) = self.client_for(endpoint, &url.origin).await?;
        let uri = url.uri().map_err(|e| Failure::Redirect(RedirectError::Url(e)))?;
        let body = ask.act.body();
        let sending = Duration::from_secs(body.len() as u64 / SLOWEST_UPLINK);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = ask.act.method();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        if url.origin == endpoint.origin {
            for (name, value) in &endpoint.headers {
                headers.append(name, value.clone());
            }
        }
        self.fill(headers, url, ask);
        // The connection has a deadline of its own; its time is not the server's thinking time.
        let deadline = self.shared.config.timeouts.headers + connect + sending;
        match tokio::time::timeout(deadline, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(from_http(&error)),
            Err(_) => Err(Failure::NoAnswer(deadline)),
        }
    }

    fn fill(&self, headers: &mut HeaderMap, url: &Url, ask: &Ask) {
        if let Ok(agent) = HeaderValue::from_str(&self.shared.config.user_agent) {
            headers.insert(header::USER_AGENT, agent);
        }
        // Digests are of the bytes as stored; a decoder of HTTP codings would be one more thing to feed bombs to (R27).
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(accept) = ask.accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(from) = ask.from
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={from}-"))
        {
            headers.insert(header::RANGE, range);
        }
        if let Some(authorization) = &ask.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        if let Some(authorization) = self.shared.clients.proxies.authorization(url) {
            headers.insert(header::PROXY_AUTHORIZATION, authorization);
        }
        if let Some(Ok(content_type)) = ask.act.content_type().map(HeaderValue::from_str) {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        if let Act::Patch { from, piece } = &ask.act
            && let Ok(range) = HeaderValue::from_str(&format!("{from}-{}", from + (piece.len() as u64).saturating_sub(1)))
        {
            headers.insert(header::CONTENT_RANGE, range);
        }
    }

    /// The pool for an origin, and the time a connection of it may take.
    async fn client_for(&self, endpoint: &Endpoint, origin: &Origin) -> Result<(Arc<HttpClient>, Duration), Failure> {
        let usual = self.shared.config.timeouts.connect;
        let (tls, guard, connect) = if *origin == endpoint.origin {
            (endpoint.tls.clone(), Guard::Open, endpoint.dial_timeout.unwrap_or(usual))
        } else {
            // Somewhere the answer led us. If the administrator has configured it, as configured.
            let own = tls_of(&self.shared.config, origin);
            let guard = if own.is_some() || endpoint.may_lead_inside() { Guard::Open } else { Guard::Outward };
            (own.unwrap_or_else(|| endpoint.tls.for_others()), guard, usual)
        };
        if let Some(address) = origin.address().filter(|a| guard == Guard::Outward && is_inner(*a)) {
            return Err(Failure::Connect(ConnectError::Inner(address)));
        }
        let tls = (origin.scheme == Scheme::Https).then_some(tls);
        Ok((self.client(ClientKey { tls, guard, connect }).await?, connect))
    }

    /// A whole body of limited size, within the document deadline.
    pub(crate) async fn read_all(&self, response: Response<Incoming>, limit: u64) -> Result<Bytes, Failure> {
        let coding = response.headers().get(header::CONTENT_ENCODING).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        if let Some(coding) = coding.filter(|c| !c.is_empty() && !c.eq_ignore_ascii_case("identity")) {
            return Err(Failure::Encoding(clean(&coding, 40)));
        }
        let deadline = self.shared.config.timeouts.document;
        tokio::time::timeout(deadline, collect(response.into_body(), limit)).await.unwrap_or(Err(Failure::Slow(deadline)))
    }

    /// What an answer with an error status says, cleaned; `scrub` takes out what we sent.
    pub(crate) async fn status_failure(&self, response: Response<Incoming>, scrub: impl Fn(&str) -> String) -> Failure {
        let status = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(parse_retry_after);
        let body = tokio::time::timeout(ERROR_DEADLINE, collect(response.into_body(), ERROR_LIMIT)).await;
        let (code, message) = body.ok().and_then(Result::ok).map(|body| explanation(&body)).unwrap_or_default();
        Failure::Status { status, code: clean(&scrub(&code), 64), message: clean(&scrub(&message), 256), retry_after }
    }
}

/// Reads a body; more than `limit` bytes are an error before they are memory.
async fn collect(mut body: Incoming, limit: u64) -> Result<Bytes, Failure> {
    if body.size_hint().lower() > limit {
        return Err(Failure::TooLarge(limit));
    }
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| from_http(&e))?;
        if let Ok(data) = frame.into_data() {
            if (all.len() + data.len()) as u64 > limit {
                return Err(Failure::TooLarge(limit));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

fn challenges(headers: &HeaderMap) -> Result<Vec<crate::Challenge>, Failure> {
    let mut all = Vec::new();
    for value in headers.get_all(header::WWW_AUTHENTICATE).iter().take(8) {
        all.extend(parse_challenge(value.as_bytes()).map_err(Failure::Challenge)?);
    }
    Ok(all)
}

pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(crate) fn redirect(from: &Url, headers: &HeaderMap, count: &mut usize) -> Result<Url, Failure> {
    *count += 1;
    if *count > MOST_REDIRECTS {
        return Err(Failure::Redirect(RedirectError::TooMany));
    }
    let location = headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
    let location = location.ok_or(Failure::Redirect(RedirectError::NoLocation))?;
    let to = from
        .join(location)
        .map_err(|e| Failure::Redirect(if e == UrlError::Form { RedirectError::NoLocation } else { RedirectError::Url(e) }))?;
    if from.origin.scheme == Scheme::Https && to.origin.scheme == Scheme::Http {
        return Err(Failure::Redirect(RedirectError::Downgrade));
    }
    Ok(to)
}

#[derive(Deserialize)]
struct Explanation {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    details: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Code and message out of a registry's (or a token server's) error body.
fn explanation(body: &[u8]) -> (String, String) {
    let Ok(said) = serde_json::from_slice::<Explanation>(body) else { return Default::default() };
    match said.errors.into_iter().next() {
        Some(first) => (first.code, first.message),
        None => {
            let message = said.error_description.or(said.details).or(said.message);
            (said.error.unwrap_or_default(), message.unwrap_or_default())
        }
    }
}

/// `Retry-After`: seconds or an HTTP date; what is neither is no header.
fn parse_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(parse_http_date(text.trim())?.saturating_sub(now)))
}

/// Seconds since 1970 of an IMF-fixdate (`Sun, 06 Nov 1994 08:49:37 GMT`), the one form that may be sent.
pub(crate) fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split(' ').collect();
    let [_, day, month, year, clock, "GMT"] = words.as_slice() else { return None };
    let number = |text: &str, most: u64| text.parse::<u64>().ok().filter(|n| *n <= most);
    let month = MONTHS.iter().position(|m| m == month)? as u64 + 1;
    let (day, year) = (number(day, 31).filter(|d| *d > 0)?, number(year, 9999).filter(|y| *y >= 1970)?);
    let clock: Vec<u64> = clock.split(':').map(|part| number(part, 60)).collect::<Option<_>>()?;
    let [hour, minute, second] = clock.as_slice() else { return None };
    let days = model::time::days(year.cast_signed(), month.cast_signed(), day.cast_signed());
    Some(u64::try_from(days).ok()? * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_seconds_are_read() {
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse_http_date("Tue, 29 Feb 2028 12:00:00 GMT"), Some(1_835_438_400));
        assert_eq!(parse_retry_after("3"), Some(Duration::from_secs(3)));
        assert_eq!(parse_retry_after("1000000000"), Some(Duration::from_secs(1_000_000_000)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        for bad in
            ["-3", "", "soon", "Sun, 06 Nov 1994 08:49 GMT", "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Xxx 1994 08:49:37 GMT"]
        {
            assert_eq!(parse_retry_after(bad), None, "{bad}");
        }
    }

    #[test]
    fn explanations_are_found() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(explanation(br#"{"errors":[{"code":"DENIED","message":"no","detail":{"x":1}}]}"#), pair("DENIED", "no"));
        assert_eq!(explanation(br#"{"error":"invalid_grant","error_description":"old"}"#), pair("invalid_grant", "old"));
        assert_eq!(explanation(br#"{"details":"incorrect"}"#), pair("", "incorrect"));
        assert_eq!(explanation(b"<html>"), pair("", ""));
        assert_eq!(clean("a\x1b[31m\r\nb\u{0}", 10), "a [31m b");
        assert_eq!(clean(&"x".repeat(50), 5), "xxxxx..");
    }
}
