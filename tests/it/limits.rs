//! Clients and files that ask for too much: CR-01, CR-03, CR-04, CR-07, ST-05, ST-06, ST-07 of the security tests.

use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    time::{Duration, Instant},
};

use api::runtime as cri;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX, Runtime},
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn ground(name: &str, script: &str) -> (Daemon, Runtime, String) {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod(name);
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, script)).await;
    (daemon, runtime, id)
}

/// A line of /proc/PID/status in KiB, and the number of descriptors.
fn rss_and_fds(pid: u32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let rss = rss.trim().trim_end_matches(" kB").parse().unwrap();
    (rss, std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

/// CR-01: a thousand commands that each leave a child behind which holds their pipes.
#[tokio::test(flavor = "multi_thread")]
async fn cr_01_commands_with_children_leave_nothing() {
    let (daemon, mut runtime, id) = ground("children", "sleep 100000").await;
    let shim = u32::try_from(crate::check::shims(&daemon)[0]).unwrap();
    let many = async |count: usize| {
        for _ in 0..count / 25 {
            let calls = (0..25).map(|_| {
                let (mut runtime, id) = (runtime.clone(), id.clone());
                async move {
                    let cmd = ["sh", "-c", "echo probe; sleep 4242 & exit 0"].map(str::to_owned).to_vec();
                    let answer = runtime.exec_sync(cri::ExecSyncRequest { container_id: id, cmd, timeout: 60 }).await;
                    assert_eq!(answer.unwrap().into_inner().stdout, b"probe\n");
                }
            });
            futures_util::future::join_all(calls).await;
        }
    };
    many(50).await;
    end_children(&mut runtime.clone(), &id).await;
    let before = (rss_and_fds(daemon.pid()), rss_and_fds(shim));
    many(1000).await;
    end_children(&mut runtime, &id).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ((rss, fds), (shim_rss, shim_fds)) = (rss_and_fds(daemon.pid()), rss_and_fds(shim));
        if fds <= before.0.1 + 4 && shim_fds <= before.1.1 && rss < before.0.0 + (16 << 10) && shim_rss < before.1.0 + 1024 {
            break;
        }
        assert!(Instant::now() < deadline, "before: {before:?}, after: {:?}", ((rss, fds), (shim_rss, shim_fds)));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    daemon.finish().await;
}

async fn end_children(runtime: &mut Runtime, id: &str) {
    let script = "pkill -f '[s]leep 4242'; while pgrep -f '[s]leep 4242' >/dev/null; do sleep 0.1; done; exit 0";
    assert_eq!(pods::exec(runtime, id, &["sh", "-c", script]).await.0, 0);
}

/// CR-01: a client that goes away takes its command with it, and output without end is cut.
#[tokio::test(flavor = "multi_thread")]
async fn cr_01_cancelled_and_endless_commands() {
    let (daemon, mut runtime, id) = ground("endless", "sleep 100000").await;
    let request = |script: &str, timeout| cri::ExecSyncRequest {
        container_id: id.clone(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        timeout,
    };
    let mut other = runtime.clone();
    let gone = tokio::time::timeout(Duration::from_millis(700), other.exec_sync(request("sleep 515 & sleep 515", 0))).await;
    assert!(gone.is_err());
    let before = rss_and_fds(daemon.pid()).0;
    let error = runtime.exec_sync(request("yes", 2)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    assert!(rss_and_fds(daemon.pid()).0 < before + (64 << 10), "kept no more than what may be answered");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let processes = pods::exec(&mut runtime, &id, &["ps"]).await.1;
        if !processes.contains("sleep 515") && !processes.contains("yes") {
            break;
        }
        assert!(Instant::now() < deadline, "{processes}");
    }
    daemon.finish().await;
}

/// CR-03: what is no id of anything, in every call that takes one.
#[tokio::test(flavor = "multi_thread")]
async fn cr_03_ids_that_are_none() {
    let (daemon, mut runtime, id) = ground("ids", "sleep 100000").await;
    let long = "f".repeat(1 << 20);
    let unknown = "0".repeat(64);
    let upper = id.to_uppercase();
    for wrong in
        ["", "/", "..", "../../etc", "a/b", "%", "\u{1}", "-", &unknown, &long, &upper, &format!("{id}0"), &format!(" {id}")]
    {
        let container = || wrong.to_owned();
        let shown = &wrong[..wrong.len().min(70)];
        let mut refused = Vec::new();
        refused.push(runtime.start_container(cri::StartContainerRequest { container_id: container() }).await.err());
        let status = cri::ContainerStatusRequest { container_id: container(), verbose: true };
        refused.push(runtime.container_status(status).await.err());
        let exec = cri::ExecSyncRequest { container_id: container(), cmd: vec!["true".into()], timeout: 1 };
        refused.push(runtime.exec_sync(exec).await.err());
        let exec = cri::ExecRequest { container_id: container(), cmd: vec!["true".into()], stdout: true, ..Default::default() };
        refused.push(runtime.exec(exec).await.err());
        refused
            .push(runtime.attach(cri::AttachRequest { container_id: container(), stdout: true, ..Default::default() }).await.err());
        refused.push(runtime.port_forward(cri::PortForwardRequest { pod_sandbox_id: container(), port: vec![80] }).await.err());
        let pod = cri::PodSandboxStatusRequest { pod_sandbox_id: container(), verbose: true };
        refused.push(runtime.pod_sandbox_status(pod).await.err());
        refused.push(runtime.reopen_container_log(cri::ReopenContainerLogRequest { container_id: container() }).await.err());
        refused.push(runtime.container_stats(cri::ContainerStatsRequest { container_id: container() }).await.err());
        for (call, error) in refused.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("call {call} took {shown:?}"));
            let code = error.code();
            assert!(matches!(code, tonic::Code::NotFound | tonic::Code::InvalidArgument), "call {call}, {shown:?}: {error}");
            assert!(error.message().len() < 1000, "call {call}: a message of {} bytes", error.message().len());
        }
        // Stopping and removing what is not there is done already.
        for _ in 0..2 {
            let _ = runtime.stop_container(cri::StopContainerRequest { container_id: container(), timeout: 0 }).await;
            let _ = runtime.remove_container(cri::RemoveContainerRequest { container_id: container() }).await;
        }
    }
    assert_eq!(pods::status(&mut runtime, &id).await.state(), cri::ContainerState::ContainerRunning);
    daemon.finish().await;
}

/// CR-03: records of something else: the daemon starts, says so, and puts them aside.
#[tokio::test(flavor = "multi_thread")]
async fn cr_03_records_that_are_not_understood_are_put_aside() {
    let (mut daemon, mut runtime, id) = ground("records", "sleep 100000").await;
    let config = pods::host_pod("victim");
    let victim = pods::run_pod(&mut runtime, &config).await.unwrap();
    daemon.terminate();
    let records = daemon.root().join("records");
    // Intact, as its checksum says, but not what we know: the record of a container as one of a pod.
    std::fs::copy(records.join("containers").join(&id), records.join("pods").join(&victim)).unwrap();
    std::fs::write(records.join("pods").join("b".repeat(64)), b"garbage").unwrap();
    std::fs::write(records.join("containers").join("no-id"), b"").unwrap();
    daemon.run().await;
    let log = daemon.log();
    assert!(log.contains("record not understood: put aside"), "{log}");
    assert_eq!(log.matches("damaged record put aside").count(), 2, "{log}");
    let aside: Vec<_> = std::fs::read_dir(daemon.root().join("quarantine")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(aside.len(), 3, "{aside:?}");
    let mut runtime = daemon.runtime().await;
    // Who has a record lives on; who has none is gone with all that it had.
    assert_eq!(pods::exec(&mut runtime, &id, &["echo", "alive"]).await.1, "alive");
    let listed = runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner().items;
    assert!(listed.iter().all(|pod| pod.id != victim), "{listed:?}");
    pods::run_pod(&mut runtime, &config).await.expect("the same pod once more");
    daemon.terminate();
    daemon.run().await;
    assert_eq!(daemon.log().matches("put aside").count(), 3, "said once each");
    daemon.finish().await;
}

/// CR-04: logs are written where they belong and nowhere else, and none of their lines is lost.
#[tokio::test(flavor = "multi_thread")]
async fn cr_04_logs() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let logs = daemon.dir.path().join("logs");
    let config = cri::PodSandboxConfig { log_directory: logs.display().to_string(), ..pods::host_pod("logs") };
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let canary = daemon.dir.path().join("canary");
    std::fs::write(&canary, "untouched").unwrap();
    std::fs::create_dir_all(logs.join("dir.log")).unwrap();
    std::os::unix::fs::symlink(&canary, logs.join("link.log")).unwrap();
    std::os::unix::fs::symlink(daemon.dir.path(), logs.join("out")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        logs.join("fifo.log"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for path in ["link.log", "fifo.log", "dir.log", "../canary", "/etc/passwd", "a\0b", "x/../../canary"] {
        let mut container = pods::container("c", BUSYBOX, "echo overwritten");
        container.log_path = path.into();
        let error = match pods::create(&mut runtime, &pod, &config, &container).await {
            Ok(id) => pods::start(&mut runtime, &id).await.err(),
            Err(error) => Some(error),
        };
        assert!(error.is_some(), "{path:?} was taken");
    }
    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "untouched");
    // Rotated while it is written: every line is in one of the files, once, in order.
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; printf 'a\\rb\\377\\n'; head -c 3000000 /dev/zero | tr '\\0' x";
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("busy", BUSYBOX, script)).await;
    let path = logs.join("busy.log");
    let mut files = Vec::new();
    for round in 0..10 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let rotated = logs.join(format!("busy.log.{round}"));
        std::fs::rename(&path, &rotated).unwrap();
        files.push(rotated);
        if runtime.reopen_container_log(cri::ReopenContainerLogRequest { container_id: id.clone() }).await.is_err() {
            break; // It has ended.
        }
    }
    pods::wait_exit(&mut runtime, &id).await;
    files.push(path);
    let bytes: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap_or_default()).collect();
    let mut texts = Vec::new();
    for entry in bytes.split(|byte| *byte == b'\n').filter(|entry| !entry.is_empty()) {
        assert!(entry.len() < 17 << 10, "an entry of {} bytes", entry.len());
        let mut fields = entry.splitn(4, |byte| *byte == b' ');
        let tag = fields.nth(2).unwrap();
        assert!(tag == b"F" || tag == b"P", "{tag:?}");
        texts.push(fields.next().unwrap_or_default().to_vec());
    }
    for (number, text) in texts.iter().take(20_000).enumerate() {
        assert_eq!(text, format!("line {number}").as_bytes());
    }
    assert_eq!(texts[20_000], b"a\rb\xff");
    assert_eq!(texts[20_001..].iter().map(Vec::len).sum::<usize>(), 3_000_000);
    daemon.finish().await;
}

