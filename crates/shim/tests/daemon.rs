//! Daemons that come, go, die and misbehave; and the supervisor's own end.
#![forbid(unsafe_code)]

mod pod;

use std::{
    fs,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    time::Duration,
};

use model::{ErrorKind, Signal};
use pod::{Daemon, Pod, eventually, lives};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use shim_proto::{Event, Exit, REVISION, Reply, Request, Status, VERSION};

#[test]
fn a_daemon_that_dies_costs_no_line_and_no_exit() {
    let mut pod = Pod::new();
    let long = pod.plan("for i in $(seq 1 200); do echo $i; sleep 0.005; done; exit 6");
    pod.start(&long);
    let quick = pod.plan("exit 5");
    let mut quick = quick;
    quick.0.log_path = None;
    pod.start(&quick);
    // Gone without a word, again and again.
    for _ in 0..3 {
        pod.reconnect();
        std::thread::sleep(Duration::from_millis(20));
    }
    let silent = Daemon::dial(&pod.run_dir());
    let nobody = std::mem::replace(&mut pod.daemon.socket, silent);
    drop(nobody);
    eventually("both have ended", || fs::read_dir(pod.run_dir().join("exits")).unwrap().count() == 2);
    pod.reconnect();
    let state = pod.daemon.state();
    let mut ends: Vec<_> = state
        .exits
        .iter()
        .map(|exit| match exit {
            Exit::Container { record, .. } => (record.container, record.exit.code),
            Exit::Exec { .. } => panic!("there was none"),
        })
        .collect();
    ends.sort();
    assert_eq!(ends, [(long.0.id, 6), (quick.0.id, 5)]);
    let lines: Vec<String> = (1..=200).map(|n| format!("stdout F {n}")).collect();
    assert_eq!(pod.lines(), lines);
    // They are kept until acknowledged, over any number of connections.
    pod.reconnect();
    assert_eq!(pod.daemon.state().exits.len(), 2);
    for exit in &state.exits {
        assert_eq!(pod.daemon.ask(&Request::Ack { sequence: exit.sequence() }), Reply::Done);
    }
    assert_eq!(pod.daemon.ask(&Request::Ack { sequence: 99 }), Reply::Done);
    assert!(pod.daemon.state().exits.is_empty());
}

#[test]
fn f_06_a_supervisor_that_is_killed_takes_its_containers_along() {
    let mut pod = Pod::new();
    let (created, running) = (pod.plan("true"), pod.plan("sleep 1000 & sleep 1000"));
    let pids = [pod.create(&created), pod.start(&running)];
    let exec = pod.exec(&running, "sleep 1000", |_| {});
    sys::process::signal(&pod.shim, Signal::KILL).unwrap();
    pod.wait();
    eventually("all are gone", || !pids.iter().chain([&exec.pid]).any(|pid| lives(*pid)));
    assert!(pod.daemon.hung_up());
}

#[test]
fn only_a_shutdown_ends_it() {
    let mut pod = Pod::new();
    let pid = pod.shim.pid.as_raw_nonzero().get().unsigned_abs();
    for signal in [Signal::TERM, Signal::from_number(2).unwrap(), Signal::from_number(1).unwrap()] {
        sys::process::signal(&pod.shim, signal).unwrap();
    }
    let stubborn = pod.plan("trap '' TERM INT; while :; do sleep 1; done");
    let id = stubborn.0.id;
    let main = pod.start(&stubborn);
    assert!(lives(pid));
    // The answer comes when all are dead, and their exits before it.
    assert_eq!(pod.daemon.ask(&Request::Shutdown), Reply::Done);
    let Some(Event::Exited(Exit::Container { record, .. })) = pod.daemon.events.front() else { panic!("no exit") };
    assert_eq!((record.container, record.exit.code), (id, 137));
    assert_eq!(pod.wait(), sys::process::Exit::Code(0));
    assert!(!lives(main) && !pod.run_dir().join("shim.sock").exists());
}

#[test]
fn requests_at_the_wrong_time() {
    let mut pod = Pod::bare();
    let plan = pod.plan("true");
    let rootfs = pod.rootfs();
    let create = Request::Create(plan.0.clone());
    let Reply::Failed(failure) = pod.daemon.ask_with(&create, vec![rootfs]).0 else { panic!("made") };
    assert_eq!(failure.kind, ErrorKind::FailedPrecondition);
    let mut pod = Pod::new();
    let plan = pod.plan("true");
    assert_eq!(pod.daemon.fails(&Request::Create(plan.0.clone())).kind, ErrorKind::InvalidArgument);
    pod.create(&plan);
    let rootfs = pod.rootfs();
    let Reply::Failed(failure) = pod.daemon.ask_with(&Request::Create(plan.0.clone()), vec![rootfs]).0 else { panic!("made") };
    assert_eq!(failure.kind, ErrorKind::AlreadyExists);
    assert_eq!(pod.daemon.state().containers.len(), 1);
}

/// Sends bytes and descriptors as they are.
fn raw(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_ok()
}

