//! Containers from their making to their end, as a daemon sees it.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod pod;

use std::{
    fs,
    io::{Read, Write},
};

use model::{ErrorKind, Signal, pod::PidMode};
use pod::{Pod, eventually, lives};
use rustix::termios::{Winsize, tcgetwinsize};
use shim_proto::{ExitRecord, FdRole, Reply, Request, Scope, Status};

#[test]
fn a_life_with_output_and_an_exit_code() {
    let mut pod = Pod::new();
    let before = pod.descriptors();
    let plan = pod.plan("echo out; echo err >&2; printf half; exit 3");
    let id = plan.0.id;
    let pid = pod.create(&plan);
    assert_eq!(pod.daemon.state().containers[0].status, Status::Created);
    assert!(lives(pid));
    assert!(matches!(pod.daemon.ask(&Request::Start { container: id }), Reply::Started { .. }));
    let record = pod.daemon.exit_of(id);
    assert_eq!((record.pid, record.exit.code, record.exit.signal, record.exit.oom_killed), (pid, 3, None, false));
    assert!(record.started_at.unwrap() <= record.finished_at);
    let mut lines = pod.lines();
    lines.sort();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P half"]);
    // On disk, too.
    let path = pod.run_dir().join("exits").join(id.to_string());
    assert_eq!(ExitRecord::from_bytes(&fs::read(&path).unwrap()).unwrap(), record);
    let state = pod.daemon.state();
    let exited = Status::Exited { started_at: record.started_at, finished_at: record.finished_at, exit: record.exit };
    assert_eq!((state.containers[0].status, state.exits.len()), (exited, 0));
    assert_eq!(pod.daemon.fails(&Request::Start { container: id }).kind, ErrorKind::FailedPrecondition);
    for _ in 0..2 {
        assert_eq!(pod.daemon.ask(&Request::Forget { container: id }), Reply::Done);
    }
    assert!(!path.exists() && pod.daemon.state().containers.is_empty());
    assert_eq!(pod.descriptors(), before, "descriptors leaked");
}

#[test]
fn the_supervisor_is_spared_where_that_is_permitted() {
    let pod = Pod::new();
    let adjustment = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let shim = pod.shim_group().pids().unwrap().into_iter().next().unwrap().as_raw_nonzero().to_string();
    // Asked of a process of our own: whether this kernel lets us.
    let mut probe = std::process::Command::new("sh");
    let probe = probe.args(["-c", "echo -999 2>/dev/null > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj"]).output();
    let permitted = String::from_utf8(probe.unwrap().stdout).unwrap() == "-999\n";
    let expected = if permitted { "-999\n".to_owned() } else { adjustment("self") };
    if !permitted {
        eprintln!("SKIPPED: no CAP_SYS_RESOURCE here");
    }
    assert_eq!(adjustment(&shim), expected);
}

#[test]
fn a_clean_process() {
    let mut pod = Pod::new();
    // Nothing of the supervisor is inherited: signals blocked or ignored, descriptors.
    let plan = pod.plan("grep -E '^Sig(Blk|Ign):' /proc/self/status; echo /proc/self/fd/*");
    assert_eq!(pod.run(&plan).exit.code, 0);
    let lines = pod.lines();
    assert_eq!(lines[0], "stdout F SigBlk:\t0000000000000000");
    // 32 and 33 are libc's own: what the test itself was started with stays.
    let ignored = lines[1].strip_prefix("stdout F SigIgn:\t").unwrap();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & !(0b11 << 31), 0, "{ignored}");
    // The fourth is the shell's own, of the directory that it lists.
    assert_eq!(lines[2], "stdout F /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3");
}

#[test]
fn programs_that_cannot_be_run() {
    let mut pod = Pod::new();
    for (program, code) in [("/no/such", 127), ("nosuch", 127), ("/etc", 126)] {
        let mut plan = pod.plan("");
        plan.0.process.args = vec![program.into()];
        let id = plan.0.id;
        pod.create(&plan);
        let failure = pod.daemon.fails(&Request::Start { container: id });
        assert_eq!(failure.exit_code, Some(code), "{failure:?}");
        let status = pod.daemon.state().containers[0].status;
        assert!(matches!(status, Status::Exited { started_at: None, exit, .. } if exit.code == code), "{status:?}");
        assert_eq!(pod.daemon.ask(&Request::Forget { container: id }), Reply::Done);
    }
    assert!(pod.daemon.events.is_empty() && pod.daemon.state().exits.is_empty());
}

