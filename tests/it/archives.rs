//! Archives from elsewhere: fetched from a URL, and ones that take another image's name.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::Command,
};

use crate::{
    daemon::Daemon,
    image::{Layer, gzip},
};

/// A server that answers one request with a file.
fn server(file: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let path = lines.next().unwrap().unwrap();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let found = path.starts_with("GET /files.tar.gz ");
        let status = if found { "200 OK" } else { "404 Not Found" };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", file.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&file)).ok();
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_out_of_a_url() {
    let daemon = Daemon::start().await;
    let tar = Layer::busybox().dir("srv/").file("srv/page", 0o644, b"fetched\n").tar();
    let url = format!("http://127.0.0.1:{}/files.tar.gz", server(gzip(&tar)));
    daemon.creel_ok(&["import", "-c", "CMD cat /srv/page", &url, "fetched:1"]);
    assert_eq!(daemon.creel_ok(&["run", "--rm", "fetched:1"]), "fetched");
    assert_eq!(daemon.creel_ok(&["image", "inspect", "--format", "{{.Comment}}", "fetched:1"]), format!("Imported from {url}"));
    let missing = daemon.creel(&["import", &format!("http://127.0.0.1:{}/none", server(Vec::new()))]);
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(missing.status.code() == Some(1) && said.contains("404"), "{said}");
    let other = daemon.creel(&["import", "ftp://a.example/x"]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("http:// or https://"));
    daemon.creel_ok(&["rmi", "fetched:1"]);
    daemon.finish().await;
}

/// docker's words for an image that loses its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_moves() {
    let daemon = Daemon::start().await;
    let at = |name: &str| daemon.dir.path().join(name).display().to_string();
    let import = |text: &[u8]| {
        std::fs::write(at("files.tar"), Layer::new().file("x", 0o644, text).tar()).unwrap();
        daemon.creel_ok(&["import", &at("files.tar"), "mine:1"])
    };
    let first = import(b"one");
    daemon.creel_ok(&["save", "-o", &at("mine.tar"), "mine:1"]);
    assert_eq!(daemon.creel_ok(&["load", "-i", &at("mine.tar")]), "Loaded image: mine:1");
    let second = import(b"two");
    let moved = format!("The image mine:1 already exists, renaming the old one with ID {second} to empty string");
    // Compressed in any way that tar's users know.
    assert!(Command::new("xz").args(["-k", &at("mine.tar")]).status().unwrap().success());
    assert_eq!(daemon.creel_ok(&["load", "-i", &at("mine.tar.xz")]), format!("{moved}\nLoaded image: mine:1"));
    assert_eq!(daemon.creel_ok(&["images", "-q", "--no-trunc", "mine"]), first);
    daemon.creel_ok(&["image", "prune", "-f"]);
    daemon.creel_ok(&["rmi", "mine:1"]);
    daemon.finish().await;
}
