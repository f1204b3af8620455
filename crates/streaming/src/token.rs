//! URLs that work once: what was asked for waits here for the client to come for it.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    backend::{AttachRequest, ExecRequest, PortForwardRequest},
    error::Error,
};

/// How long a client may take to come.
const TTL: Duration = Duration::from_secs(60);
/// Requests that wait at a time.
const MOST: usize = 1000;
/// Bytes of randomness in a token.
const TOKEN: usize = 32;

/// What a URL is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `/exec/`
    Exec(ExecRequest),
    /// `/attach/`
    Attach(AttachRequest),
    /// `/portforward/`
    PortForward(PortForwardRequest),
}

impl Request {
    /// The first part of the URL's path.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }
}

/// Requests by token. A token is 256 random bits, so that neither the map's timing nor guessing gives one away
/// (security.md R47). It is never logged.
#[derive(Default)]
pub(crate) struct Tokens {
    waiting: Mutex<HashMap<String, (Instant, Request)>>,
}

impl Tokens {
    /// Remembers a request; the path of its URL.
    pub(crate) fn issue(&self, request: Request) -> Result<String, Error> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        waiting.retain(|_, (until, _)| *until > now);
        if waiting.len() >= MOST {
            return Err(Error::TooMany(MOST));
        }
        let mut bytes = [0; TOKEN];
        getrandom::fill(&mut bytes).expect("getrandom(2) cannot fail once the kernel's pool is ready");
        let token = bytes.iter().fold(String::with_capacity(2 * TOKEN), |mut token, byte| {
            let _ = write!(token, "{byte:02x}");
            token
        });
        let path = format!("/{}/{token}", request.verb());
        waiting.insert(token, (now + TTL, request));
        Ok(path)
    }

    /// The request that this path was made for. Its URL is worth nothing afterwards.
    pub(crate) fn claim(&self, path: &str) -> Option<Request> {
        let (verb, token) = path.strip_prefix('/')?.split_once('/')?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.get(token)?.1.verb() != verb {
            return None;
        }
        let (until, request) = waiting.remove(token)?;
        (until > Instant::now()).then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use model::PodId;

    use super::*;

    fn request() -> Request {
        Request::PortForward(PortForwardRequest { pod: PodId::from_bytes([1; 32]), ports: vec![80] })
    }

    #[tokio::test(start_paused = true)]
    async fn a_url_works_once_for_a_minute_and_for_one_thing() {
        let tokens = Tokens::default();
        let path = tokens.issue(request()).unwrap();
        assert_eq!(path.len(), "/portforward/".len() + 64);
        for other in
            [path.replace("portforward", "exec"), path[..path.len() - 1].to_owned(), "/".into(), String::new(), format!("{path}/")]
        {
            assert_eq!(tokens.claim(&other), None, "{other}");
        }
        assert_eq!(tokens.claim(&path), Some(request()));
        assert_eq!(tokens.claim(&path), None);
        let path = tokens.issue(request()).unwrap();
        tokio::time::advance(TTL).await;
        assert_eq!(tokens.claim(&path), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait() {
        let tokens = Tokens::default();
        let paths: Vec<_> = (0..MOST).map(|_| tokens.issue(request()).unwrap()).collect();
        assert!(matches!(tokens.issue(request()), Err(Error::TooMany(MOST))));
        tokens.claim(&paths[7]).unwrap();
        tokens.issue(request()).unwrap();
        assert!(tokens.issue(request()).is_err());
        tokio::time::advance(TTL).await;
        tokens.issue(request()).unwrap();
    }
}
