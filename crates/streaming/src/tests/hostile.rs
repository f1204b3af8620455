//! ST-01 and ST-03: clients that send what they should not.

use super::*;

/// A control frame's head and payload.
fn control(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0x80, 3, 0, kind, 0, length[1], length[2], length[3]], payload].concat()
}

async fn hostile() -> (Ground, Client<TcpStream>) {
    let ground = ground().await;
    let url = ground.server.exec(exec("cat", false)).unwrap();
    let client = spdy(&url, "v4.channel.k8s.io").await;
    (ground, client)
}

#[tokio::test]
async fn st_01_frames_that_cannot_be_end_the_connection() {
    let most = [0xff, 0xff, 0xff, 0xff];
    for bytes in [
        // SYN_STREAM with a length beyond the limit, of an even stream, a version 2.
        vec![0x80, 3, 0, 1, 0, 1, 0, 1],
        control(1, &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0]),
        vec![0x80, 2, 0, 4, 0, 0, 0, 0],
        // Claims: settings, header bytes, a window beyond all windows, and none at all.
        control(4, &most),
        control(4, &[&most[..], &[0; 64]].concat()),
        control(4, &[0, 0, 0, 1, 0, 0, 0, 7, 0xff, 0, 0, 0]),
        control(1, &[&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0], &most[..]].concat()),
        control(9, &[0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]),
        control(9, &[0, 0, 0, 0, 0, 0, 0, 0]),
        control(9, &[0; 7]),
    ] {
        let (_ground, mut client) = hostile().await;
        client.raw(&bytes).await;
        timeout(SOON, client.until_closed()).await.unwrap();
    }
}

#[tokio::test]
async fn st_01_storms_leave_a_connection_alive() {
    let (_ground, mut client) = hostile().await;
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    // Pings, resets, windows and bytes of streams that are not there, endless empty frames.
    for n in 0..5000_u32 {
        let id = (2 * n + 101).to_be_bytes();
        client.raw(&control(6, &(2 * n + 1).to_be_bytes())).await;
        client.raw(&control(3, &[id, [0, 0, 0, 5]].concat())).await;
        client.raw(&control(9, &[id, [0, 0, 0, 5]].concat())).await;
        client.raw(&[&id[..], &[0, 0, 0, 1, b'x']].concat()).await;
        client.raw(&[0, 0, 0, 3, 0, 0, 0, 0]).await;
    }
    client.widen(5, 1 << 20).await;
    client.widen(0, 1 << 20).await;
    client.send_all(3, b"still there").await;
    client.fin(3).await;
    let got = timeout(SOON, client.until_closed()).await.unwrap();
    assert_eq!(got[&5], b"still there");
    assert!(client.pongs() >= 1);
}

#[tokio::test]
async fn st_01_more_streams_than_there_may_be_are_refused() {
    let (ground, mut client) = hostile().await;
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    for n in 4..2000_u32 {
        client.open_without_reply(2 * n + 1, &[("streamtype", "stdin")]).await;
    }
    client.fin(3).await;
    timeout(SOON, client.until_closed()).await.unwrap();
    until(|| ground.alive.load(Ordering::SeqCst) == 0).await;
}

/// A frame as WebSocket has it, masked with zeros or not at all.
fn message(opcode: u8, length: u64, masked: bool) -> Vec<u8> {
    let mut head = vec![opcode, 127 | if masked { 0x80 } else { 0 }];
    head.extend(length.to_be_bytes());
    if masked {
        head.extend([0; 4]);
    }
    head
}

#[tokio::test]
async fn st_03_messages_that_cannot_be_end_the_connection() {
    let fragment = [message(2, 65_536, true), vec![0; 65_536]].concat();
    let more = [message(0, 65_536, true), vec![0; 65_536]].concat();
    for (what, bytes) in [
        ("a message of 100 MiB", message(0x82, 100 << 20, true)),
        ("a length of 63 bits", message(0x82, u64::MAX >> 1, true)),
        ("not masked", [message(0x82, 4, false), vec![0; 4]].concat()),
        ("a reserved opcode", message(0x83, 1, true)),
        ("a ping that is too long", [message(0x89, 200, true), vec![0; 200]].concat()),
        ("fragments without end", [fragment, more.repeat(20)].concat()),
        ("text that is no base64", [vec![0x81, 0x84, 0, 0, 0, 0], b"\xff\xff\xff\xff".to_vec()].concat()),
        ("a close without a code", vec![0x88, 0x80, 0, 0, 0, 0]),
    ] {
        let ground = ground().await;
        let client = web_socket(&ground.server.exec(exec("cat", false)).unwrap(), "v4.channel.k8s.io").await;
        let mut socket = client.into_inner();
        let sent = socket.write_all(&bytes).await;
        let mut answer = Vec::new();
        let read = timeout(SOON, socket.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{what}: the connection is still open ({sent:?})");
        until(|| ground.alive.load(Ordering::SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn st_03_a_flood_of_pings_is_survived() {
    let ground = ground().await;
    let mut client = web_socket(&ground.server.exec(exec("cat", false)).unwrap(), "v5.channel.k8s.io").await;
    for _ in 0..2000 {
        client.send(Message::Ping(vec![1; 100].into())).await.unwrap();
    }
    client.send(Message::binary(&b"\0end"[..])).await.unwrap();
    let mut stdout = Vec::new();
    while stdout != b"end" {
        let message = timeout(SOON, client.next()).await.unwrap().unwrap().unwrap();
        if let Message::Binary(bytes) = message
            && bytes[0] == 1
        {
            stdout.extend_from_slice(&bytes[1..]);
        }
    }
}

#[tokio::test]
async fn st_03_heads_that_cannot_be_are_refused() {
    let ground = ground().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (headers, expected) in [
        (String::new(), "400"),
        (upgrade.to_owned(), "400"),
        (format!("{upgrade}Sec-WebSocket-Key: short\r\n"), "400"),
        (format!("{upgrade}{key}Sec-WebSocket-Protocol: mqtt\r\n"), "403"),
        (format!("{upgrade}{key}X: {}\r\n", "x".repeat(1 << 20)), "431"),
    ] {
        let url = ground.server.exec(exec("cat", false)).unwrap();
        let head = answer(&url, &headers).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {expected} ")), "{head}");
    }
}

/// The head of an answer, as far as it came, to a request that the server may not read to the end.
async fn answer(url: &str, headers: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_at(rest.find('/').unwrap());
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).await;
    let mut head = vec![0; 512];
    let got = timeout(SOON, socket.read(&mut head)).await.unwrap().unwrap_or(0);
    String::from_utf8_lossy(&head[..got]).into_owned()
}

#[tokio::test]
async fn st_02_a_token_is_for_one_verb_and_for_whoever_comes_first() {
    let ground = ground().await;
    let url = ground.server.exec(exec("cat", false)).unwrap();
    for wrong in
        [url.replace("/exec/", "/attach/"), url.replace("/exec/", "/portforward/"), format!("{url}0"), url[..url.len() - 1].into()]
    {
        assert!(answer(&wrong, "").await.starts_with("HTTP/1.1 404 "), "{wrong}");
    }
    // Whoever asks for something else has used it up.
    assert!(answer(&url, "").await.starts_with("HTTP/1.1 400 "));
    assert!(answer(&url, "").await.starts_with("HTTP/1.1 404 "));
}
