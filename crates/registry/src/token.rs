//! Tokens: who is shown to which origin, fetched where its challenge says, kept while they last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderValue;
use serde::Deserialize;

use crate::{
    Challenge, ChallengeError, Failure, Origin, Scheme, Url, UrlError,
    credentials::{Login, sensitive},
    endpoint::Endpoint,
    exchange::{Act, Ask},
    source::Session,
    url::percent,
};

const TOKEN_LIMIT: u64 = 1 << 20;
const MOST_SLOTS: usize = 512;
/// What the token specification says a token lasts where the server does not.
const USUAL_LIFE: u64 = 60;
const LONGEST_LIFE: u64 = 24 * 3600;

/// Whose token for what.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    origin: Origin,
    repository: String,
    access: Access,
    login: [u8; 32],
}

/// The authorization of one key. The async lock around it makes a hundred requests that meet a 401 at once fetch
/// one token (F-41).
#[derive(Default)]
struct Slot {
    generation: u64,
    header: Option<HeaderValue>,
    until: Option<Instant>,
}

/// All authorizations, shared by all pulls.
#[derive(Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Slot>>>>,
}

/// What to send now, and which generation it is.
#[derive(Clone, Default)]
pub(crate) struct Authorization {
    pub(crate) header: Option<HeaderValue>,
    generation: u64,
}

impl Authorization {
    /// Takes what was sent out of a text that came back.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let sent = self.header.as_ref().and_then(|h| h.to_str().ok()).and_then(|h| h.split_once(' '));
        sent.map_or_else(|| text.to_owned(), |(_, secret)| crate::Secret::new(secret).scrub(text))
    }
}

/// What is going to be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// Whom a request is from, and for what.
#[derive(Clone, Copy)]
pub(crate) struct Party<'a> {
    pub(crate) origin: &'a Origin,
    /// Empty: the registry as a whole.
    pub(crate) repository: &'a str,
    pub(crate) access: Access,
    pub(crate) login: &'a Login,
}

impl Tokens {
    /// What is known to work for a party.
    pub(crate) async fn current(&self, party: Party<'_>) -> Authorization {
        if let Login::Bearer(token) = party.login {
            return Authorization { header: sensitive(&format!("Bearer {}", token.expose())), generation: 0 };
        }
        let slot = self.slot(party);
        let slot = slot.lock().await;
        let live = slot.until.is_none_or(|until| Instant::now() < until);
        Authorization { header: slot.header.clone().filter(|_| live), generation: slot.generation }
    }

    /// Answers a 401. True: try again; false: there is nothing more to show.
    pub(crate) async fn renew(
        &self,
        session: &Session,
        endpoint: &Endpoint,
        party: Party<'_>,
        used: &Authorization,
        challenges: &[Challenge],
    ) -> Result<bool, Failure> {
        if matches!(party.login, Login::Bearer(_)) {
            return Ok(false);
        }
        let slot = self.slot(party);
        let mut slot = slot.lock().await;
        if slot.generation != used.generation && slot.header.is_some() {
            return Ok(true);
        }
        *slot = Slot { generation: slot.generation + 1, header: None, until: None };
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            let token = fetch(session, endpoint, party, bearer).await?;
            slot.until = Some(Instant::now() + token.life);
            slot.header = Some(token.header);
        } else if challenges.iter().any(|c| c.scheme == "basic") {
            slot.header = party.login.basic();
        }
        // Basic credentials that were sent already and refused are not sent again.
        Ok(slot.header.is_some() && slot.header != used.header)
    }

    fn slot(&self, party: Party<'_>) -> Arc<tokio::sync::Mutex<Slot>> {
        let (repository, access) = (party.repository.to_owned(), party.access);
        let key = Key { origin: party.origin.clone(), repository, access, login: party.login.fingerprint() };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MOST_SLOTS {
            let now = Instant::now();
            slots.retain(|_, slot| slot.try_lock().is_ok_and(|slot| slot.until.is_some_and(|until| now < until)));
            if slots.len() >= MOST_SLOTS {
                slots.clear();
            }
        }
        Arc::clone(slots.entry(key).or_default())
    }
}

