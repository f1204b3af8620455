//! Who is slow waits alone: windows, queues, half-closed connections, what is left of a process.

use super::*;

async fn forwarding(ground: &Ground, ports: &[(u32, &str)]) -> Client<TcpStream> {
    let mut client = spdy(&ground.server.port_forward(forward(&[])).unwrap(), "portforward.k8s.io").await;
    for (id, port) in ports {
        let request = id.to_string();
        client.open(*id, &[("streamtype", "error"), ("port", port), ("requestid", &request)]).await;
        client.open(id + 2, &[("streamtype", "data"), ("port", port), ("requestid", &request)]).await;
    }
    client
}

#[tokio::test]
async fn a_client_that_speaks_of_windows_gets_no_more_than_it_takes() {
    let ground = ground().await;
    let mut client = spdy(&ground.server.port_forward(forward(&[])).unwrap(), "portforward.k8s.io").await;
    client.set_window(1000).await;
    client.widen(0, 1 << 20).await;
    for (id, kind) in [(1, "error"), (3, "data")] {
        client.open(id, &[("streamtype", kind), ("port", "3"), ("requestid", "0")]).await;
    }
    client.until_quiet().await;
    assert_eq!(client.length(3), 1000);
    client.widen(3, 50_000).await;
    client.until_quiet().await;
    assert_eq!(client.length(3), 51_000);
    // All streams together have a window, too: 64 KiB at first, and what was added.
    client.widen(3, 10 << 20).await;
    client.until_quiet().await;
    assert_eq!(client.length(3), (64 << 10) + (1 << 20));
}

#[tokio::test]
async fn a_client_without_a_word_of_windows_gets_everything() {
    let ground = ground().await;
    let mut client = forwarding(&ground, &[(1, "3")]).await;
    timeout(SOON, client.until_length(3, 3 << 20)).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_its_client_does_not_take_leaves_its_siblings_alone() {
    let ground = ground().await;
    let mut client = spdy(&ground.server.port_forward(forward(&[])).unwrap(), "portforward.k8s.io").await;
    client.widen(0, 100 << 20).await;
    for (id, port) in [(1, "3"), (5, "80")] {
        let request = id.to_string();
        client.open(id, &[("streamtype", "error"), ("port", port), ("requestid", &request)]).await;
        client.open(id + 2, &[("streamtype", "data"), ("port", port), ("requestid", &request)]).await;
    }
    client.until_length(3, 64 << 10).await;
    // The first one is at its window's end. The second goes on as long as its own is widened.
    for round in 1..=10 {
        client.widen(7, 50_000).await;
        client.send_all(7, &[b'x'; 50_000]).await;
        timeout(SOON, client.until_length(7, round * 50_000)).await.unwrap();
    }
    assert_eq!(client.length(3), 64 << 10);
    // What is given up ends its connection in the pod, and nothing else.
    client.reset(3).await;
    client.widen(7, 50_000).await;
    client.send_all(7, &[b'x'; 50_000]).await;
    timeout(SOON, client.until_length(7, 550_000)).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_does_not_read_leaves_other_connections_alone() {
    let ground = ground().await;
    let mut client = forwarding(&ground, &[(1, "2"), (5, "80")]).await;
    // As much as its window lets it send.
    timeout(SOON, client.send_all(3, &[b'x'; 64 << 10])).await.unwrap();
    client.send_all(7, &[b'x'; 300_000]).await;
    timeout(SOON, client.until_length(7, 300_000)).await.unwrap();
    // What was taken is given back in both windows; what was not is not.
    client.until_quiet().await;
    assert!(client.widened(7) >= 300_000 - (32 << 10), "{}", client.widened(7));
    assert_eq!(client.widened(3), 0);
    assert!(client.widened(0) >= 300_000);
}

#[tokio::test]
async fn a_half_closed_connection_goes_on_the_other_way() {
    let ground = ground().await;
    let mut client = forwarding(&ground, &[(1, "4")]).await;
    timeout(SOON, client.until_ended(&[3])).await.unwrap();
    client.send_all(3, &[b'x'; 100_000]).await;
    client.fin(3).await;
    timeout(SOON, client.until_ended(&[1])).await.unwrap();
    until(|| ground.heard.load(Ordering::SeqCst) == 100_000).await;
}

#[tokio::test]
async fn a_slow_client_gets_all_that_a_process_left() {
    let ground = ground().await;
    let url = ground.server.exec(exec("burst", false)).unwrap();
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    client.set_window(1000).await;
    client.widen(0, 1 << 20).await;
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    // Longer than the output of a background process would be waited for.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    client.until_quiet().await;
    assert_eq!(client.length(5), 1000);
    client.widen(5, 1 << 20).await;
    let got = timeout(SOON, client.until_closed()).await.unwrap();
    assert_eq!(got[&5].len(), PIPE);
    assert!(String::from_utf8_lossy(&got[&1]).contains("Success"));
}

#[tokio::test]
async fn what_a_process_leaves_behind_does_not_keep_its_session_open() {
    let ground = ground().await;
    let url = ground.server.exec(exec("child", false)).unwrap();
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    let got = timeout(SOON, client.until_closed()).await.unwrap();
    assert!(got[&5].starts_with(b"parent"));
    assert!(String::from_utf8_lossy(&got[&1]).contains("Success"));
}

#[tokio::test]
async fn a_connection_where_nothing_happens_is_closed() {
    let ground = ground_with(None, Duration::from_millis(500)).await;
    let url = ground.server.exec(exec("sleep", false)).unwrap();
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    timeout(SOON, client.until_closed()).await.unwrap();
    until(|| ground.alive.load(Ordering::SeqCst) == 0).await;
    let mut client = web_socket(&ground.server.exec(exec("sleep", false)).unwrap(), "v5.channel.k8s.io").await;
    timeout(SOON, async { while let Some(Ok(_)) = client.next().await {} }).await.unwrap();
    until(|| ground.alive.load(Ordering::SeqCst) == 0).await;
}
