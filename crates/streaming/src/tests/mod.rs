//! The server and clients of both framings, without containers.

mod flow;
mod hostile;
mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use model::{ContainerId, PodId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::{
    AttachRequest, Backend, ExecRequest, Failure, Options, PortForwardRequest, Process, Server, Size, Socket, Tls, Wanted,
    spdy::testing::Client,
};

const SOON: Duration = Duration::from_secs(20);
/// Bytes in a pipe.
const PIPE: usize = 64 << 10;

/// What processes say, exec by exec.
struct House {
    sizes: mpsc::UnboundedSender<Size>,
    alive: Arc<AtomicUsize>,
    heard: Arc<AtomicUsize>,
}

/// Counts processes that somebody holds.
struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Backend for House {
    /// `cat`: stdin comes back on stdout, its length on stderr; the exit code is that length. `sleep`: never ends. `burst`:
    /// leaves a full pipe behind. `child`: leaves one behind who talks on.
    async fn exec(&self, request: ExecRequest) -> Result<Process, Failure> {
        self.alive.fetch_add(1, Ordering::SeqCst);
        let held = Held(self.alive.clone());
        let (stdin, theirs) = tokio::io::simplex(4096);
        let (stdout, mut out) = tokio::io::simplex(PIPE);
        let (stderr, mut err) = tokio::io::simplex(4096);
        let sizes = self.sizes.clone();
        let command = request.command.concat();
        let exit = async move {
            let _held = held;
            match command.as_str() {
                "cat" => {
                    let mut input = stdin;
                    let copied = tokio::io::copy(&mut input, &mut out).await.map_err(|e| Failure(e.to_string()))?;
                    let _ = err.write_all(copied.to_string().as_bytes()).await;
                    let (_, _) = (out.shutdown().await, err.shutdown().await);
                    Ok(i32::try_from(copied % 256).unwrap())
                }
                "burst" => {
                    let _ = out.write_all(&[7; PIPE]).await;
                    drop(err);
                    Ok(0)
                }
                "child" => {
                    let _ = out.write_all(b"parent").await;
                    tokio::spawn(async move {
                        while out.write_all(b".").await.is_ok() {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    });
                    Ok(0)
                }
                _ => std::future::pending().await,
            }
        };
        if request.command == ["missing"] {
            return Err(Failure("no such program".into()));
        }
        Ok(Process {
            stdin: Some(Box::new(theirs)),
            stdout: Some(Box::new(stdout)),
            stderr: Some(Box::new(stderr)),
            resize: Some(Box::new(move |size| {
                let _ = sizes.send(size);
                Box::pin(async {})
            })),
            exit: Some(Box::pin(exit)),
        })
    }

    /// Says one word and ends.
    async fn attach(&self, _: AttachRequest) -> Result<Process, Failure> {
        Ok(Process { stdin: None, stdout: Some(Box::new(&b"word"[..])), stderr: None, resize: None, exit: None })
    }

    /// Echoes, but for port 1, where nobody listens, 2, where nobody reads, 3, where somebody talks without end, and 4, who
    /// says good-bye and goes on listening.
    async fn dial(&self, _: PodId, port: u16) -> Result<Box<dyn Socket>, Failure> {
        if port == 1 {
            return Err(Failure("connection refused".into()));
        }
        let (ours, theirs) = tokio::io::duplex(1024);
        let heard = self.heard.clone();
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(theirs);
            match port {
                2 => std::future::pending().await,
                3 => while to.write_all(&[b'y'; 1024]).await.is_ok() {},
                4 => {
                    to.write_all(b"bye").await.unwrap();
                    to.shutdown().await.unwrap();
                    let mut all = Vec::new();
                    from.read_to_end(&mut all).await.unwrap();
                    heard.store(all.len(), Ordering::SeqCst);
                }
                _ => {
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    let _ = to.shutdown().await;
                }
            }
        });
        Ok(Box::new(ours))
    }
}

struct Ground {
    server: Server,
    sizes: mpsc::UnboundedReceiver<Size>,
    alive: Arc<AtomicUsize>,
    /// Bytes that port 4 heard after its good-bye.
    heard: Arc<AtomicUsize>,
}

async fn ground() -> Ground {
    ground_with(None, Duration::from_secs(3600)).await
}