/// CR-07: messages that are too big, and too many of them.
#[tokio::test(flavor = "multi_thread")]
async fn cr_07_big_messages_and_many_of_them() {
    let (daemon, mut runtime, id) = ground("big", "sleep 100000").await;
    let cmd = vec!["x".repeat(17 << 20)];
    let error = runtime.exec_sync(cri::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 1 }).await.unwrap_err();
    assert!(matches!(error.code(), tonic::Code::OutOfRange | tonic::Code::ResourceExhausted), "{error}");
    let mut config = pods::host_pod("labelled");
    config.labels = pods::labels(&[("k", &"v".repeat(4096))]).into_iter().collect();
    let error = pods::run_pod(&mut runtime, &config).await.unwrap_err();
    assert!(error.code() == tonic::Code::InvalidArgument && error.message().contains("4096"), "{error}");
    config.labels = (0..200_000).map(|n| (n.to_string(), String::new())).collect();
    let error = pods::run_pod(&mut runtime, &config).await.unwrap_err();
    assert!(error.code() == tonic::Code::InvalidArgument && error.message().contains("altogether"), "{error}");
    // Ten thousand lists, two thousand of them at a time: as many as the streams of twenty connections.
    let before = rss_and_fds(daemon.pid()).0;
    let clients = (0..20).map(|_| async {
        let client = daemon.runtime().await;
        for _ in 0..5 {
            let calls = (0..100).map(|_| {
                let mut client = client.clone();
                async move { client.list_containers(cri::ListContainersRequest::default()).await }
            });
            for answer in futures_util::future::join_all(calls).await {
                assert_eq!(answer.expect("a list").into_inner().containers.len(), 1);
            }
        }
    });
    futures_util::future::join_all(clients).await;
    let after = rss_and_fds(daemon.pid()).0;
    assert!(after < before + (128 << 10), "{before} KiB, then {after}");
    daemon.finish().await;
}

