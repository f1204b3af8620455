//! Exec, attach and port-forward with the real crictl, over both framings.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    daemon::{Daemon, cache},
    pods::{self, BUSYBOX},
};

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

pub fn crictl(daemon: &Daemon, args: &[&str]) -> Command {
    let config = daemon.dir.path().join("crictl.yaml");
    std::fs::write(&config, "").unwrap();
    let mut command = Command::new(cache("bin/crictl"));
    let endpoint = format!("unix://{}", daemon.socket().display());
    command.args(["--config", config.to_str().unwrap(), "--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint]).args(args);
    command
}

/// Runs a command with this as its stdin.
pub fn with_stdin(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    let writer = std::thread::spawn(move || {
        // A process that does not read to the end closes it.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A client that is killed when the test is done with it.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_has_stdin_outputs_exit_codes_and_a_terminal() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("exec");
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    for transport in TRANSPORTS {
        let exec = |options: &[&str], script: &str| {
            let args = [&["exec", "-r", transport][..], options, &[&id, "sh", "-c", script]].concat();
            crictl(&daemon, &args)
        };
        // More than all buffers on the way hold, there and back; the end of stdin arrives.
        let input: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_be_bytes()[2]).collect();
        if transport == "spdy" {
            let output = with_stdin(exec(&["-i"], "cat; echo done >&2"), &input);
            assert!(output.status.success() && output.stdout == input, "{}", text(&output.stderr));
            assert_eq!(text(&output.stderr), "done\n");
        } else {
            let output = with_stdin(exec(&["-i"], "head -c 3000000"), &input);
            assert!(output.stdout == input, "{}", text(&output.stderr));
        }
        let failed = exec(&[], "echo out; exit 3").output().unwrap();
        assert_eq!((text(&failed.stdout).as_str(), failed.status.success()), ("out\n", false), "{transport}");
        assert!(text(&failed.stderr).contains("exit code") && text(&failed.stderr).contains('3'), "{}", text(&failed.stderr));
        // A terminal of its own size, which echoes what is typed.
        let line =
            format!("{:?}", exec(&["-it"], "read x; test -t 0 && test -t 1 && echo got $x; until stty size; do sleep 0.1; done"));
        // The shell on the way is not the one that is to know x.
        let line = format!("stty rows 33 cols 77; {}", line.replace('$', "\\$"));
        let output = typed_into(&line, b"typed\n");
        assert!(output.contains("got typed"), "{transport}: {output}");
        assert!(output.contains("33 77"), "{transport}: {output}");
    }
    daemon.finish().await;
}

/// What a command says on a terminal. Nothing more is typed, and the end of typing comes after the command's.
fn typed_into(line: &str, typed: &[u8]) -> String {
    let mut terminal = Command::new("timeout");
    terminal.args(["--foreground", "100", "script", "-qec", line, "/dev/null"]);
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(typed).unwrap();
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    child.wait().unwrap();
    text(&output)
}

/// A client that is killed takes its command with it: nobody can reach it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_client_leaves_no_command() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("killed");
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    let client = crictl(&daemon, &["exec", &id, "sleep", "4321"]).stdout(Stdio::null()).spawn().unwrap();
    let count = async |runtime: &mut pods::Runtime| pods::exec(runtime, &id, &["sh", "-c", "ps | grep -c '[s]leep 4321'"]).await.1;
    let deadline = Instant::now() + Duration::from_secs(20);
    while count(&mut runtime).await != "1" {
        assert!(Instant::now() < deadline, "the command does not run");
    }
    drop(Ended(client));
    while count(&mut runtime).await != "0" {
        assert!(Instant::now() < deadline, "the command runs on");
    }
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_feeds_and_shows_the_main_process() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("attach");
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    for transport in TRANSPORTS {
        let script = "read x; echo got $x; read y; echo and $y; exit 0";
        let mut container = pods::container(transport, BUSYBOX, script);
        (container.stdin, container.stdin_once) = (true, true);
        let id = pods::run(&mut runtime, &pod, &config, &container).await;
        let output = with_stdin(crictl(&daemon, &["attach", "-r", transport, "-i", &id]), b"one\ntwo\n");
        assert_eq!(text(&output.stdout), "got one\nand two\n", "{}", text(&output.stderr));
        assert_eq!(pods::wait_exit(&mut runtime, &id).await.exit_code, 0);
    }
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_a_pod_are_forwarded() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("forward");
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    // Only on loopback, and only in the pod.
    let script = "while true; do echo pong | nc -l -s 127.0.0.1 -p 8765; done";
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("server", BUSYBOX, script)).await;
    for transport in TRANSPORTS {
        // The client ends at the first connection that is refused. (223D is 8765, 0A is listening: proc(5), /proc/net/tcp.)
        let listens = "until grep -q ':223D 00000000:0000 0A' /proc/net/tcp; do sleep 0.1; done";
        assert_eq!(pods::exec(&mut runtime, &id, &["sh", "-c", listens]).await.0, 0);
        let mut client = crictl(&daemon, &["port-forward", "-r", transport, &pod, ":8765"]);
        let mut client = Ended(client.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let port = forwarded(&mut client.0);
        assert_eq!(ping(port), "pong\n", "{transport}\n{}", daemon.log());
    }
    assert!(TcpStream::connect("127.0.0.1:8765").is_err(), "the server is not the host's");
    daemon.finish().await;
}

/// The port that the client says it listens on: `Forwarding from 127.0.0.1:PORT -> 8765`.
pub fn forwarded(client: &mut Child) -> u16 {
    let stdout = client.stdout.as_mut().unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && stdout.read(&mut byte).unwrap() == 1 {
        line.push(byte[0]);
    }
    let line = text(&line);
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
    port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line:?}"))
}

fn ping(port: u16) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    answer
}