#[test]
fn st_07_what_is_no_message_ends_the_connection_and_nothing_else() {
    let mut pod = Pod::new();
    let plan = pod.plan("sleep 1000");
    pod.start(&plan);
    let before = pod.descriptors();
    let hello = shim_proto::encode_request(1, &Request::Hello { version: VERSION, revision: REVISION });
    let null = fs::File::open("/dev/null").unwrap();
    let giant = vec![0x82; 200 << 10];
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 100],
        &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x82],
        &[0x05],
        &giant,
    ];
    for bytes in garbage {
        for fds in [0, 1, 200] {
            let fds = vec![null.as_fd(); fds];
            // As the first message, and as a later one.
            for connect in [Daemon::silent, Daemon::connect] {
                let daemon = connect(&pod.run_dir());
                raw(&daemon.socket, bytes, &fds);
                assert!(daemon.hung_up(), "{:?}", &bytes[..bytes.len().min(20)]);
            }
        }
    }
    // A good message with descriptors that nobody asked for: answered, and they are closed.
    let mut daemon = Daemon::connect(&pod.run_dir());
    raw(&daemon.socket, &shim_proto::encode_request(9, &Request::State), &[null.as_fd(); 4]);
    assert!(matches!(daemon.receive().0, shim_proto::Incoming::Reply { number: 9, .. }));
    // A request of the future: an error, and the connection goes on.
    raw(&daemon.socket, &[0x82, 0x18, 0x21, 0x82, 0x18, 0x63, 0x81, 0xf5], &[]);
    let shim_proto::Incoming::Reply { number: 0x21, reply: Reply::Failed(failure) } = daemon.receive().0 else { panic!() };
    assert_eq!(failure.kind, ErrorKind::Unsupported);
    // Another version: told so, and dropped.
    let mut other = Daemon::silent(&pod.run_dir());
    let failure = other.fails(&Request::Hello { version: 99, revision: 1 });
    assert_eq!(failure.kind, ErrorKind::Unsupported);
    assert!(other.hung_up());
    // One that says nothing holds nobody up.
    let silent: Vec<OwnedFd> = (0..20).map(|_| Daemon::dial(&pod.run_dir())).collect();
    pod.reconnect();
    drop(silent);
    assert!(raw(&Daemon::dial(&pod.run_dir()), &hello, &[]));
    pod.reconnect();
    assert!(matches!(pod.daemon.state().containers[0].status, Status::Running { .. }));
    eventually("no descriptor is left", || pod.descriptors() == before);
}

#[test]
fn st_07_a_daemon_that_does_not_read_holds_nobody_up() {
    let mut pod = Pod::new();
    let plan = pod.plan("for i in $(seq 1 100); do echo $i; sleep 0.01; done");
    pod.start(&plan);
    let request = shim_proto::encode_request(5, &Request::State);
    // Until the supervisor has had enough.
    eventually("dropped", || {
        (0..1000).any(|_| !raw(&pod.daemon.socket, &request, &[])) && pod.complaints().contains("does not read")
    });
    pod.reconnect();
    eventually("it goes on", || pod.lines().len() == 100);
}

#[test]
fn st_06_only_root_is_heard() {
    let run_dir = std::env::var_os("CREEL_TEST_RUN_DIR");
    if let Some(run_dir) = run_dir {
        // The second process of this test, as nobody.
        let socket = Daemon::dial(run_dir.as_ref());
        let hello = shim_proto::encode_request(1, &Request::Hello { version: VERSION, revision: REVISION });
        raw(&socket, &hello, &[]);
        let daemon = Daemon { socket, number: 1, events: std::collections::VecDeque::new() };
        assert!(daemon.hung_up());
        return;
    }
    let pod = Pod::bare();
    for path in [pod.dir.path(), &pod.run_dir(), &pod.run_dir().join("shim.sock")] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    // A copy that nobody can read and run. A process of its own makes it: a descriptor of ours that may write to it could be in
    // the child of another thread's fork, and then it cannot be run (execve(2), ETXTBSY).
    let copy = pod.dir.path().join("test");
    assert!(Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&copy).status().unwrap().success());
    let mut command = Command::new(copy);
    command.args(["--exact", "st_06_only_root_is_heard", "--nocapture"]).env("CREEL_TEST_RUN_DIR", pod.run_dir());
    let output = command.current_dir("/").uid(65534).gid(65534).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    eventually("said so", || pod.complaints().contains("refused a connection of uid 65534"));
}

#[test]
fn many_at_once() {
    let mut pod = Pod::new();
    let plans: Vec<_> = (0..20).map(|n| pod.plan(&format!("echo {n}; exit {n}"))).collect();
    for plan in &plans {
        pod.start(plan);
    }
    for (n, plan) in plans.iter().enumerate() {
        assert_eq!(pod.daemon.exit_of(plan.0.id).exit.code, i32::try_from(n).unwrap());
    }
    assert_eq!(pod.lines().len(), 20);
    assert!(pod.daemon.state().exits.is_empty());
}