/// The beginning of HTTP/2, a frame, and a request's headers without their end.
mod h2 {
    pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// POST http://x PATH as RFC 7541 has it, without indexing.
    pub fn headers(path: &str) -> Vec<u8> {
        let length = u8::try_from(path.len()).unwrap();
        let mut block = vec![0x83, 0x86, 0x01, 1, b'x', 0x04, length];
        block.extend(path.as_bytes());
        block.extend([0x0f, 0x10, 16]);
        block.extend(b"application/grpc");
        block
    }
}

/// Sends and reads what comes until the other side ends it, or for a while.
fn throw(daemon: &Daemon, parts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut socket = UnixStream::connect(daemon.socket()).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut reader = socket.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut chunk = [0; 64 << 10];
        while let Ok(got @ 1..) = reader.read(&mut chunk) {
            all.extend_from_slice(&chunk[..got]);
        }
        all
    });
    for part in parts {
        if socket.write_all(&part).is_err() {
            break;
        }
    }
    reading.join().unwrap()
}

/// ST-05: HTTP/2 as nobody should speak it. The daemon goes on answering, and grows no further.
#[tokio::test(flavor = "multi_thread")]
async fn st_05_hostile_http2() {
    let (daemon, mut runtime, _) = ground("http2", "sleep 100000").await;
    let version = "/runtime.v1.RuntimeService/Version";
    let before = rss_and_fds(daemon.pid()).0;
    // Rapid reset (CVE-2023-44487).
    let resets = (0..50_000_u32).map(|n| {
        let stream = 2 * n + 1;
        [h2::frame(1, 4, stream, &h2::headers(version)), h2::frame(3, 0, stream, &[0, 0, 0, 8])].concat()
    });
    throw(&daemon, std::iter::once(h2::PREFACE.to_vec()).chain(resets));
    // CONTINUATION without end (CVE-2024-27316).
    let flood = std::iter::repeat_n(h2::frame(9, 0, 1, &[0x82; 16_000]), 2000);
    throw(&daemon, [h2::PREFACE.to_vec(), h2::frame(1, 0, 1, &h2::headers(version))].into_iter().chain(flood));
    // One byte of data at a time, settings and pings without end, a frame that is too long, no HTTP at all.
    let drops = std::iter::repeat_n(h2::frame(0, 0, 1, b"x"), 100_000);
    throw(&daemon, [h2::PREFACE.to_vec(), h2::frame(1, 4, 1, &h2::headers(version))].into_iter().chain(drops));
    let noise = std::iter::repeat_n([h2::frame(4, 0, 0, &[]), h2::frame(6, 0, 0, &[0; 8])].concat(), 50_000);
    throw(&daemon, std::iter::once(h2::PREFACE.to_vec()).chain(noise));
    throw(&daemon, [h2::PREFACE.to_vec(), vec![0xff; 1 << 20]]);
    throw(&daemon, [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 1 << 20]]);
    for path in ["runtime.v1.RuntimeService/Version", "/runtime.v1.RuntimeService/None", "/none/None", "//Version", "*"] {
        let answer = throw(&daemon, [h2::PREFACE.to_vec(), h2::frame(1, 5, 1, &h2::headers(path))]);
        assert!(!answer.windows(5).any(|bytes| bytes == b"creel"), "{path} was served");
    }
    let idle: Vec<_> = (0..500).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
    runtime.version(cri::VersionRequest::default()).await.expect("an answer beside 500 idle connections");
    drop(idle);
    let after = rss_and_fds(daemon.pid()).0;
    assert!(after < before + (64 << 10), "{before} KiB, then {after}");
    daemon.finish().await;
}