async fn ground_with(tls: Option<Tls>, idle: Duration) -> Ground {
    let (send, sizes) = mpsc::unbounded_channel();
    let (alive, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let house = House { sizes: send, alive: alive.clone(), heard: heard.clone() };
    let server = Server::start(Options { address: "127.0.0.1:0".parse().unwrap(), tls, idle }, house).await.unwrap();
    Ground { server, sizes, alive, heard }
}

fn exec(command: &str, tty: bool) -> ExecRequest {
    let wanted = Wanted { stdin: true, stdout: true, stderr: !tty, tty };
    ExecRequest { container: ContainerId::from_bytes([1; 32]), command: vec![command.into()], wanted }
}

/// Sends a request's head; the answer's.
async fn ask(url: &str, headers: &str) -> (TcpStream, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_at(rest.find('/').unwrap());
    let address: SocketAddr = address.parse().unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = socket.read_u8().await.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&head)));
        head.push(byte);
    }
    (socket, String::from_utf8(head).unwrap())
}

async fn spdy(url: &str, protocol: &str) -> Client<TcpStream> {
    let headers = format!("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n");
    let (socket, head) = ask(url, &headers).await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.to_lowercase().contains("connection: upgrade"), "{head}");
    Client::new(socket)
}

async fn web_socket(url: &str, protocol: &str) -> WebSocketStream<TcpStream> {
    let headers = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n"
    );
    let (socket, head) = ask(url, &headers).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    WebSocketStream::from_raw_socket(socket, Role::Client, None).await
}

async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not happen");
}

#[tokio::test]
async fn exec_over_spdy_with_half_close_and_exit_code() {
    let ground = ground().await;
    let url = ground.server.exec(exec("cat", false)).unwrap();
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    // More than all buffers together hold.
    let input: Vec<u8> = (0..1_000_003_u32).map(|n| n.to_le_bytes()[0]).collect();
    client.send_all(3, &input).await;
    client.fin(3).await;
    let got = timeout(SOON, client.until_closed()).await.unwrap();
    assert!(got[&5] == input);
    assert_eq!(got[&7], b"1000003");
    let status: serde_json::Value = serde_json::from_slice(&got[&1]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], (1_000_003 % 256).to_string());
    until(|| ground.alive.load(Ordering::SeqCst) == 0).await;
    let (_, head) = ask(&url, "").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "a URL works once: {head}");
}

#[tokio::test]
async fn a_client_that_goes_takes_its_process_with_it() {
    let mut ground = ground().await;
    let url = ground.server.exec(exec("sleep", true)).unwrap();
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (3, "resize"), (5, "stdin"), (7, "stdout")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    client.send_all(3, b"{\"Width\":100,\"Height\":40}\n").await;
    assert_eq!(timeout(SOON, ground.sizes.recv()).await.unwrap(), Some(Size { width: 100, height: 40 }));
    assert_eq!(ground.alive.load(Ordering::SeqCst), 1);
    drop(client);
    until(|| ground.alive.load(Ordering::SeqCst) == 0).await;
}

/// Nothing is read from a connection whose process takes nothing; that its client has gone is noticed all the same.
#[tokio::test]
async fn a_client_that_goes_is_missed_even_if_nothing_is_read() {
    let ground = ground().await;
    let url = ground.server.exec(exec("sleep", false)).unwrap();
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    // More than our queues hold, less than the kernel's.
    timeout(SOON, client.send_all(3, &[0; 150_000])).await.unwrap();
    drop(client);
    until(|| ground.alive.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn what_cannot_be_run_is_said_on_the_error_stream() {
    let ground = ground().await;
    for (protocol, expected) in [("v4.channel.k8s.io", "\"InternalError\""), ("v2.channel.k8s.io", "no such program")] {
        let url = ground.server.exec(exec("missing", false)).unwrap();
        let mut client = spdy(&url, protocol).await;
        for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
            client.open(id, &[("streamtype", kind)]).await;
        }
        let got = timeout(SOON, client.until_closed()).await.unwrap();
        assert!(String::from_utf8_lossy(&got[&1]).contains(expected), "{got:?}");
    }
}

#[tokio::test]
async fn exec_over_websocket_in_all_its_versions() {
    let ground = ground().await;
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io"] {
        let url = ground.server.exec(exec("cat", false)).unwrap();
        let mut client = web_socket(&url, protocol).await;
        client.send(Message::binary(&b"\0hello"[..])).await.unwrap();
        let mut stdout = Vec::new();
        while stdout.len() < 5 {
            let message = timeout(SOON, client.next()).await.unwrap().unwrap().unwrap().into_data();
            assert_eq!(message[0], 1, "{message:?}");
            stdout.extend_from_slice(&message[1..]);
        }
        assert_eq!(stdout, b"hello");
        if protocol.starts_with("v5") {
            client.send(Message::binary(&[255, 0][..])).await.unwrap();
            let mut status = Vec::new();
            while let Some(Ok(Message::Binary(message))) = timeout(SOON, client.next()).await.unwrap() {
                if message[0] == 3 {
                    status.extend_from_slice(&message[1..]);
                }
            }
            let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
            assert_eq!(status["details"]["causes"][0]["message"], "5");
        }
    }
    let url = ground.server.exec(exec("cat", false)).unwrap();
    let mut client = web_socket(&url, "base64.channel.k8s.io").await;
    client.send(Message::text("0aGk=")).await.unwrap();
    let mut text = String::new();
    while !text.contains("aGk=") {
        text = timeout(SOON, client.next()).await.unwrap().unwrap().unwrap().into_text().unwrap().to_string();
    }
    assert_eq!(text, "1aGk=");
}

