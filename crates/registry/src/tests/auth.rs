//! Credentials: to whom they are shown, and to whom never (IM-01, IM-02, IM-14, F-41).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::ErrorKind;

use super::{
    bare, config,
    farm::{Farm, Reply, Seen, Store, noise},
    hosts, layers, password, resolve,
    tls::{Authority, client},
    told,
};
use crate::{Credentials, Registry, Secret};

fn store() -> Store {
    let mut store = Store::default();
    store.image("lab/x", "1", &[noise(1000, 1), noise(1000, 2), noise(1000, 3)]);
    store
}

fn challenge(realm: &str) -> Reply {
    Reply::error(401, "UNAUTHORIZED", "authentication required")
        .with("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:lab/x:pull\""))
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode("user:p4ssw0rd"))
}

/// A token server that numbers its tokens, and how many it has given.
async fn tokens(check: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> (Farm, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given);
    let farm = Farm::start(move |seen| {
        if !check(seen) {
            return Reply::new(401, r#"{"details":"incorrect username or password: p4ssw0rd"}"#);
        }
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::new(200, format!(r#"{{"token":"secret-token-{number}","expires_in":300}}"#))
    })
    .await;
    (farm, given)
}

/// A registry that wants one of the tokens.
async fn registry(realm: String, good: impl Fn(&str) -> bool + Send + Sync + 'static) -> Farm {
    let store = store();
    Farm::start(move |seen| match seen.header("authorization").and_then(|a| a.strip_prefix("Bearer secret-token-")) {
        Some(number) if good(number) => store.reply(seen),
        _ => challenge(&realm),
    })
    .await
}

#[tokio::test]
async fn bearer_tokens_are_fetched_once_and_kept_for_the_repository() {
    let (auth, given) = tokens(|seen| seen.header("authorization") == Some(&basic())).await;
    let farm = registry(format!("http://{}/token?x=y", auth.localhost()), |_| true).await;
    let (_directory, client) = bare();
    for _ in 0..2 {
        let resolved = resolve(&client, &format!("{}/lab/x:1", farm.host()), &password()).await.unwrap();
        layers(&client, &resolved).await.unwrap();
    }
    assert_eq!(given.load(Ordering::SeqCst), 1);
    let asked = &auth.seen()[0];
    assert_eq!(asked.target, "/token?x=y&service=reg&scope=repository%3Alab%2Fx%3Apull&account=user");
    assert!(farm.seen().iter().all(|s| !s.header("authorization").is_some_and(|a| a.starts_with("Basic"))));
    // Without the password nobody gets the other's token.
    let error = resolve(&client, &format!("{}/lab/x:1", farm.host()), &Credentials::anonymous()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn identity_tokens_travel_in_a_form() {
    let (auth, given) = tokens(|seen| seen.method == "POST" && seen.header("authorization").is_none()).await;
    let farm = registry(format!("http://{}/token", auth.host()), |_| true).await;
    let (_directory, client) = bare();
    let login = Credentials { identity_token: Some(Secret::new("r&f")), ..Credentials::default() };
    resolve(&client, &format!("{}/lab/x:1", farm.host()), &login).await.unwrap();
    assert_eq!(given.load(Ordering::SeqCst), 1);
    let body = &auth.seen()[0].body;
    assert!(body.starts_with("grant_type=refresh_token&client_id=creel&service=reg&scope="), "{body}");
    assert!(body.ends_with("&refresh_token=r%26f") && auth.seen()[0].target == "/token");
}

#[tokio::test]
async fn registry_tokens_are_sent_as_they_are_and_not_renewed() {
    let farm = registry("http://localhost:1/".to_owned(), |number| number == "7").await;
    let (_directory, client) = bare();
    let login =
        |number| Credentials { registry_token: Some(Secret::new(format!("secret-token-{number}"))), ..Credentials::default() };
    let image = format!("{}/lab/x:1", farm.host());
    let resolved = resolve(&client, &image, &login(7)).await.unwrap();
    layers(&client, &resolved).await.unwrap();
    let before = farm.seen().len();
    let error = resolve(&client, &image, &login(8)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(farm.seen().len(), before + 1);
    assert!(!format!("{error:?}{}", told(&error)).contains("secret-token"));
}

#[tokio::test]
async fn basic_is_shown_only_where_it_is_asked_for() {
    let store = store();
    let farm = Farm::start(move |seen| {
        if seen.header("authorization") == Some(&basic()) {
            store.reply(seen)
        } else {
            Reply::error(401, "UNAUTHORIZED", &format!("you sent {:?}", seen.header("authorization")))
                .with("www-authenticate", "Negotiate")
                .with("www-authenticate", "Basic realm=\"x\"")
        }
    })
    .await;
    let (_directory, client) = bare();
    let image = format!("{}/lab/x:1", farm.host());
    let resolved = resolve(&client, &image, &password()).await.unwrap();
    layers(&client, &resolved).await.unwrap();
    let shown: Vec<bool> = farm.seen().iter().map(|s| s.header("authorization").is_some()).collect();
    assert!(!shown[0] && shown[1..].iter().all(|s| *s), "{shown:?}");
    let packed = Credentials { auth: Some(Secret::new(STANDARD.encode("user:p4ssw0rd"))), ..Credentials::default() };
    resolve(&client, &image, &packed).await.unwrap();
    // A wrong password is tried once; what the registry echoes is scrubbed.
    let before = farm.seen().len();
    let wrong = Credentials { password: Some(Secret::new("wr0ngpass")), ..password() };
    let error = resolve(&client, &image, &wrong).await.unwrap_err();
    assert_eq!((error.kind(), farm.seen().len()), (ErrorKind::PermissionDenied, before + 2));
    let text = format!("{error:?}{}", told(&error));
    assert!(text.contains("you sent") && !text.contains(&STANDARD.encode("user:wr0ngpass")), "{text}");
    // For another server they are not used at all.
    let before = farm.seen().len();
    let elsewhere = Credentials { server_address: Some("https://other.example".into()), ..password() };
    assert_eq!(resolve(&client, &image, &elsewhere).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert!(farm.seen()[before..].iter().all(|s| s.header("authorization").is_none()));
}

#[tokio::test]
async fn f_41_a_token_that_ends_in_mid_pull_is_renewed_once_for_each_401() {
    let (auth, given) = tokens(|_| true).await;
    let first_is_good = Arc::new(AtomicUsize::new(3));
    let left = Arc::clone(&first_is_good);
    let farm = registry(format!("http://{}/token", auth.host()), move |number| {
        number == "2" || (number == "1" && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok())
    })
    .await;
    let (_directory, client) = bare();
    let resolved = resolve(&client, &format!("{}/lab/x:1", farm.host()), &Credentials::anonymous()).await.unwrap();
    assert_eq!(layers(&client, &resolved).await.unwrap().len(), 3);
    assert_eq!(given.load(Ordering::SeqCst), 2);
    // A registry that likes no token is not asked for ever.
    let never = registry(format!("http://{}/token", auth.host()), |_| false).await;
    let error = resolve(&client, &format!("{}/lab/x:1", never.host()), &Credentials::anonymous()).await.unwrap_err();
    assert_eq!((error.kind(), never.seen().len()), (ErrorKind::PermissionDenied, 2));
    assert!(told(&error).contains("status 401: UNAUTHORIZED: authentication required"), "{}", told(&error));
}

#[tokio::test]
async fn f_41_many_requests_at_once_fetch_one_token() {
    let (auth, given) = tokens(|_| true).await;
    let farm = registry(format!("http://{}/token", auth.host()), |_| true).await;
    let (_directory, client) = bare();
    let mut pulls = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (client, image) = (client.clone(), format!("{}/lab/x:1", farm.host()));
        pulls.spawn(async move { resolve(&client, &image, &Credentials::anonymous()).await.map(|_| ()) });
    }
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap().unwrap();
    }
    assert_eq!(given.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn im_14_a_refused_login_says_where_and_shows_no_secret() {
    let (auth, _) = tokens(|_| false).await;
    let farm = registry(format!("http://{}/token?sig=s1gnature", auth.host()), |_| true).await;
    let (_directory, client) = bare();
    let error = resolve(&client, &format!("{}/lab/x:1", farm.host()), &password()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let text = format!("{error:?} {error} {}", told(&error));
    assert!(
        text.contains(&format!("token from http://{}/token: status 401: incorrect username or password: ***", auth.host())),
        "{text}"
    );
    for secret in ["p4ssw0rd", "s1gnature", &STANDARD.encode("user:p4ssw0rd")] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// What nobody but the registry may see.
fn carries_secrets(seen: &Seen) -> bool {
    ["authorization", "cookie", "x-key"].iter().any(|h| seen.header(h).is_some()) || seen.target.contains("secret")
}

#[tokio::test]
async fn im_01_redirects_carry_no_secrets_to_other_origins() {
    let store = store();
    let good = store.clone();
    let cdn = Farm::start(move |seen| good.reply(seen)).await;
    let cdn_port = cdn.address.port();
    let home = Arc::new(std::sync::Mutex::new(String::new()));
    let back = Arc::clone(&home);
    // B sends everything back to A under another path.
    let evil = Farm::start(move |seen| Reply::redirect(format!("{}{}?again", back.lock().unwrap(), seen.path()))).await;
    let evil_host = evil.localhost();
    let count = AtomicUsize::new(0);
    let farm = Farm::start(move |seen| {
        if seen.header("authorization") != Some(&basic()) {
            return Reply::status(401).with("www-authenticate", "Basic realm=x");
        }
        if !seen.path().contains("/blobs/") || seen.target.contains("again") {
            return store.reply(seen);
        }
        match count.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => Reply::redirect(format!("http://{evil_host}{}", seen.path())),
            _ => Reply::redirect(format!("//localhost:{cdn_port}{}?X-Signature=abc", seen.path())),
        }
    })
    .await;
    *home.lock().unwrap() = format!("http://{}", farm.host());
    let directory = tempfile::tempdir().unwrap();
    let client = Registry::new(config(&directory));
    let text = format!("server = 'http://{0}'\n[header]\nX-Key = 'secret'\nCookie = 'secret'", farm.host());
    hosts(&directory, &farm.host(), &text);
    let resolved = resolve(&client, &format!("{}/lab/x:1", farm.host()), &password()).await.unwrap();
    layers(&client, &resolved).await.unwrap();
    assert!(!evil.seen().is_empty() && !cdn.seen().is_empty());
    for seen in evil.seen().iter().chain(&cdn.seen()) {
        assert!(!carries_secrets(seen), "{seen:?}");
    }
    assert!(farm.seen().iter().all(|s| s.header("x-key") == Some("secret")));
}

#[tokio::test]
async fn im_01_a_mirror_sees_no_credentials_but_its_own() {
    let store = store();
    let good = store.clone();
    let server = Farm::start(move |seen| match seen.header("authorization") {
        Some(_) => good.reply(seen),
        None => Reply::status(401).with("www-authenticate", "Basic realm=x"),
    })
    .await;
    let mirror = Farm::start(|_| Reply::status(401).with("www-authenticate", "Basic realm=x")).await;
    let directory = tempfile::tempdir().unwrap();
    let client = Registry::new(config(&directory));
    hosts(&directory, "reg.example", &format!("server = 'http://{}'\n[host.'http://{}']", server.host(), mirror.host()));
    resolve(&client, "reg.example/lab/x:1", &password()).await.unwrap();
    assert!(!mirror.seen().is_empty() && mirror.seen().iter().all(|s| !carries_secrets(s)));
    let named = Credentials { server_address: Some(mirror.host()), ..password() };
    let error = resolve(&client, "reg.example/lab/x:1", &named).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(mirror.seen().iter().any(carries_secrets));
}

#[tokio::test]
async fn im_01_a_redirect_to_another_registry_gets_an_anonymous_token() {
    let (auth, given) = tokens(|seen| seen.header("authorization").is_none()).await;
    let other = registry(format!("http://{}/token", auth.host()), |_| true).await;
    let other_host = other.localhost();
    let front = Farm::start(move |seen| Reply::redirect(format!("http://{other_host}{}", seen.target))).await;
    let (_directory, client) = bare();
    let resolved = resolve(&client, &format!("{}/lab/x:1", front.host()), &password()).await.unwrap();
    layers(&client, &resolved).await.unwrap();
    assert_eq!(given.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn im_02_realms_and_redirects_do_not_lead_inside() {
    let authority = Authority::new();
    let inner = Farm::start_tls(authority.server("localhost"), |_| Reply::new(200, r#"{"token":"t"}"#)).await;
    let plain = Farm::start(|_| Reply::new(200, r#"{"token":"t"}"#)).await;
    let port = inner.address.port();
    for (lead, why) in [
        (format!("https://localhost:{port}/"), "this machine or its link"),
        (format!("https://127.0.0.1:{port}/"), "this machine or its link"),
        (format!("https://[::ffff:127.0.0.1]:{port}/"), "this machine or its link"),
        (format!("https://inside.example:{port}/"), "this machine or its link"),
        ("https://169.254.169.254/latest/meta-data/".to_owned(), "169.254.169.254"),
        ("https://2130706433/".to_owned(), "invalid dns name"),
        (format!("http://{}/", plain.host()), "http"),
        ("file:///etc/passwd".to_owned(), "RL"),
        (format!("https://user:pass@localhost:{port}/"), "user information"),
    ] {
        for how in ["realm", "redirect"] {
            let lead_there = lead.clone();
            let farm = Farm::start_tls(authority.server("reg.example"), move |_| match how {
                "realm" => challenge(&lead_there),
                _ => Reply::redirect(lead_there.clone()),
            })
            .await;
            let directory = tempfile::tempdir().unwrap();
            let host = format!("reg.example:{}", farm.address.port());
            hosts(&directory, &host, "ca = 'ca.pem'");
            std::fs::write(directory.path().join(&host).join("ca.pem"), &authority.pem).unwrap();
            let registry = client(config(&directory), &["reg.example", "inside.example"]);
            let error = resolve(&registry, &format!("{host}/lab/x:1"), &password()).await.unwrap_err();
            let text = told(&error);
            assert!(text.contains(why) || (how == "redirect" && text.contains("redirect: ")), "{lead} {how}: {text}");
            assert!(!text.contains("user:pass"), "{text}");
            // A name that no resolver takes counts as a place that is away for a moment.
            assert_eq!(farm.seen().len(), if lead.contains("2130706433") { 3 } else { 1 }, "{lead} {how}");
        }
    }
    assert_eq!((inner.connections(), plain.connections()), (0, 0));
}

#[tokio::test]
async fn im_02_headers_beyond_measure_are_refused() {
    let (_directory, client) = bare();
    for reply in [
        Reply::status(401).with("www-authenticate", "Basic realm=x, ".repeat(500)),
        Reply::status(401).with("www-authenticate", format!("Bearer realm=\"{}\"", "x".repeat(1 << 20))),
        Reply::status(401).with("www-authenticate", "Bearer realm=\"http://localhost:1/"),
        (0..2000).fold(Reply::status(200), |reply, n| reply.with("x-more", format!("{n}"))),
    ] {
        let farm = Farm::start(move |_| reply.clone()).await;
        let error = resolve(&client, &format!("{}/lab/x:1", farm.host()), &Credentials::anonymous()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", told(&error));
    }
}