/// ST-05: out of descriptors, connections wait and are served later.
#[tokio::test(flavor = "multi_thread")]
async fn st_05_out_of_descriptors() {
    let (daemon, mut runtime, _) = ground("emfile", "sleep 100000").await;
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    let few = u64::try_from(rss_and_fds(daemon.pid()).1 + 6).unwrap();
    let before = prlimit(
        pid,
        Resource::Nofile,
        Rlimit { current: Some(few), maximum: rustix::process::getrlimit(Resource::Nofile).maximum },
    )
    .unwrap();
    let many: Vec<_> = (0..100).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    runtime.version(cri::VersionRequest::default()).await.expect("who is connected already is served");
    prlimit(pid, Resource::Nofile, before).unwrap();
    daemon.runtime().await.version(cri::VersionRequest::default()).await.expect("a new connection");
    drop(many);
    daemon.finish().await;
}

/// ST-06: sockets are files that only root reaches, none of them abstract.
#[tokio::test(flavor = "multi_thread")]
async fn st_06_sockets() {
    let (daemon, _, _) = ground("sockets", "sleep 100000").await;
    let unix = std::fs::read_to_string("/proc/net/unix").unwrap();
    let abstracts: Vec<_> =
        unix.lines().filter_map(|line| line.split_whitespace().nth(7)).filter(|name| name.starts_with('@')).collect();
    assert!(abstracts.iter().all(|name| !name.contains("creel")), "{abstracts:?}");
    let mode = |path: &std::path::Path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&daemon.socket()) & 0o007, 0);
    assert_eq!(mode(&daemon.run_dir()) & 0o066, 0);
    assert_eq!(mode(&daemon.root()), 0o700);
    for entry in std::fs::read_dir(daemon.run_dir().join("pods")).unwrap().flatten() {
        assert_eq!(mode(&entry.path()) & 0o066, 0, "{:?}", entry.path());
    }
    // Another user gets nowhere.
    let mut other = std::process::Command::new("setpriv");
    other.args(["--reuid", "65534", "--clear-groups", "--"]).arg(crate::daemon::bin("creel")).arg("ps");
    let output = other.env("CREEL_SOCKET", daemon.socket()).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    // A path that no socket can have.
    let long = format!("/run/{}", "x".repeat(120));
    let refused = std::process::Command::new(crate::daemon::bin("creeld")).args(["--socket", &long]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    assert!(!refused.status.success() && said.contains("107 bytes"), "{said}");
    daemon.finish().await;
}