#[tokio::test]
async fn attach_ends_with_the_output() {
    let ground = ground().await;
    let wanted = Wanted { stdout: true, ..Wanted::default() };
    let url = ground.server.attach(AttachRequest { container: ContainerId::from_bytes([1; 32]), wanted }).unwrap();
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "stdout")]).await;
    let got = timeout(SOON, client.until_closed()).await.unwrap();
    assert_eq!(got[&3], b"word");
    assert!(String::from_utf8_lossy(&got[&1]).contains("Success"));
}

async fn forward_through(mut client: Client<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>) {
    client.open(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]).await;
    client.open(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]).await;
    client.open(5, &[("streamtype", "error"), ("port", "1"), ("requestid", "1")]).await;
    client.open(7, &[("streamtype", "data"), ("port", "1"), ("requestid", "1")]).await;
    client.fin(1).await;
    client.send_all(3, &[b'x'; 100_000]).await;
    client.fin(3).await;
    let got = timeout(SOON, client.until_ended(&[1, 3, 5])).await.unwrap();
    assert_eq!(got[&3].len(), 100_000);
    assert!(String::from_utf8_lossy(&got[&5]).contains("connection refused"));
    assert!(got.get(&1).is_none_or(Vec::is_empty));
}

fn forward(ports: &[u16]) -> PortForwardRequest {
    PortForwardRequest { pod: PodId::from_bytes([2; 32]), ports: ports.to_vec() }
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_alone_and_in_websocket() {
    let ground = ground().await;
    let url = ground.server.port_forward(forward(&[])).unwrap();
    forward_through(spdy(&url, "portforward.k8s.io").await).await;
    let url = ground.server.port_forward(forward(&[])).unwrap();
    let socket = web_socket(&url, "SPDY/3.1+portforward.k8s.io").await;
    // The client's end of a tunnel is like the server's.
    forward_through(Client::new(crate::ws::tunnel(socket))).await;
}

#[tokio::test]
async fn ports_are_forwarded_over_websocket_channels() {
    let ground = ground().await;
    let url = ground.server.port_forward(forward(&[])).unwrap();
    let mut client = web_socket(&format!("{url}?port=80&port=1"), "v4.channel.k8s.io").await;
    client.send(Message::binary(&b"\0ping"[..])).await.unwrap();
    let mut channels = vec![Vec::new(); 4];
    while channels[0].len() < 6 || channels[3].len() < 10 {
        let message = timeout(SOON, client.next()).await.unwrap().unwrap().unwrap().into_data();
        channels[usize::from(message[0])].extend_from_slice(&message[1..]);
    }
    assert_eq!(channels[0], b"\x50\0ping");
    assert_eq!(channels[1], [80, 0]);
    assert!(String::from_utf8_lossy(&channels[3]).contains("connection refused"));
}

#[tokio::test]
async fn requests_that_make_no_sense_get_no_url() {
    let ground = ground().await;
    let mut request = exec("cat", true);
    request.wanted.stderr = true;
    assert!(ground.server.exec(request.clone()).is_err());
    request.wanted = Wanted::default();
    assert!(ground.server.exec(request).is_err());
}
