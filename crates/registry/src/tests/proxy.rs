//! Pulls through a proxy: CONNECT for https, absolute form for http.

use std::sync::{Arc, Mutex};

use model::ErrorKind;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{
    config,
    farm::{Farm, Store, noise},
    hosts, layers, resolve,
    tls::Authority,
    told,
};
use crate::{Credentials, Registry, dial::Proxies};

/// A proxy that leads everything to one place; what it was asked (first line and login) is written down.
async fn proxy(target: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&log);
    let task = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            open.spawn(pass(client, target, Arc::clone(&notes)));
        }
    });
    (address, log, task)
}

async fn pass(client: TcpStream, target: std::net::SocketAddr, log: Arc<Mutex<Vec<String>>>) {
    let mut client = BufReader::new(client);
    let mut head = Vec::new();
    let mut line = String::new();
    while client.read_line(&mut line).await.is_ok_and(|n| n > 0) && !line.trim().is_empty() {
        head.push(std::mem::take(&mut line));
    }
    let Some(first) = head.first().cloned() else { return };
    let login = head.iter().find(|l| l.to_ascii_lowercase().starts_with("proxy-authorization")).cloned().unwrap_or_default();
    log.lock().unwrap().push(format!("{} {}", first.trim(), login.trim()));
    if first.contains("closed.example") {
        drop(client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await);
        return;
    }
    let mut server = TcpStream::connect(target).await.unwrap();
    if first.starts_with("CONNECT") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
    } else {
        // One request for each connection is enough here.
        let path = first.split(' ').nth(1).unwrap().splitn(4, '/').nth(3).unwrap().to_owned();
        server.write_all(format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await.unwrap();
        client.write_all(&answer).await.unwrap();
    }
}

#[tokio::test]
async fn proxies_are_used_for_names_but_not_for_this_machine() {
    let authority = Authority::new();
    let mut store = Store::default();
    let image = store.image("lab/x", "1", &[noise(100_000, 1)]);
    let plain = store.clone();
    let tls = Farm::start_tls(authority.server("reg.example"), move |seen| store.reply(seen)).await;
    let plain = Farm::start(move |seen| plain.reply(seen)).await;
    for (server, registry, first) in [
        (&tls, "reg.example", "CONNECT reg.example:443 HTTP/1.1"),
        (&plain, "plain.example", "GET http://plain.example/v2/lab/x/manifests/1 HTTP/1.1"),
        (&plain, &plain.host(), ""),
    ] {
        let (address, log, task) = proxy(server.address).await;
        let directory = tempfile::tempdir().unwrap();
        hosts(&directory, "reg.example", "ca = 'ca.pem'");
        std::fs::write(directory.path().join("reg.example/ca.pem"), &authority.pem).unwrap();
        let mut config = config(&directory);
        config.plain_http = vec!["plain.example".to_owned()];
        // No name server knows these names: the proxy is told the name.
        let client = Registry::with(config, |clients| clients.proxies = Proxies::all(&format!("http://me:pr0xypass@{address}")));
        let resolved = resolve(&client, &format!("{registry}/lab/x:1"), &Credentials::anonymous()).await;
        let resolved = resolved.unwrap_or_else(|e| panic!("{registry}: {}", told(&e)));
        assert_eq!(layers(&client, &resolved).await.unwrap(), image.layers);
        let log = log.lock().unwrap().clone();
        assert_eq!(log.is_empty(), first.is_empty(), "{log:?}");
        // "me:pr0xypass"
        assert!(log.iter().all(|l| l.to_ascii_lowercase().ends_with("proxy-authorization: basic bwu6chiwehlwyxnz")), "{log:?}");
        assert!(log.is_empty() || log[0].starts_with(first), "{log:?}");
        assert!(server.seen().iter().all(|s| s.header("proxy-authorization").is_none()));
        task.abort();
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let (address, _, task) = proxy(([127, 0, 0, 1], 1).into()).await;
    let directory = tempfile::tempdir().unwrap();
    for (proxy, why) in [
        (format!("http://me:pr0xypass@{address}"), "proxy: "),
        (format!("https://me:pr0xypass@{address}"), "only proxies with an http:// URL"),
    ] {
        let client = Registry::with(config(&directory), |clients| clients.proxies = Proxies::all(&proxy));
        let error = resolve(&client, "closed.example/x", &Credentials::anonymous()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = format!("{error:?} {}", told(&error));
        assert!(text.contains(why) && !text.contains("pr0xypass"), "{text}");
    }
    task.abort();
}