/// ST-07: a supervisor that accepts and never answers, and one that answers nonsense, hold up nobody but their own pods.
#[tokio::test(flavor = "multi_thread")]
async fn st_07_supervisors_that_do_not_answer() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with};
    let (mut daemon, mut runtime, id) = ground("fine", "sleep 100000").await;
    let mut fakes = Vec::new();
    for name in ["silent", "babbling"] {
        fakes.push((name, pods::run_pod(&mut runtime, &pods::host_pod(name)).await.unwrap()));
    }
    daemon.kill();
    for (name, pod) in &fakes {
        let path = daemon.run_dir().join("pods").join(pod).join("shim.sock");
        std::fs::remove_file(&path).unwrap();
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        // The path may be longer than a socket's address: it is bound from inside the directory.
        let dir = std::fs::File::open(path.parent().unwrap()).unwrap();
        let inside = format!("/proc/self/fd/{}/shim.sock", std::os::fd::AsRawFd::as_raw_fd(&dir));
        bind(&socket, &SocketAddrUnix::new(inside).unwrap()).unwrap();
        listen(&socket, 8).unwrap();
        let babbles = *name == "babbling";
        std::thread::spawn(move || {
            while let Ok(connection) = accept(&socket) {
                if babbles {
                    let _ = rustix::io::write(&connection, &[0xff; 4096]);
                }
                // Kept open for as long as the test's process lives.
                std::mem::forget(connection);
            }
        });
    }
    daemon.run().await;
    let mut runtime = daemon.runtime().await;
    assert_eq!(pods::exec(&mut runtime, &id, &["echo", "fine"]).await.1, "fine");
    for (name, pod) in &fakes {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
        let status = runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
        assert_eq!(status.state(), cri::PodSandboxState::SandboxNotready, "{name}");
    }
    daemon.finish().await;
}