struct Token {
    header: HeaderValue,
    life: Duration,
}

#[derive(Deserialize)]
struct Reply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// The realm's URL, if it may be asked (R25): not over a weaker scheme than the registry, no user information.
fn realm(origin: &Origin, challenge: &Challenge) -> Result<Url, ChallengeError> {
    let text = challenge.get("realm").ok_or(ChallengeError::Realm("missing"))?;
    let url = Url::parse(text).map_err(|e| {
        ChallengeError::Realm(match e {
            UrlError::Scheme => "neither an http nor an https URL",
            UrlError::UserInfo => "URL with user information",
            UrlError::Form | UrlError::TooLong => "not an absolute URL",
        })
    })?;
    if url.origin.scheme == Scheme::Http && origin.scheme == Scheme::Https {
        return Err(ChallengeError::Realm("plain http for a registry with https"));
    }
    Ok(url)
}

/// The scopes to ask for: what is to be done in this repository, and what the registry itself says (which may be its
/// own word, or a second repository that a blob is to be mounted from).
fn scopes(party: Party<'_>, challenge: &Challenge) -> Vec<String> {
    let theirs = challenge.get("scope").filter(|s| !s.is_empty()).map(str::to_owned);
    if party.repository.is_empty() || theirs.as_ref().is_some_and(|theirs| covers(theirs, party)) {
        return theirs.into_iter().collect();
    }
    let actions = match party.access {
        Access::Pull => "pull",
        Access::Push => "pull,push",
    };
    std::iter::once(format!("repository:{}:{actions}", party.repository)).chain(theirs).collect()
}

/// Whether a scope lets do in a repository what is to be done.
fn covers(scope: &str, party: Party<'_>) -> bool {
    let wanted = match party.access {
        Access::Pull => "pull",
        Access::Push => "push",
    };
    let one = |scope: &str| match scope.strip_prefix("repository:").and_then(|s| s.rsplit_once(':')) {
        Some((name, actions)) => name == party.repository && actions.split(',').any(|a| a == wanted || a == "*"),
        None => false,
    };
    scope.split(' ').any(one)
}

async fn fetch(session: &Session, endpoint: &Endpoint, party: Party<'_>, challenge: &Challenge) -> Result<Token, Failure> {
    let realm = realm(party.origin, challenge).map_err(Failure::Challenge)?;
    let place = realm.to_string();
    let wrap = |why: Failure| Failure::Token { realm: place, why: Box::new(why) };
    match fetch_from(session, endpoint, party, challenge, realm).await {
        Ok(token) => Ok(token),
        Err(why) => Err(wrap(why)),
    }
}

async fn fetch_from(
    session: &Session,
    endpoint: &Endpoint,
    party: Party<'_>,
    challenge: &Challenge,
    mut url: Url,
) -> Result<Token, Failure> {
    let service = challenge.get("service").unwrap_or_default();
    let scopes = scopes(party, challenge);
    let ask = if let Login::Identity(refresh) = party.login {
        // OAuth2 (distribution's token/oauth): the refresh token travels in the body, never in a URL.
        let form = format!(
            "grant_type=refresh_token&client_id=creel&service={}&scope={}&refresh_token={}",
            percent(service),
            percent(&scopes.join(" ")),
            percent(refresh.expose())
        );
        Ask { act: Act::Form(form), ..Ask::default() }
    } else {
        if !service.is_empty() {
            url = url.with_query("service", service);
        }
        for scope in &scopes {
            url = url.with_query("scope", scope);
        }
        if let Login::Password { username, .. } = party.login {
            url = url.with_query("account", username);
        }
        Ask { authorization: party.login.basic(), ..Ask::default() }
    };
    let response = session.ask_for_token(endpoint, url, ask).await?;
    if response.status() != http::StatusCode::OK {
        return Err(session.status_failure(response, |text| party.login.scrub(text)).await);
    }
    let body = session.read_all(response, TOKEN_LIMIT).await?;
    token(&body)
}