#[test]
fn signals_and_what_they_end() {
    let mut pod = Pod::new();
    let plan = pod.plan("trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
    pod.start(&plan);
    eventually("ready", || pod.log().exists() && pod.lines().iter().any(|line| line.ends_with("ready")));
    pod.daemon.signal(plan.0.id, Signal::TERM);
    assert_eq!(pod.daemon.exit_of(plan.0.id).exit.code, 7);
    // To one that is over: fine.
    pod.daemon.signal(plan.0.id, Signal::KILL);
    let plan = pod.plan("sleep 1000");
    pod.start(&plan);
    assert_eq!(pod.daemon.ask(&Request::Signal { container: plan.0.id, signal: Signal::KILL, scope: Scope::All }), Reply::Done);
    let exit = pod.daemon.exit_of(plan.0.id).exit;
    assert_eq!((exit.code, exit.signal), (137, Some(Signal::KILL)));
    // Before its start.
    let plan = pod.plan("true");
    pod.create(&plan);
    pod.daemon.signal(plan.0.id, Signal::KILL);
    let record = pod.daemon.exit_of(plan.0.id);
    assert_eq!((record.exit.code, record.started_at), (137, None));
    let nobody = model::ContainerId::from_bytes([9; 32]);
    let request = Request::Signal { container: nobody, signal: Signal::KILL, scope: Scope::Main };
    assert_eq!(pod.daemon.fails(&request).kind, ErrorKind::NotFound);
}

#[test]
fn the_oom_killer_is_named() {
    let mut pod = Pod::new();
    let plan = pod.plan("tail /dev/zero");
    let group = pod.group_at(&plan.0.cgroup);
    let limit = model::Resources { memory_limit: Some(16 << 20), ..model::Resources::default() };
    let refused = group.apply(&limit).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    let record = pod.run(&plan);
    assert!(record.exit.oom_killed, "{record:?}");
    assert_eq!((record.exit.oom_scope, record.exit.oom_limit), (Some(model::container::OomScope::Container), Some(16 << 20)));
    assert_eq!(record.exit.code, 137);
}

#[test]
fn what_a_main_process_leaves_behind_ends_with_it() {
    let mut pod = Pod::new();
    // In the node's PID namespace nothing but the cgroup holds a container together. The child keeps the pipe open.
    let mut plan = pod.plan("sleep 1000 & echo $! > /tmp/pid; exit 5");
    plan.0.pid = PidMode::Node;
    assert_eq!(pod.run(&plan).exit.code, 5);
    let child: u32 = fs::read_to_string(pod.dir.path().join("rootfs/tmp/pid")).unwrap().trim().parse().unwrap();
    eventually("the child is gone", || !lives(child));
}

#[test]
fn a_shared_pid_namespace_ends_with_its_init() {
    let mut pod = Pod::with(|plan| plan.shared_pid = true);
    let mut plan = pod.plan("sleep 1000");
    plan.0.pid = PidMode::Pod;
    pod.start(&plan);
    let init = pod.daemon.state().init_pid.unwrap();
    let pid = sys::process::Pid::from_raw(i32::try_from(init).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    pod.daemon.event(|event| matches!(event, shim_proto::Event::InitExited { .. }).then_some(()));
    assert_eq!(pod.daemon.exit_of(plan.0.id).exit.code, 137);
    assert_eq!(pod.daemon.state().init_pid, None);
}

#[test]
fn forgetting_kills() {
    let mut pod = Pod::new();
    let (created, running) = (pod.plan("true"), pod.plan("sleep 1000"));
    let pids = [pod.create(&created), pod.start(&running)];
    for plan in [&created, &running] {
        assert_eq!(pod.daemon.ask(&Request::Forget { container: plan.0.id }), Reply::Done);
    }
    eventually("both are gone", || !pids.iter().any(|pid| lives(*pid)));
    assert!(pod.daemon.state().containers.is_empty() && pod.daemon.events.is_empty());
}

#[test]
fn exec_with_pipes() {
    let mut pod = Pod::new();
    let main = pod.plan("sleep 1000");
    pod.start(&main);
    let before = pod.descriptors();
    let mut exec = pod.exec(&main, "cat; echo err >&2; exit 9", |request| request.stdin = true);
    exec.take(FdRole::Stdin).write_all(b"through").unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    exec.take(FdRole::Stdout).read_to_string(&mut out).unwrap();
    exec.take(FdRole::Stderr).read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("through", "err\n"));
    assert_eq!(pod.daemon.exec_exit(exec.id), 9);
    // Without stdin it is /dev/null. It sees the container's files and processes, and no others.
    let mut exec = pod.exec(&main, "cat && echo /* && cat /proc/1/cmdline", |_| {});
    let mut out = String::new();
    exec.take(FdRole::Stdout).read_to_string(&mut out).unwrap();
    assert_eq!(out, "/bin /dev /etc /proc /sys /tmp\nsleep\x001000\x00");
    assert_eq!(pod.daemon.exec_exit(exec.id), 0);
    assert!(pod.daemon.state().execs.is_empty());
    assert_eq!(pod.descriptors(), before, "descriptors leaked");
}

#[test]
fn exec_that_is_killed_and_exec_that_is_refused() {
    let mut pod = Pod::new();
    let main = pod.plan("sleep 1000");
    pod.start(&main);
    let exec = pod.exec(&main, "sleep 999 & sleep 999", |_| {});
    assert_eq!(pod.daemon.ask(&Request::SignalExec { exec: exec.id, signal: Signal::KILL }), Reply::Done);
    assert_eq!(pod.daemon.exec_exit(exec.id), 137);
    let mut exec = pod.exec(&main, "ps | grep -c '[s]leep 999'", |_| {});
    let mut out = String::new();
    exec.take(FdRole::Stdout).read_to_string(&mut out).unwrap();
    assert_eq!(out.trim(), "0");
    pod.daemon.exec_exit(exec.id);
    let failure = pod.daemon.fails(&Request::SignalExec { exec: exec.id, signal: Signal::KILL });
    assert_eq!(failure.kind, ErrorKind::NotFound);
    // A container that has ended takes no exec; one that ends takes its execs along.
    let exec = pod.exec(&main, "sleep 1000", |_| {});
    pod.daemon.signal(main.0.id, Signal::KILL);
    assert_eq!(pod.daemon.exec_exit(exec.id), 137);
    pod.daemon.exit_of(main.0.id);
}

#[test]
fn a_terminal() {
    let mut pod = Pod::new();
    let mut plan = pod.plan("stty size; read line; echo got $line; stty size; exit 4");
    plan.0.process.tty = true;
    let id = plan.0.id;
    pod.create(&plan);
    let resize = |width, height| Request::ResizeTty { container: id, width, height };
    assert_eq!(pod.daemon.ask(&resize(80, 24)), Reply::Done);
    let (reply, fds) = pod.daemon.ask_with(&Request::Attach { container: id }, Vec::new());
    let Reply::Attached { fds: roles } = reply else { panic!("{reply:?}") };
    assert_eq!(roles, [FdRole::Terminal, FdRole::Stdout]);
    let mut fds = roles.into_iter().zip(fds).collect();
    assert!(matches!(pod.daemon.ask(&Request::Start { container: id }), Reply::Started { .. }));
    let (mut terminal, mut copy) = (pod::take(&mut fds, FdRole::Terminal), pod::take(&mut fds, FdRole::Stdout));
    eventually("first size", || pod.lines().contains(&"stdout F 24 80\r".to_owned()));
    assert_eq!(pod.daemon.ask(&resize(132, 50)), Reply::Done);
    let Winsize { ws_col, ws_row, .. } = tcgetwinsize(&terminal).unwrap();
    assert_eq!((ws_col, ws_row), (132, 50));
    terminal.write_all(b"hello\n").unwrap();
    assert_eq!(pod.daemon.exit_of(id).exit.code, 4);
    let mut all = String::new();
    copy.read_to_string(&mut all).unwrap();
    assert_eq!(all, "24 80\r\nhello\r\ngot hello\r\n50 132\r\n");
    assert_eq!(pod.lines().last().unwrap(), "stdout F 50 132\r");
}

#[test]
fn an_exec_with_a_terminal() {
    let mut pod = Pod::new();
    let main = pod.plan("sleep 1000");
    pod.start(&main);
    let mut exec = pod.exec(&main, "test -t 0 && test -t 2 && echo tty; exit 2", |request| request.plan.process.tty = true);
    let mut terminal = exec.take(FdRole::Terminal);
    assert!(exec.fds.is_empty());
    let mut out = Vec::new();
    // EIO is the end of a terminal.
    let _ = terminal.read_to_end(&mut out);
    assert_eq!(out, b"tty\r\n");
    assert_eq!(pod.daemon.exec_exit(exec.id), 2);
}

#[test]
fn stdin_that_stays_open_until_it_is_closed() {
    let mut pod = Pod::new();
    let mut plan = pod.plan("cat; echo end");
    plan.0.stdin = true;
    let id = plan.0.id;
    pod.start(&plan);
    for text in ["one\n", "two\n"] {
        let (reply, fds) = pod.daemon.ask_with(&Request::Attach { container: id }, Vec::new());
        let Reply::Attached { fds: roles } = reply else { panic!("{reply:?}") };
        let mut fds = roles.into_iter().zip(fds).collect();
        pod::take(&mut fds, FdRole::Stdin).write_all(text.as_bytes()).unwrap();
        let mut got = vec![0; text.len()];
        pod::take(&mut fds, FdRole::Stdout).read_exact(&mut got).unwrap();
        assert_eq!(got, text.as_bytes());
    }
    assert_eq!(pod.daemon.ask(&Request::CloseStdin { container: id }), Reply::Done);
    assert_eq!(pod.daemon.exit_of(id).exit.code, 0);
    assert_eq!(pod.lines(), ["stdout F one", "stdout F two", "stdout F end"]);
    let failure = pod.daemon.fails(&Request::Attach { container: id });
    assert_eq!(failure.kind, ErrorKind::FailedPrecondition);
}

#[test]
fn cr_04_long_lines_and_binary() {
    let mut pod = Pod::new();
    let plan = pod.plan("head -c 1048576 /dev/zero | tr '\\0' x; echo; printf '\\377\\001\\r\\n'");
    assert_eq!(pod.run(&plan).exit.code, 0);
    let log = fs::read(pod.log()).unwrap();
    let texts: Vec<&[u8]> = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| &line[31..]).collect();
    assert_eq!(texts.len(), 65);
    assert!(texts[..63].iter().all(|text| text.starts_with(b"stdout P x") && text.len() == 9 + (16 << 10)));
    assert!(texts[63].starts_with(b"stdout F x"));
    assert_eq!(texts[64], b"stdout F \xff\x01\r");
}

