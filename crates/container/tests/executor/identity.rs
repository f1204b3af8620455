//! Who a process is, as the kernel says in /proc/self/status: the matrix of EX-14 and EX-15, and seccomp.

use std::{collections::BTreeMap, fs};

use model::plan::{Capabilities, ProcessPlan, Rlimit};

use crate::{
    Test,
    world::{DEFAULT_CAPS, World, wait},
};

pub const TESTS: &[Test] = &[
    ("ex_14_capabilities", ex_14_capabilities),
    ("ex_15_groups", ex_15_groups),
    ("ex_22_seccomp", ex_22_seccomp),
    ("limits_umask_and_oom_score", limits_umask_and_oom_score),
    ("users_may_reopen_their_output", users_may_reopen_their_output),
];

const NET_BIND: u64 = 1 << 10;
const SYS_RESOURCE: u64 = 1 << 24;

fn status(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

fn caps(status: &BTreeMap<String, String>, set: &str) -> u64 {
    u64::from_str_radix(&status[set], 16).unwrap()
}

/// Runs `change`d processes as container and as exec, and gives what they are.
fn both(change: impl Fn(&mut ProcessPlan)) -> [BTreeMap<String, String>; 2] {
    let mut world = World::new();
    let mut plan = world.plan("cat /proc/self/status; cat");
    change(&mut plan.process);
    let (main, pipes) = world.start(&plan).unwrap();
    let mut exec = world.exec_plan("cat /proc/self/status");
    change(&mut exec.process);
    let (code, output) = world.exec(&main, &exec).unwrap();
    assert_eq!(code, 0);
    let own = pipes.read();
    wait(&main);
    [status(&own), status(&output)]
}

fn ex_14_capabilities() {
    let have = sys::caps::permitted().unwrap();
    let set = |mask| Capabilities { bounding: mask, permitted: mask, ambient: 0 };
    for (name, mask) in [("default", DEFAULT_CAPS), ("none", 0), ("one", NET_BIND), ("all", u64::MAX)] {
        for uid in [0, 1000] {
            for status in both(|process| (process.capabilities, process.uid, process.gid) = (set(mask), uid, uid)) {
                let expected = if uid == 0 { mask & have } else { 0 };
                let at = format!("{name} for {uid}: {status:?}");
                assert_eq!((caps(&status, "CapInh"), caps(&status, "CapAmb")), (0, 0), "{at}");
                assert_eq!((caps(&status, "CapPrm"), caps(&status, "CapEff")), (expected, expected), "{at}");
                assert_eq!(caps(&status, "CapBnd"), mask & sys::caps::known().unwrap() & bounding(), "{at}");
                assert_eq!(status["Uid"], [uid.to_string().as_str(); 4].join(" "));
                assert_eq!(status["Gid"], [uid.to_string().as_str(); 4].join(" "));
            }
        }
    }
    // Ambient ones only where they are asked for.
    let ambient = Capabilities { bounding: NET_BIND, permitted: NET_BIND, ambient: NET_BIND };
    for status in both(|process| (process.capabilities, process.uid) = (ambient, 1000)) {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(caps(&status, set), NET_BIND, "{set}");
        }
    }
    let mut world = World::new();
    let mut plan = world.plan("true");
    plan.process.capabilities = set(u64::MAX);
    let (created, _pipes) = world.create(&plan).unwrap();
    assert_eq!(created.warnings.is_empty(), have & SYS_RESOURCE != 0, "{:?}", created.warnings);
}

/// What the machine's root has left in its bounding set.
fn bounding() -> u64 {
    caps(&status(&fs::read_to_string("/proc/self/status").unwrap()), "CapBnd")
}