fn token(body: &[u8]) -> Result<Token, Failure> {
    // The parser's own message would quote the answer.
    let reply: Reply = serde_json::from_slice(body).map_err(|_| Failure::NoToken("not the JSON of a token"))?;
    let text = reply.token.filter(|t| !t.is_empty()).or(reply.access_token).filter(|t| !t.is_empty());
    let text = text.ok_or(Failure::NoToken("neither token nor access_token"))?;
    // b64token (RFC 6750): nothing that could be a second header or an endless one.
    let legal = |c: u8| c.is_ascii_graphic();
    if text.len() > 32 * 1024 || !text.bytes().all(legal) {
        return Err(Failure::NoToken("longer than 32 KiB or with illegal characters"));
    }
    let header = sensitive(&format!("Bearer {text}")).ok_or(Failure::NoToken("illegal characters"))?;
    let seconds = reply.expires_in.unwrap_or(USUAL_LIFE).clamp(1, LONGEST_LIFE);
    // Renewed a little before its end, so that it does not end on the way.
    Ok(Token { header, life: Duration::from_secs(seconds - (seconds / 10).min(30)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Url::parse(text).unwrap().origin
    }

    #[test]
    fn realms_are_not_weaker_than_the_registry() {
        let with = |realm: &str| Challenge { scheme: "bearer".into(), parameters: vec![("realm".into(), realm.into())] };
        let (tls, plain) = (origin("https://reg.example"), origin("http://reg.example"));
        assert!(realm(&tls, &with("https://auth.example/token?x=y")).is_ok());
        assert!(realm(&plain, &with("http://auth.example/token")).is_ok());
        for bad in
            ["http://auth.example/", "file:///etc/passwd", "unix:/run/x", "/token", "", "https://u:p@auth.example/", "ftp://x/"]
        {
            assert!(realm(&tls, &with(bad)).is_err(), "{bad}");
        }
        assert!(realm(&tls, &Challenge { scheme: "bearer".into(), parameters: vec![] }).is_err());
    }

    #[test]
    fn scopes_cover_the_repository() {
        let origin = origin("https://reg.example");
        let party = Party { origin: &origin, repository: "a/b", access: Access::Pull, login: &Login::Anonymous };
        let with = |scope: &str| Challenge { scheme: "bearer".into(), parameters: vec![("scope".into(), scope.into())] };
        for (scope, result) in [
            ("repository:a/b:pull", &["repository:a/b:pull"][..]),
            ("repository:a/b:push,pull", &["repository:a/b:push,pull"]),
            ("", &["repository:a/b:pull"]),
            ("aws", &["repository:a/b:pull", "aws"]),
            ("repository:other:pull", &["repository:a/b:pull", "repository:other:pull"]),
        ] {
            assert_eq!(scopes(party, &with(scope)), result, "{scope}");
        }
        let pushing = Party { access: Access::Push, ..party };
        assert_eq!(scopes(pushing, &with("repository:a/b:pull")), ["repository:a/b:pull,push", "repository:a/b:pull"]);
        let two = "repository:a/b:pull,push repository:c:pull";
        assert_eq!(scopes(pushing, &with(two)), [two]);
        let whole = Party { repository: "", ..party };
        assert_eq!(scopes(whole, &with("registry:catalog:*")), ["registry:catalog:*"]);
        assert!(scopes(whole, &with("")).is_empty());
    }

    #[test]
    fn token_answers_are_checked() {
        let life = |text: &str| token(text.as_bytes()).map(|t| t.life.as_secs());
        assert_eq!(life(r#"{"token":"a"}"#).unwrap(), 54);
        assert_eq!(life(r#"{"access_token":"a","expires_in":3600}"#).unwrap(), 3570);
        assert_eq!(life(r#"{"token":"","access_token":"a","expires_in":0}"#).unwrap(), 1);
        assert!(life(r#"{"token":"a","expires_in":99999999999}"#).unwrap() <= LONGEST_LIFE);
        for bad in ["", "{}", r#"{"token":"a\r\nX: y"}"#, r#"{"token":"a b"}"#, r#"{"token":7}"#, "secret-but-not-json"] {
            let error = token(bad.as_bytes()).err().unwrap().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