#[test]
fn cr_04_no_line_is_lost_in_a_rotation() {
    let mut pod = Pod::new();
    let plan = pod.plan("for i in $(seq 1 20000); do echo $i; done");
    let id = plan.0.id;
    pod.start(&plan);
    let mut parts = Vec::new();
    while matches!(pod.daemon.state().containers[0].status, Status::Running { .. }) {
        let part = pod.dir.path().join(format!("0.log.{}", parts.len()));
        fs::rename(pod.log(), &part).unwrap();
        parts.push(part);
        assert_eq!(pod.daemon.ask(&Request::ReopenLog { container: id }), Reply::Done);
        assert!(pod.log().exists());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    pod.daemon.exit_of(id);
    parts.push(pod.log());
    let all: Vec<String> = parts.iter().flat_map(|part| pod::texts(part)).collect();
    let expected: Vec<String> = (1..=20000).map(|n| format!("stdout F {n}")).collect();
    assert!(all == expected, "{} lines in {} parts", all.len(), parts.len());
}

#[test]
fn cr_04_a_log_that_is_no_plain_file_is_refused_before_anything_is_made() {
    let mut pod = Pod::new();
    fs::write(pod.dir.path().join("shadow"), "secret").unwrap();
    std::os::unix::fs::symlink("shadow", pod.log()).unwrap();
    let plan = pod.plan("echo overwritten");
    let rootfs = pod.rootfs();
    let Reply::Failed(failure) = pod.daemon.ask_with(&Request::Create(plan.0.clone()), vec![rootfs]).0 else { panic!("made") };
    assert_eq!(failure.kind, ErrorKind::InvalidArgument, "{failure:?}");
    assert_eq!(fs::read_to_string(pod.dir.path().join("shadow")).unwrap(), "secret");
    assert!(pod.daemon.state().containers.is_empty());
}

#[test]
fn no_log_at_all() {
    let mut pod = Pod::new();
    let mut plan = pod.plan("head -c 1048576 /dev/zero; exit 0");
    plan.0.log_path = None;
    assert_eq!(pod.run(&plan).exit.code, 0);
    assert!(!pod.log().exists());
    assert_eq!(pod.daemon.ask(&Request::ReopenLog { container: plan.0.id }), Reply::Done);
}