fn ex_15_groups() {
    rustix::thread::set_thread_groups(&[27, 999].map(rustix::thread::Gid::from_raw)).unwrap();
    for (groups, expected) in [(vec![], "1234"), (vec![1234, 7], "7 1234"), (vec![7, 8], "7 8 1234")] {
        for status in both(|process| (process.uid, process.gid, process.groups) = (1000, 1234, groups.clone())) {
            assert_eq!(status["Groups"], expected);
        }
    }
    let mut world = World::new();
    let file = world.image().join("secret");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    std::os::unix::fs::chown(&file, Some(0), Some(1234)).unwrap();
    let mut plan = world.plan("cat /secret");
    (plan.process.uid, plan.process.gid, plan.process.groups) = (1000, 1234, vec![]);
    let (code, output) = world.run(&plan);
    assert!(code == 1 && output.contains("Permission denied"), "a group that is denied stays denied: {output}");
}

/// "mkdir(2) and mkdirat(2) say EPERM", for x86-64 and aarch64 by the number that the build has.
fn filter() -> Vec<u8> {
    let numbers: [u32; 2] = if cfg!(target_arch = "x86_64") { [83, 258] } else { [34, 34] };
    let instruction = |code: u16, jt: u8, jf: u8, k: u32| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([jt, jf]);
        bytes.extend(k.to_ne_bytes());
        bytes
    };
    [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 1, 0, numbers[0]),
        instruction(0x15, 0, 1, numbers[1]),
        instruction(0x06, 0, 0, 0x0005_0001),
        instruction(0x06, 0, 0, 0x7fff_0000),
    ]
    .concat()
}

fn ex_22_seccomp() {
    for (no_new_privs, uid) in [(false, 0), (true, 0), (false, 1000), (true, 1000)] {
        for status in both(|process| {
            (process.no_new_privs, process.uid) = (no_new_privs, uid);
            process.seccomp = Some(filter().into());
        }) {
            assert_eq!((status["Seccomp"].as_str(), status["Seccomp_filters"].as_str()), ("2", "1"));
            assert_eq!(status["NoNewPrivs"], u8::from(no_new_privs).to_string());
        }
    }
    let mut world = World::new();
    let mut plan = world.plan("mkdir /tmp/x; touch /tmp/y && echo done");
    plan.process.seccomp = Some(filter().into());
    plan.process.no_new_privs = true;
    let (_, output) = world.run(&plan);
    assert!(output.contains("Operation not permitted") && output.ends_with("done\n"), "{output}");
    // A filter that forbids nearly everything still lets the failure be told.
    plan.process.args = vec!["nosuch".to_owned()];
    assert_eq!(world.start(&plan).map(|_| ()).unwrap_err().exit_code, 127);
}

fn limits_umask_and_oom_score() {
    let mut world = World::new();
    let mut plan = world.plan("ulimit -n; ulimit -H -n; umask; cat /proc/self/oom_score_adj; ulimit -c");
    let limit = |resource, soft, hard| Rlimit { resource, soft, hard };
    plan.process.rlimits = vec![limit(7, 100, 200), limit(4, 0, 0)];
    plan.process.umask = Some(0o077);
    plan.process.oom_score_adj = Some(500);
    assert_eq!(world.run(&plan).1, "100\n200\n0077\n500\n0\n");
    assert_eq!(world.sh("umask").1, "0022\n");
    let mut plan = world.plan("cat /proc/self/oom_score_adj");
    plan.process.oom_score_adj = Some(-998);
    let (created, pipes) = world.create(&plan).unwrap();
    let refused = created.warnings.clone();
    let (main, _) = created.start().unwrap();
    wait(&main);
    let score = pipes.read();
    if score == "-998\n" {
        assert_eq!(refused, Vec::<String>::new());
    } else {
        assert_eq!(refused, ["oom_score_adj -998 is not permitted here"]);
    }
    let mut plan = world.plan("true");
    plan.process.rlimits = vec![limit(99, 1, 1)];
    assert_eq!(world.refused(&plan), "set rlimit 99 to 1:1: invalid argument");
}

fn users_may_reopen_their_output() {
    let mut world = World::new();
    let mut plan = world.plan("echo one > /dev/stdout; echo two > /proc/self/fd/2; id -u");
    plan.process.uid = 1000;
    assert_eq!(world.run(&plan), (0, "one\ntwo\n1000\n".to_owned()));
}
