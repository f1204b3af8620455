//! From create to the end: barrier, exit codes, programs that cannot run, exec, signals.

use std::{fs, os::fd::AsFd, time::Duration};

use container::{Exit, Stdio, exec};
use model::Signal;
use sys::{
    Errno,
    cgroup::{Group, Track},
    process,
};

use crate::{
    Test,
    world::{LIMIT, NO_FLAGS, World, bind, describe, make_pipes, shell, wait},
};

pub const TESTS: &[Test] = &[
    ("exit_codes_and_signals", exit_codes_and_signals),
    ("nothing_runs_before_start", nothing_runs_before_start),
    ("a_container_that_is_not_started_ends", a_container_that_is_not_started_ends),
    ("programs_that_cannot_run", programs_that_cannot_run),
    ("exec_runs_in_the_container", exec_runs_in_the_container),
    ("exec_that_cannot_run", exec_that_cannot_run),
    ("an_exec_dies_with_its_children", an_exec_dies_with_its_children),
    ("terminals", terminals),
    ("containers_die_with_their_supervisor", containers_die_with_their_supervisor),
    ("ex_12_absurd_plans_are_refused", ex_12_absurd_plans_are_refused),
];

fn exit_codes_and_signals() {
    let mut world = World::new();
    assert_eq!(world.sh("exit 7").0, 7);
    assert_eq!(world.sh("echo out; echo err >&2"), (0, "out\nerr\n".to_owned()));
    assert_eq!(world.sh("sh -c 'kill -9 $$'; exit $?").0, 137);
    let plan = world.plan("trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done");
    let (process, pipes) = world.start(&plan).unwrap();
    // The first byte says that the trap is set.
    std::thread::sleep(Duration::from_millis(200));
    process::signal(&process, Signal::TERM).unwrap();
    assert_eq!(wait(&process), Exit::Code(3));
    assert_eq!(pipes.read(), "up\n");
}

fn nothing_runs_before_start() {
    let mut world = World::new();
    let volume = world.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let mut plan = world.plan("touch /data/started; cat");
    plan.mounts.push(bind(&volume, "/data", NO_FLAGS));
    let (created, pipes) = world.create(&plan).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(!volume.join("started").exists());
    assert_eq!(process::try_wait(created.pidfd()), Ok(None));
    // Its copies of our pipes would keep the other ends open.
    let pid = created.pid().as_raw_nonzero();
    let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| fd.unwrap().file_name()).collect();
    assert_eq!(open.len(), 4, "stdio and the barrier: {open:?}");
    let (process, _) = created.start().unwrap();
    drop(pipes.stdin);
    assert_eq!(wait(&process), Exit::Code(0));
    assert!(volume.join("started").exists());
}

fn a_container_that_is_not_started_ends() {
    let mut world = World::new();
    let plan = world.plan("true");
    let (created, _pipes) = world.create(&plan).unwrap();
    let pidfd = process::open(created.pid()).unwrap();
    drop(created);
    assert_eq!(process::wait(&pidfd, LIMIT), Ok(Exit::Code(128)));
    let (created, _pipes) = world.create(&plan).unwrap();
    assert_eq!(created.kill(), Some(Exit::Signal(Signal::KILL)));
    let (created, _pipes) = world.create(&plan).unwrap();
    process::signal(created.pidfd(), Signal::KILL).unwrap();
    process::readable(created.pidfd(), LIMIT).unwrap();
    // Killed between the two: start cannot tell it from a program that ended at once, the exit status does.
    if let Ok((process, _)) = created.start() {
        assert_eq!(wait(&process), Exit::Signal(Signal::KILL));
    }
}

