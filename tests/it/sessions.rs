//! `creel exec`, `creel attach` and `creel port-forward` as a person at a terminal has them; and thousands of sessions.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};

use crate::{
    daemon::{Daemon, bin},
    pods::{self, BUSYBOX, Runtime},
    streaming::{Ended, crictl, forwarded, text, with_stdin},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A person at a terminal, who runs one command of creel's.
pub struct Person {
    master: File,
    slave: OwnedFd,
    child: Child,
    shown: String,
}

impl Person {
    pub fn runs(daemon: &Daemon, rows: u16, columns: u16, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let of = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        resize(&master, rows, columns);
        // A session of its own, so that the terminal is its and tells it when it changes.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(bin("creel")).args(args).env("CREEL_SOCKET", daemon.socket());
        let child = command.stdin(of(&slave)).stdout(of(&slave)).stderr(of(&slave)).spawn().unwrap();
        Self { master: File::from(master), slave, child, shown: String::new() }
    }

    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// The shell that runs has this terminal for its own: its size, also when that changes, and its keys.
    pub fn has_a_terminal(&mut self) {
        self.types("until stty size | grep '31 97'; do sleep 0.1; done; test -t 0 && test -t 1 && echo terminal$((1+1))\n");
        self.sees("terminal2");
        resize(&self.master, 40, 120);
        // The size follows as a signal does: in its own time.
        self.types("until stty size | grep '40 120'; do sleep 0.1; done; echo resized$((1+2))\n");
        self.sees("resized3");
        // Only what is in the foreground, and has said so, is sure to be hit.
        self.types("sh -c 'trap \"echo hit\\$((5+5)); exit\" INT; echo rea\"\"dy; while :; do sleep 0.1; done'\n");
        self.sees("ready");
        self.types("\u{3}");
        self.sees("hit10");
        self.types("echo still$((2+2))\n");
        self.sees("still4");
    }

    /// Reads until this is shown.
    pub fn sees(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.shown.contains(wanted) {
            assert!(Instant::now() < deadline, "{wanted:?} is not shown, but {:?}", self.shown);
            self.look(Duration::from_millis(100));
        }
        let at = self.shown.find(wanted).unwrap() + wanted.len();
        self.shown.drain(..at);
    }

    fn look(&mut self, most: Duration) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        let wait = Timespec { tv_sec: 0, tv_nsec: most.subsec_nanos().into() };
        if poll(&mut fds, Some(&wait)).unwrap() == 1 {
            let mut chunk = [0; 4096];
            let got = self.master.read(&mut chunk).unwrap_or(0);
            self.shown.push_str(&String::from_utf8_lossy(&chunk[..got]));
        }
    }

    /// Waits for the command's end; the terminal has to be as it was.
    pub fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.shown);
            self.look(Duration::from_millis(50));
        };
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        assert!(modes.contains(rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ICANON), "still raw");
        status
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(master: &impl std::os::fd::AsFd, rows: u16, columns: u16) {
    tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

async fn ground(
    name: &str,
    adjust: impl FnOnce(&mut api::runtime::ContainerConfig),
    script: &str,
) -> (Daemon, Runtime, String, String) {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod(name);
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    let mut container = pods::container("c", BUSYBOX, script);
    adjust(&mut container);
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    (daemon, runtime, pod, id)
}

fn creel(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(bin("creel"));
    command.args(args).env("CREEL_SOCKET", daemon.socket());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_on_a_terminal() {
    let (daemon, mut runtime, _, id) = ground("person", |_| {}, "sleep 1000").await;
    let mut person = Person::runs(&daemon, 31, 97, &["exec", "-it", &id, "sh"]);
    person.has_a_terminal();
    person.types("exit 42\n");
    assert_eq!(person.ends().code(), Some(42));

    // Whoever leaves with the keys leaves the command running.
    let mut person = Person::runs(&daemon, 24, 80, &["exec", "-it", &id, "sh", "-c", "echo here$((3+3)); sleep 777"]);
    person.sees("here6");
    person.types("\u{10}\u{11}");
    assert_eq!(person.ends().code(), Some(0));
    let (_, processes, _) = pods::exec(&mut runtime, &id, &["ps"]).await;
    assert!(processes.contains("sleep 777"), "{processes}");
    // Whoever is killed does not.
    let mut person = Person::runs(&daemon, 24, 80, &["exec", "-it", &id, "sh", "-c", "echo here$((3+3)); sleep 778"]);
    person.sees("here6");
    drop(person);
    let deadline = Instant::now() + PATIENCE;
    while pods::exec(&mut runtime, &id, &["ps"]).await.1.contains("sleep 778") {
        assert!(Instant::now() < deadline, "the command runs on");
    }
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_with_pipes() {
    let (daemon, _, _, id) = ground("pipes", |_| {}, "sleep 1000").await;
    let input: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_be_bytes()[2]).collect();
    let output = with_stdin(creel(&daemon, &["exec", "-i", &id, "sh", "-c", "cat; echo done >&2; exit 7"]), &input);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(7), "done\n"));
    assert!(output.stdout == input, "{} of {}", output.stdout.len(), input.len());
    // Output comes while the command runs, and without -i it has no input.
    assert_eq!(text(&creel(&daemon, &["exec", &id, "sh", "-c", "cat; echo end"]).output().unwrap().stdout), "end\n");
    let late = creel(&daemon, &["exec", "--timeout", "1", &id, "sleep", "555"]).output().unwrap();
    assert_eq!(late.status.code(), Some(125));
    assert!(text(&late.stderr).contains("did not end within 1 s"), "{}", text(&late.stderr));
    let missing = creel(&daemon, &["exec", &id, "no-such-program"]).output().unwrap();
    assert!(text(&missing.stderr).contains("no-such-program"), "{}", text(&missing.stderr));
    assert_eq!(missing.status.code(), Some(127), "{}", text(&missing.stderr));
    assert_eq!(creel(&daemon, &["exec", "none", "true"]).output().unwrap().status.code(), Some(1));
    // A reader who has seen enough.
    let line = format!("{} exec {id} yes | head -n 1", bin("creel").display());
    let shell = Command::new("sh").args(["-c", &line]).env("CREEL_SOCKET", daemon.socket()).output().unwrap();
    assert_eq!(text(&shell.stdout), "y\n");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_to_terminals_and_pipes() {
    let script = "stty -echo; while read x; do echo \"<$x>\"; stty size; test $x != end || exit 5; done";
    let (daemon, mut runtime, pod, id) = ground("attached", |c| (c.stdin, c.tty) = (true, true), script).await;
    let mut person = Person::runs(&daemon, 29, 99, &["attach", &id]);
    person.types("one\n");
    person.sees("<one>");
    person.sees("29 99");
    person.types("\u{10}\u{11}");
    assert_eq!(person.ends().code(), Some(0));
    // It runs on, and others can come.
    let mut person = Person::runs(&daemon, 24, 80, &["attach", &id]);
    person.types("end\n");
    person.sees("<end>");
    assert_eq!(person.ends().code(), Some(5));
    assert_eq!(pods::wait_exit(&mut runtime, &id).await.exit_code, 5);

    let config = pods::pod("attached");
    let mut container = pods::container("pipes", BUSYBOX, "cat; echo bye >&2; exit 6");
    (container.stdin, container.stdin_once) = (true, true);
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    let output = with_stdin(creel(&daemon, &["attach", &id]), b"through and through");
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("through and through", "bye\n"));
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(creel(&daemon, &["attach", &id]).output().unwrap().status.code(), Some(125), "it has ended");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_by_creel_itself() {
    let script = "while true; do nc -l -s 127.0.0.1 -p 7001 -e cat; done";
    let (daemon, mut runtime, pod, id) = ground("ports", |_| {}, script).await;
    let listens = "until grep -q ':1B59 00000000:0000 0A' /proc/net/tcp; do sleep 0.1; done";
    assert_eq!(pods::exec(&mut runtime, &id, &["sh", "-c", listens]).await.0, 0);
    let mut client = creel(&daemon, &["port-forward", &pod, ":7001", ":7002"]);
    let mut client = Ended(client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let (port, nobody) = (forwarded(&mut client.0), forwarded(&mut client.0));
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let data: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (mut writer, sent) = (socket.try_clone().unwrap(), data.clone());
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // The end of what was written comes back, too: only half of the connection was closed.
    let mut back = Vec::new();
    socket.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == data, "{} of {}", back.len(), data.len());
    let mut refused = TcpStream::connect(("127.0.0.1", nobody)).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(refused.read(&mut [0; 10]).unwrap_or(0), 0);
    daemon.finish().await;
}

/// ST-04: many connections at once, listeners of either family, ports that cannot be, and a pod that goes.
#[tokio::test(flavor = "multi_thread")]
async fn st_04_port_forwards() {
    let script = "mkdir /www; head -c 300000 /dev/zero >/www/zeros; httpd -p 127.0.0.1:7003 -h /www; httpd -p '[::1]:7004' -h /www; sleep 100000";
    let (daemon, mut runtime, pod, id) = ground("forwards", |_| {}, script).await;
    // 1B5B and 1B5C are 7003 and 7004.
    let listens = "until grep -q ':1B5B .* 0A' /proc/net/tcp && grep -q ':1B5C .* 0A' /proc/net/tcp6; do sleep 0.1; done";
    assert_eq!(pods::exec(&mut runtime, &id, &["sh", "-c", listens]).await.0, 0);
    let get = |port: u16| {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"GET /zeros HTTP/1.0\r\n\r\n").unwrap();
        let mut all = Vec::new();
        let _ = socket.read_to_end(&mut all);
        all.iter().filter(|byte| **byte == 0).count()
    };
    let before = held(daemon.pid());
    for transport in ["spdy", "websocket"] {
        for remote in [":7003", ":7004"] {
            let mut client = crictl(&daemon, &["port-forward", "-r", transport, &pod, remote]);
            let mut client = Ended(client.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
            let port = forwarded(&mut client.0);
            let threads: Vec<_> = (0..25).map(|_| std::thread::spawn(move || get(port))).collect();
            let lengths: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(lengths.iter().all(|length| *length == 300_000), "{transport} {remote}: {lengths:?}");
        }
    }
    let mut client = creel(&daemon, &["port-forward", &pod, ":7003"]);
    let mut client = Ended(client.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let port = forwarded(&mut client.0);
    let threads: Vec<_> = (0..100).map(|_| std::thread::spawn(move || get(port))).collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 300_000));
    for wrong in ["0", "65536", "-1", "http", ""] {
        assert!(!creel(&daemon, &["port-forward", &pod, wrong]).output().unwrap().status.success(), "{wrong}");
    }
    let ask = |port| api::runtime::PortForwardRequest { pod_sandbox_id: pod.clone(), port };
    for ports in [vec![0], vec![65_536], vec![-1], vec![80, 70_000]] {
        let error = runtime.port_forward(ask(ports.clone())).await.expect_err("no port");
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{ports:?}: {error}");
    }
    // Open, and nothing said: the pod goes, and with it the connection.
    let mut open = TcpStream::connect(("127.0.0.1", port)).unwrap();
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    runtime.stop_pod_sandbox(api::runtime::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await.unwrap();
    assert_eq!(open.read(&mut [0; 10]).unwrap_or(0), 0);
    assert_eq!(get(port), 0);
    drop(client);
    let deadline = Instant::now() + PATIENCE;
    while held(daemon.pid()).0 > before.0 + 4 {
        assert!(Instant::now() < deadline, "{before:?}, then {:?}", held(daemon.pid()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    daemon.finish().await;
}

/// `kubectl cp` is tar over exec, both ways, with a slow end on either side.
#[tokio::test(flavor = "multi_thread")]
async fn copying_waits_for_whoever_is_slow() {
    let (daemon, mut runtime, _, id) = ground("copy", |_| {}, "sleep 1000").await;
    for transport in ["spdy", "websocket"] {
        // Into the container, to a reader that sleeps first.
        let size = 20_000_000;
        let input = vec![b'z'; size];
        let into = crictl(&daemon, &["exec", "-i", "-r", transport, &id, "sh", "-c", &format!("sleep 1; head -c {size} | wc -c")]);
        assert_eq!(text(&with_stdin(into, &input).stdout).trim(), size.to_string(), "{transport}");
        // Out of it, to a client that sleeps first: the command writes no more than the buffers on the way take.
        let script = "i=0; while [ $i -lt 200 ]; do head -c 100000 /dev/zero; i=$((i+1)); echo $i > /progress; done";
        let mut client = crictl(&daemon, &["exec", "-r", transport, &id, "sh", "-c", script]);
        let mut client = Ended(client.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let progress =
            async |runtime: &mut Runtime| pods::exec(runtime, &id, &["cat", "/progress"]).await.1.parse::<u32>().unwrap_or(0);
        let mut last = (0, 0);
        let deadline = Instant::now() + PATIENCE;
        // It comes to a halt.
        while last.1 < 10 {
            assert!(Instant::now() < deadline, "{transport}: it does not halt");
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = progress(&mut runtime).await;
            last = if now == last.0 && now > 0 { (now, last.1 + 1) } else { (now, 0) };
        }
        assert!(last.0 < 200, "{transport}: nobody has read anything, and everything is written");
        // And goes on when somebody reads.
        let mut all = Vec::new();
        client.0.stdout.take().unwrap().read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 20_000_000, "{transport}");
    }
    daemon.finish().await;
}

/// What a process holds: descriptors and threads.
fn held(pid: u32) -> (usize, usize) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
    (count("fd"), count("task"))
}

/// Those attached whom the supervisor may not have missed yet: it notices when there is output, or no more room.
const TEES: usize = 16;

/// CR-02: sessions opened, used, half-closed and killed leave nothing behind, in the daemon or the supervisor.
#[tokio::test(flavor = "multi_thread")]
async fn cr_02_sessions_leave_nothing() {
    let rounds: usize = std::env::var("CREEL_CR02_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    let (daemon, mut runtime, _, id) = ground("leaks", |c| (c.stdin, c.tty) = (true, true), "cat").await;
    let shim = u32::try_from(crate::check::shims(&daemon)[0]).unwrap();
    let mut client = api::creel::creel_client::CreelClient::new(daemon.channel().await.unwrap());
    let mut open = async |round: usize| {
        use api::creel::{self as own, attach_request::Message as ToAttached, exec_request::Message as ToExec};
        let size = own::TerminalSize { width: 80, height: 24 };
        if round.is_multiple_of(2) {
            let start = own::AttachStart { container_id: id.clone(), stdin: true };
            let said = vec![ToAttached::Start(start), ToAttached::Size(size), ToAttached::Stdin(b"x\n".to_vec())];
            let said = tokio_stream::iter(said.into_iter().map(|message| own::AttachRequest { message: Some(message) }));
            let mut answer = client.attach(said).await.unwrap().into_inner();
            let _ = answer.message().await;
        } else {
            // Some commands end, some are left, some cannot be.
            let command = [vec!["true"], vec!["sleep", "1000"], vec!["no-such-program"]][round / 2 % 3].clone();
            let start = own::ExecStart {
                container_id: id.clone(),
                command: command.into_iter().map(str::to_owned).collect(),
                stdin: true,
                tty: round.is_multiple_of(3),
                ..Default::default()
            };
            let said =
                tokio_stream::iter([ToExec::Start(start), ToExec::Size(size)].map(|m| own::ExecRequest { message: Some(m) }));
            if let Ok(answer) = client.exec(said).await {
                let _ = answer.into_inner().message().await;
            }
        }
    };
    for round in 0..24 {
        open(round).await;
    }
    settle(&mut runtime, &id).await;
    let before = (held(daemon.pid()), held(shim));
    for round in 0..rounds {
        open(round).await;
    }
    settle(&mut runtime, &id).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ((fds, threads), shim) = (held(daemon.pid()), held(shim));
        // Threads for blocking work come and go.
        if fds <= before.0.0 + 4 && shim.0 <= before.1.0 + TEES && shim.1 == before.1.1 && threads <= 160 {
            break;
        }
        assert!(Instant::now() < deadline, "before: {before:?}, after {rounds}: {:?}", ((fds, threads), shim));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    daemon.finish().await;
}

/// Until nothing but the container's own process runs.
async fn settle(runtime: &mut Runtime, id: &str) {
    let deadline = Instant::now() + PATIENCE;
    while pods::exec(runtime, id, &["ps"]).await.1.contains("sleep 1000") {
        assert!(Instant::now() < deadline, "commands run on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
