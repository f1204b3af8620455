//! EX-22: the default profile, over every call of every architecture and over all the corners that matter.

use super::*;
use crate::tables;

fn caps(names: &[&str]) -> u64 {
    names.iter().map(|name| model::capability::mask(name).unwrap()).sum()
}

fn program(arch: Arch, caps: u64) -> Program {
    Program::new(&crate::default_program_for(arch, caps))
}

#[test]
fn ex_22_dangerous_calls_are_refused_without_a_capability() {
    let program = program(Arch::X86_64, 0);
    for name in [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "userfaultfd",
        "perf_event_open",
        "mount",
        "umount2",
        "move_mount",
        "fsopen",
        "open_tree",
        "open_tree_attr",
        "mount_setattr",
        "open_by_handle_at",
        "unshare",
        "setns",
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "reboot",
        "swapon",
        "pivot_root",
        "chroot",
        "acct",
        "iopl",
        "ioperm",
        "quotactl",
        "syslog",
        "nfsservctl",
        "kcmp",
        "pidfd_getfd",
        "move_pages",
        "vhangup",
        "uselib",
        "ustat",
        "sysfs",
        "_sysctl",
    ] {
        for arch in [Arch::X86_64, Arch::I386] {
            let Some(number) = arch.number(name) else { continue };
            let verdict = program.ask(arch, number, [0; 6]);
            assert!(verdict == errno(1) || verdict == errno(38), "{arch:?} {name}: {verdict:#x}");
        }
    }
    assert_eq!(program.name(Arch::X86_64, "clone3", &[]), errno(38));
}

#[test]
fn ex_22_vm_and_crypto_sockets_are_refused_on_every_way() {
    let program = program(Arch::X86_64, 0);
    for upper in [0, 1 << 32, u64::MAX << 32, 1 << 63] {
        for family in 0..64 {
            let expected = if family == 38 || family == 40 { errno(1) } else { ALLOW };
            assert_eq!(program.name(Arch::X86_64, "socket", &[family | upper]), expected, "family {family} upper {upper:#x}");
        }
    }
    assert_eq!(program.name(Arch::I386, "socket", &[38]), errno(1));
    assert_eq!(program.name(Arch::I386, "socket", &[2]), ALLOW);
    assert_eq!(program.name(Arch::I386, "socketcall", &[1]), errno(38));
    assert_eq!(program.name(Arch::I386, "socketcall", &[3]), ALLOW);
}

#[test]
fn ex_22_namespaces_need_sys_admin() {
    let (plain, admin) = (program(Arch::X86_64, 0), program(Arch::X86_64, caps(&["SYS_ADMIN"])));
    for bit in 0..64 {
        let flags = 1_u64 << bit | 17;
        let namespace = matches!(bit, 17 | 25..=30);
        assert_eq!(plain.name(Arch::X86_64, "clone", &[flags]), if namespace { errno(1) } else { ALLOW }, "bit {bit}");
        assert_eq!(admin.name(Arch::X86_64, "clone", &[flags]), ALLOW);
    }
    for name in ["clone3", "unshare", "setns", "mount", "bpf"] {
        assert_eq!(admin.name(Arch::X86_64, name, &[]), ALLOW, "{name}");
    }
}

#[test]
fn ex_22_personality_x32_and_foreign_architectures() {
    let program = program(Arch::X86_64, model::capability::ALL);
    for (domain, allowed) in [(0, true), (8, true), (0x20000, true), (0x20008, true), (0xffff_ffff, true), (0x40000, false)] {
        assert_eq!(program.name(Arch::X86_64, "personality", &[domain]) == ALLOW, allowed, "{domain:#x}");
    }
    for name in tables::names(Arch::X32) {
        assert_eq!(program.name(Arch::X32, name, &[]), errno(38), "{name}");
    }
    for foreign in [Arch::Aarch64, Arch::Arm] {
        assert_eq!(program.ask(foreign, 0, [0; 6]), KILL_PROCESS);
    }
    assert_eq!(program.ask(Arch::X86_64, 470, [0; 6]), errno(38), "newer than the table");
}

/// What the kernel reads of an argument.
fn read(condition: &Condition, arch: Arch, name: &str) -> Condition {
    let int = arch.narrow() || matches!(name, "socket" | "personality" | "socketcall");
    if int { condition.narrowed() } else { *condition }
}

/// The same table read directly, without ranges, halves or jumps: the verdicts on a call for each of `grid`.
fn direct(policy: &crate::policy::Policy<'_>, arch: Arch, number: u32, grid: &[[u64; 6]]) -> Vec<u32> {
    let mine = |name: &&str| arch.number(name) == Some(number);
    let rules: Vec<_> = policy.rules.iter().filter(|rule| rule.names.iter().any(mine)).collect();
    let matching = |general: bool, args: &[u64; 6]| {
        let all = |r: &crate::policy::Rule<'_>| r.conditions.iter().all(|c| holds(&read(c, arch, r.names[0]), args));
        let hits = rules.iter().filter(|r| r.conditions.is_empty() == general && all(r));
        hits.map(|rule| rule.action).min()
    };
    let newest = policy.known.iter().filter_map(|name| arch.number(name)).filter(|n| *n < tables::ARM_PRIVATE).max().unwrap();
    let rest = if number > newest && number < tables::ARM_PRIVATE { errno(38) } else { policy.default.code() };
    grid.iter().map(|args| matching(false, args).or_else(|| matching(true, args)).map_or(rest, Action::code)).collect()
}

#[test]
fn the_whole_grid_agrees_with_the_table() {
    let corners = [0, 1, 2, 8, 17, 38, 39, 40, 41, 0x20000, 0x0200_0000, 0x7e02_0000, 0xffff_ffff, 38 << 32];
    let sets = [0, 0xa804_25fb, model::capability::ALL, caps(&["SYS_PTRACE", "BPF"])];
    for (native, archs) in [(Arch::X86_64, [Arch::X86_64, Arch::I386]), (Arch::Aarch64, [Arch::Aarch64, Arch::Arm])] {
        for caps in sets {
            let (program, policy) = (program(native, caps), crate::default::policy(native, caps));
            for arch in archs {
                // The kernel zero-extends the arguments of 32-bit callers.
                let cut = |corner: u64| if arch.narrow() { corner & 0xffff_ffff } else { corner };
                let grid = corners.map(|corner| [cut(corner), 0, 0, 0, 0, 0]);
                let multiplexed = ["socketcall", "ipc"].map(|name| arch.number(name));
                let private = tables::ARM_PRIVATE..tables::ARM_PRIVATE + 16;
                for number in (0..600).chain(if arch == Arch::Arm { private } else { 0..0 }) {
                    // The mirrored rules of i386 have tests of their own.
                    if multiplexed.contains(&Some(number)) {
                        continue;
                    }
                    let got: Vec<_> = grid.iter().map(|args| program.ask(arch, number, *args)).collect();
                    assert_eq!(got, direct(&policy, arch, number, &grid), "{arch:?} {number} caps {caps:#x}");
                }
            }
        }
    }
}

#[test]
fn programs_stay_small_for_every_set() {
    // The kernel runs the program once per call number to fill its cache, so size is start-up time.
    for native in [Arch::X86_64, Arch::Aarch64] {
        for bit in 0..41 {
            for caps in [0, model::capability::ALL, 1 << bit, model::capability::ALL & !(1 << bit)] {
                let program = program(native, caps);
                assert!(program.0.len() < 600, "{native:?} {caps:#x}: {} instructions", program.0.len());
            }
        }
    }
}