fn programs_that_cannot_run() {
    let mut world = World::new();
    fs::write(world.image().join("bin/script"), "echo no interpreter line\n").unwrap();
    fs::write(world.image().join("bin/text"), "x").unwrap();
    let executable = |name| {
        let path = world.image().join(name);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    executable("bin/script");
    for (program, code, message) in [
        ("nosuch", 127, "exec \"nosuch\": executable file not found in $PATH"),
        ("/nosuch", 127, "exec \"/nosuch\": no such file or directory"),
        ("text", 126, "exec \"text\": permission denied"),
        ("/etc", 126, "exec \"/etc\": permission denied"),
        ("script", 126, "exec \"script\": exec format error"),
        ("/bin/sh/x", 127, "exec \"/bin/sh/x\": no such file or directory"),
    ] {
        let mut plan = world.plan("");
        plan.process.args = vec![program.to_owned()];
        let error = world.start(&plan).map(|_| ()).unwrap_err();
        assert_eq!((error.exit_code, error.message.as_str()), (code, message));
    }
    let mut plan = world.plan("");
    plan.process.args = vec![];
    assert_eq!(world.refused(&plan), "program: no command is given");
    assert_eq!(process::try_wait_any(), Err(Errno::CHILD), "every failed start has been collected");
}

fn exec_runs_in_the_container() {
    let mut world = World::new();
    let plan = world.plan("touch /tmp/mine; cat");
    let (main, pipes) = world.start(&plan).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let script = "ls /tmp; hostname; echo $$ $PPID; pwd; for n in /proc/self/ns/*; do readlink $n; done | sort > /tmp/exec; exit 5";
    let mut exec_plan = world.exec_plan(script);
    exec_plan.process.cwd = "/tmp".to_owned();
    let (code, output) = world.exec(&main, &exec_plan).unwrap();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((code, lines[0], lines[1], lines[3]), (5, "mine", "pod", "/tmp"));
    let pids: Vec<u32> = lines[2].split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(pids[0] > 1 && pids[1] == 0, "in the container's PID namespace, its parent outside: {pids:?}");
    // The same namespaces as the container's first process, all of them.
    let plan = world.exec_plan(
        "for n in /proc/1/ns/*; do readlink $n; done | sort > /tmp/init; wc -l < /tmp/init; grep -v -F -x -f /tmp/init /tmp/exec",
    );
    assert_eq!(world.exec(&main, &plan).unwrap().1, "10\n");
    // The supervisor is back in its own PID namespace for the next container.
    assert_eq!(world.sh("echo $$").1, "1\n");
    drop(pipes);
    assert_eq!(wait(&main), Exit::Code(0));
    let error = world.exec(&main, &plan).unwrap_err();
    assert!(describe(&error).contains("ended"), "{}", describe(&error));
}

fn exec_that_cannot_run() {
    let mut world = World::new();
    let plan = world.plan("cat");
    let (main, _pipes) = world.start(&plan).unwrap();
    for (program, code) in [("nosuch", 127), ("/etc/passwd", 126)] {
        let mut plan = world.exec_plan("");
        plan.process.args = vec![program.to_owned()];
        let error = world.exec(&main, &plan).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
    }
    let mut plan = world.exec_plan("");
    plan.process.cwd = "/nosuch".to_owned();
    assert_eq!(describe(&world.exec(&main, &plan).unwrap_err()), "working directory \"/nosuch\": no such file or directory");
    let mut plan = world.exec_plan("");
    plan.cgroup = format!("{}/container/never-made", world.base);
    assert!(world.exec(&main, &plan).is_err());
}

fn an_exec_dies_with_its_children() {
    let mut world = World::new();
    let plan = world.plan("sleep 1000");
    let (main, _pipes) = world.start(&plan).unwrap();
    let plan = world.exec_plan("(trap '' TERM; sleep 1000) & sleep 1000 & wait");
    let (stdio, _out) = make_pipes();
    let running = exec(world.env(), main.as_fd(), &plan, stdio).unwrap();
    let group = Group::new(&world.hierarchies, &format!("{}/container", world.base)).unwrap();
    let track = Track::new(&group, "exec").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(group.pids().unwrap().len() >= 4);
    track.kill_all(LIMIT).unwrap();
    assert_eq!(wait(&running.process), Exit::Signal(Signal::KILL));
    track.remove().unwrap();
    assert_eq!(group.pids().unwrap().into_iter().collect::<Vec<_>>(), [main.pid]);
}

fn terminals() {
    let mut world = World::new();
    let mut plan = world.plan(
        "tty; echo to-tty > /dev/tty; echo console > /dev/console; test -t 2 && echo all-tty; read x; echo got-$x; sleep 1000",
    );
    plan.process.tty = true;
    let (created, _) = world.create(&plan).unwrap();
    let (main, console) = created.start().unwrap();
    let console = console.unwrap();
    let read_until = |console: &std::os::fd::OwnedFd, end: &str| {
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.contains(end) {
            process::readable(console.as_fd(), LIMIT).unwrap_or_else(|error| panic!("{error} after {text:?}"));
            let length = rustix::io::read(console, &mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        text
    };
    let text = read_until(&console, "all-tty\r\n");
    for word in ["/dev/pts/0\r\n", "to-tty\r\n", "console\r\n"] {
        assert!(text.contains(word), "{text:?}");
    }
    rustix::io::write(&console, b"hello\n").unwrap();
    read_until(&console, "got-hello");

    let mut plan = world.exec_plan("tty; id -u");
    plan.process = shell("tty; stat -c %u $(tty); sleep 1000");
    plan.process.tty = true;
    plan.process.uid = 1000;
    let second = exec(world.env(), main.as_fd(), &plan, Stdio::Terminal).unwrap();
    let text = read_until(second.console.as_ref().unwrap(), "1000\r\n");
    assert!(text.contains("/dev/pts/1\r\n"), "{text:?}");
    // Hanging up kills what is in the foreground.
    drop(second.console);
    assert_eq!(wait(&second.process), Exit::Signal(Signal::from_number(1).unwrap()));
    process::signal(&main, Signal::KILL).unwrap();
    wait(&main);

    let mut plan = world.plan("true");
    plan.process.tty = true;
    plan.mounts.retain(|mount| !mount.target.starts_with("/dev"));
    assert_eq!(world.refused(&plan), "make terminal: the plan has no /dev");
}

fn containers_die_with_their_supervisor() {
    use sys::process::Fork;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let Fork::Parent(supervisor) = process::fork(sys::ns::New::empty(), None).unwrap() else {
        let mut world = World::new();
        let mut plan = world.plan("sleep 1000");
        plan.process.uid = 1000;
        let (main, _pipes) = world.start(&plan).unwrap();
        let line = format!("{} {} {}\n", main.pid.as_raw_nonzero(), world.base, world.dir.path().display());
        rustix::io::write(&write, line.as_bytes()).unwrap();
        std::thread::sleep(LIMIT);
        process::exit_now(1);
    };
    drop(write);
    let mut buffer = [0; 4096];
    process::readable(read.as_fd(), LIMIT).unwrap();
    let length = rustix::io::read(&read, &mut buffer).unwrap();
    let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let words: Vec<&str> = line.trim().split(' ').collect();
    let main = process::open(process::Pid::from_raw(words[0].parse().unwrap()).unwrap()).unwrap();
    process::signal(&supervisor, Signal::KILL).unwrap();
    wait(&supervisor);
    process::readable(main.as_fd(), LIMIT).unwrap();
    let group = Group::new(&sys::cgroup::Hierarchies::detect().unwrap(), words[1]).unwrap();
    group.kill_all(LIMIT).unwrap();
    group.remove().unwrap();
    fs::remove_dir_all(words[2]).unwrap();
}

fn ex_12_absurd_plans_are_refused() {
    let mut world = World::new();
    let mut plan = world.plan("true");
    plan.mounts.push(crate::world::mount(
        &"/x".repeat(40_000),
        model::plan::MountKind::Tmpfs { size: None, mode: 0o755 },
        NO_FLAGS,
    ));
    assert!(world.refused(&plan).ends_with("file name too long"));
    let mut plan = world.plan("true");
    plan.process.args.push("x".repeat(1 << 20));
    let error = world.start(&plan).map(|_| ()).unwrap_err();
    assert_eq!((error.exit_code, error.message.as_str()), (128, "exec \"sh\": argument list too long"));
    let mut plan = world.plan("true");
    plan.process.env.push(b"NO_VALUE".to_vec().into());
    assert_eq!(world.refused(&plan), "environment: an entry is not NAME=value");
    let mut plan = world.plan("true");
    plan.process.cwd = "relative".to_owned();
    assert_eq!(world.refused(&plan), "working directory \"relative\": is not an absolute path");
    let mut plan = world.plan("true");
    plan.process.seccomp = Some(vec![0; 7].into());
    assert_eq!(world.refused(&plan), "install seccomp filter: invalid argument");
    assert_eq!(process::try_wait_any(), Err(Errno::CHILD), "every failed creation has been collected");
}
