//! What profiles mean: operators, combination, architectures, docker's form, errors.

use super::*;

fn profile(default: &str, syscalls: &str) -> String {
    format!(r#"{{"defaultAction":"{default}","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[{syscalls}]}}"#)
}

fn rule(names: &str, action: &str, args: &str) -> String {
    format!(r#"{{"names":["{names}"],"action":"SCMP_ACT_{action}","args":[{args}]}}"#)
}

fn arg(index: u32, op: &str, value: u64, two: u64) -> String {
    format!(r#"{{"index":{index},"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}"#)
}

#[test]
fn every_operator_on_the_corners_of_64_bits() {
    let corners = |v: u64| {
        let mut all = vec![0, 1, u64::MAX, u64::MAX - 1, 1 << 32, (1 << 32) - 1, 1 << 63];
        for base in [v, v ^ (1 << 32), v & 0xffff_ffff, v & !0xffff_ffff, v.rotate_left(32)] {
            all.extend([base, base.wrapping_add(1), base.wrapping_sub(1)]);
        }
        all
    };
    for value in [0, 1, 5, u64::MAX, 1 << 32, (1 << 32) - 1, 0x1_0000_0005, 0x7fff_ffff_ffff_ffff, 1 << 63] {
        for op in ["EQ", "NE", "LT", "LE", "GE", "GT"] {
            for index in 0..6 {
                let program = Program::json(&profile("SCMP_ACT_ERRNO", &rule("mmap", "ALLOW", &arg(index, op, value, 0))));
                for tried in corners(value) {
                    let mut args = [0; 6];
                    args[index as usize] = tried;
                    let expected = match op {
                        "EQ" => tried == value,
                        "NE" => tried != value,
                        "LT" => tried < value,
                        "LE" => tried <= value,
                        "GE" => tried >= value,
                        _ => tried > value,
                    };
                    let got = program.ask(Arch::X86_64, 9, args);
                    assert_eq!(got, if expected { ALLOW } else { errno(1) }, "{tried:#x} {op} {value:#x}");
                }
            }
        }
    }
}

#[test]
fn masked_comparison_has_the_mask_in_value_and_the_rest_in_value_two() {
    let program = Program::json(&profile("SCMP_ACT_ERRNO", &rule("clone", "ALLOW", &arg(0, "MASKED_EQ", 0xf0_0000_00f0, 0x10))));
    for (flags, expected) in [(0x10, true), (0x1f, true), (0x20, false), (0x10_0000_0010, false), (0x0f_0000_0010, true)] {
        assert_eq!(program.name(Arch::X86_64, "clone", &[flags]) == ALLOW, expected, "{flags:#x}");
    }
}

#[test]
fn conditions_are_and_unless_an_argument_occurs_twice() {
    let both = format!("{},{}", arg(0, "EQ", 1, 0), arg(1, "EQ", 2, 0));
    let program = Program::json(&profile("SCMP_ACT_ERRNO", &rule("ioctl", "ALLOW", &both)));
    for (args, expected) in [([1, 2], true), ([1, 0], false), ([0, 2], false)] {
        assert_eq!(program.name(Arch::X86_64, "ioctl", &args) == ALLOW, expected, "{args:?}");
    }
    let twice = format!("{},{},{}", arg(0, "EQ", 1, 0), arg(0, "EQ", 3, 0), arg(1, "EQ", 2, 0));
    let program = Program::json(&profile("SCMP_ACT_ERRNO", &rule("ioctl", "ALLOW", &twice)));
    for (args, expected) in [([1, 0], true), ([3, 0], true), ([0, 2], true), ([0, 0], false)] {
        assert_eq!(program.name(Arch::X86_64, "ioctl", &args) == ALLOW, expected, "{args:?}");
    }
}

#[test]
fn the_particular_goes_before_the_general_and_the_strict_before_the_lax() {
    let rules = [
        rule("socket", "ALLOW", ""),
        rule("socket", "ERRNO", &arg(0, "EQ", 38, 0)),
        rule("socket", "KILL_PROCESS", &arg(1, "EQ", 9, 0)),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let text: Vec<_> = order.iter().map(|at: &usize| rules[*at].clone()).collect();
        let program = Program::json(&profile("SCMP_ACT_ERRNO", &text.join(",")));
        assert_eq!(program.name(Arch::X86_64, "socket", &[1]), ALLOW);
        assert_eq!(program.name(Arch::X86_64, "socket", &[38]), errno(1));
        assert_eq!(program.name(Arch::X86_64, "socket", &[38, 9]), KILL_PROCESS);
    }
}

#[test]
fn every_action_gives_its_code() {
    for (action, code) in [
        ("KILL", 0),
        ("KILL_THREAD", 0),
        ("KILL_PROCESS", KILL_PROCESS),
        ("TRAP", 0x0003_0000),
        ("ERRNO", errno(1)),
        ("TRACE", 0x7ff0_0001),
        ("LOG", 0x7ffc_0000),
        ("ALLOW", ALLOW),
    ] {
        let other = if action == "ALLOW" { "SCMP_ACT_ERRNO" } else { "SCMP_ACT_ALLOW" };
        let program = Program::json(&profile(other, &rule("read", action, "")));
        assert_eq!(program.name(Arch::X86_64, "read", &[]), code, "{action}");
        let program = Program::json(&profile(&format!("SCMP_ACT_{action}"), &rule("read", "ALLOW", "")));
        assert_eq!(program.ask(Arch::Aarch64, 0, [0; 6]), KILL_PROCESS, "unknown architecture");
    }
    let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,
        "syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":77},{"names":["tee"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let program = Program::json(text);
    assert_eq!(program.name(Arch::X86_64, "read", &[]), errno(77));
    assert_eq!(program.name(Arch::X86_64, "write", &[]), errno(13));
    assert_eq!(program.name(Arch::X86_64, "tee", &[]), errno(1));
}

#[test]
fn x32_is_enosys_unless_listed_and_newer_calls_are_too() {
    let x32 = |number: u32| 0x4000_0000 | number;
    let program = Program::json(&profile("SCMP_ACT_ERRNO", &rule("read\",\"getpid", "ALLOW", "")));
    assert_eq!(program.ask(Arch::X86_64, x32(0), [0; 6]), errno(38));
    assert_eq!(program.ask(Arch::X86_64, u32::MAX, [0; 6]), errno(38));
    assert_eq!(program.ask(Arch::X86_64, 39, [0; 6]), ALLOW);
    assert_eq!(program.ask(Arch::X86_64, 38, [0; 6]), errno(1));
    assert_eq!(program.ask(Arch::X86_64, 40, [0; 6]), errno(38), "newer than getpid");
    let listed = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X32"],
        "syscalls":[{"names":["read","ioctl","execve"],"action":"SCMP_ACT_ALLOW"}]}"#;
    let program = Program::json(listed);
    assert_eq!(program.ask(Arch::X86_64, 0, [0; 6]), ALLOW, "the native architecture is always there");
    assert_eq!(program.ask(Arch::X86_64, x32(0), [0; 6]), ALLOW);
    assert_eq!(program.ask(Arch::X86_64, x32(16), [0; 6]), errno(1), "ioctl has a number of its own");
    assert_eq!(program.ask(Arch::X86_64, x32(514), [0; 6]), ALLOW);
    assert_eq!(program.ask(Arch::X86_64, x32(600), [0; 6]), errno(38));
    assert_eq!(program.ask(Arch::I386, 3, [0; 6]), KILL_PROCESS, "i386 is not listed");
    let killing = Program::json(&profile("SCMP_ACT_KILL_PROCESS", &rule("read", "ALLOW", "")));
    assert_eq!(killing.ask(Arch::X86_64, 400, [0; 6]), KILL_PROCESS, "a profile that kills keeps killing");
}

#[test]
fn i386_has_two_ways_in_and_both_are_watched() {
    let ask = |program: &Program, call, args: &[u64]| program.name(Arch::I386, call, args);
    let program = Program::json(&profile("SCMP_ACT_ERRNO", &rule("socket\",\"shmget", "ALLOW", "")));
    assert_eq!(ask(&program, "socket", &[]), ALLOW);
    assert_eq!(ask(&program, "socketcall", &[1]), ALLOW);
    assert_eq!(ask(&program, "socketcall", &[2]), errno(1));
    assert_eq!(ask(&program, "ipc", &[23]), ALLOW);
    assert_eq!(ask(&program, "ipc", &[0x1_0017]), ALLOW, "with a version");
    assert_eq!(ask(&program, "ipc", &[24]), errno(1));
    let program = Program::json(&profile("SCMP_ACT_ALLOW", &rule("socket", "ERRNO", &arg(0, "EQ", 38, 0))));
    assert_eq!(ask(&program, "socket", &[2]), ALLOW);
    assert_eq!(ask(&program, "socket", &[38]), errno(1));
    assert_eq!(ask(&program, "socketcall", &[1]), errno(1), "the family cannot be seen");
    assert_eq!(ask(&program, "socketcall", &[2]), ALLOW);
}

#[test]
fn values_are_cut_to_32_bits_where_the_kernel_reads_no_more() {
    let minus_one = arg(0, "EQ", u64::MAX, 0);
    let program = Program::json(&profile("SCMP_ACT_ERRNO", &rule("personality\",\"brk", "ALLOW", &minus_one)));
    for (arch, name, argument, allowed) in [
        (Arch::I386, "personality", 0xffff_ffff, true),
        (Arch::X86_64, "personality", 0xffff_ffff, true),
        (Arch::X86_64, "personality", u64::MAX, true),
        (Arch::X86_64, "personality", 1 << 32, false),
        (Arch::I386, "brk", 0xffff_ffff, true),
        (Arch::X86_64, "brk", 0xffff_ffff, false),
        (Arch::X86_64, "brk", u64::MAX, true),
    ] {
        assert_eq!(program.name(arch, name, &[argument]) == ALLOW, allowed, "{arch:?} {name} {argument:#x}");
    }
}

#[test]
fn an_upper_bit_does_not_get_round_a_refusal() {
    let refusals = [rule("ioctl", "ERRNO", &arg(1, "EQ", 0x5412, 0)), rule("socket", "ERRNO", &arg(0, "EQ", 38, 0))].join(",");
    let program = Program::json(&profile("SCMP_ACT_ALLOW", &refusals));
    for upper in [0, 1 << 32, 1 << 63, u64::MAX << 32] {
        assert_eq!(program.name(Arch::X86_64, "ioctl", &[0, 0x5412 | upper]), errno(1), "{upper:#x}");
        assert_eq!(program.name(Arch::X86_64, "socket", &[38 | upper]), errno(1), "{upper:#x}");
        assert_eq!(program.name(Arch::X86_64, "socket", &[2 | upper]), ALLOW);
    }
}

#[test]
fn docker_form_is_filtered_by_capability_architecture_and_kernel() {
    let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]},
                   {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
                   {"architecture":"SCMP_ARCH_RISCV64","subArchitectures":null}],
        "syscalls":[
          {"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF","CAP_SYS_ADMIN"]},"args":null,"comment":"x"},
          {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38,"excludes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
          {"names":["kcmp"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"4.8"}},
          {"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64"]},"excludes":{}},
          {"name":"write","action":"SCMP_ACT_ALLOW","includes":{"arches":["arm","arm64"]}}]}"#;
    let caps = |names: &[&str]| names.iter().map(|name| model::capability::mask(name).unwrap()).sum();
    let target = |arch, kernel, caps| Program::for_target(text, Target { arch, kernel, caps });
    let plain = target(Arch::X86_64, (6, 1), 0);
    for (name, expected) in
        [("bpf", errno(1)), ("clone3", errno(38)), ("ptrace", ALLOW), ("kcmp", errno(1)), ("read", ALLOW), ("write", errno(1))]
    {
        assert_eq!(plain.name(Arch::X86_64, name, &[]), expected, "{name}");
    }
    assert_eq!(plain.name(Arch::I386, "read", &[]), ALLOW);
    assert_eq!(plain.name(Arch::X32, "read", &[]), ALLOW);
    assert_eq!(target(Arch::X86_64, (6, 1), caps(&["BPF"])).name(Arch::X86_64, "bpf", &[]), errno(1));
    let admin = target(Arch::X86_64, (4, 7), caps(&["BPF", "SYS_ADMIN"]));
    for (name, expected) in [("bpf", ALLOW), ("clone3", errno(1)), ("ptrace", errno(1)), ("kcmp", ALLOW)] {
        assert_eq!(admin.name(Arch::X86_64, name, &[]), expected, "{name}");
    }
    let arm = target(Arch::Aarch64, (6, 1), 0);
    assert_eq!(arm.name(Arch::Aarch64, "write", &[]), ALLOW);
    assert_eq!(arm.name(Arch::Arm, "read", &[]), errno(1));
    assert_eq!(arm.name(Arch::Arm, "set_tls", &[]), errno(1));
    assert_eq!(arm.ask(Arch::X86_64, 0, [0; 6]), KILL_PROCESS);
}

#[test]
fn unknown_names_are_ignored() {
    let program = Program::json(&profile("SCMP_ACT_ERRNO", &rule("no_such_call\",\"\",\"read", "ALLOW", "")));
    assert_eq!(program.name(Arch::X86_64, "read", &[]), ALLOW);
    Program::json(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#);
    Program::json(r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":null,"architectures":null,"flags":["SECCOMP_FILTER_FLAG_LOG"]}"#);
}

#[test]
fn mistakes_are_named() {
    let act = |action: &str| format!(r#"{{"defaultAction":"{action}"}}"#);
    let one = |call: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{call}]}}"#);
    for (text, expected) in [
        (String::new(), "parse seccomp profile"),
        ("[]".into(), "parse seccomp profile"),
        ("{}".into(), "parse seccomp profile"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","sycalls":[]}"#.into(), "parse seccomp profile"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultAction":"SCMP_ACT_ALLOW"}"#.into(), "parse seccomp profile"),
        ("[".repeat(100_000), "parse seccomp profile"),
        (" ".repeat(crate::MAX_PROFILE + 1), "more than"),
        (act("ALLOW"), "unknown action \"ALLOW\" of defaultAction"),
        (act(""), "unknown action"),
        (act("SCMP_ACT_NOTIFY"), "not supported"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}"#.into(), "not supported"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#.into(), "errnoRet 1 does not fit"),
        (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#.into(), "errnoRet 4096 does not fit"),
        (r#"{"defaultAction":"SCMP_ACT_ERRNO","flags":["X"]}"#.into(), "unknown flag \"X\""),
        (r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["amd64"]}"#.into(), "unknown architecture \"amd64\""),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#
                .into(),
            "both architectures and archMap",
        ),
        (one(r#"{"names":[],"action":"SCMP_ACT_ALLOW"}"#), "rule 0 must have"),
        (one(r#"{"name":"a","names":["a"],"action":"SCMP_ACT_ALLOW"}"#), "rule 0 must have"),
        (one(&rule("read", "NOTIFY", "")), "SCMP_ACT_NOTIFY of rule 0 (read)"),
        (one(&rule("read", "ALLOW", &arg(6, "EQ", 0, 0))), "argument index 6 of rule 0 (read)"),
        (one(&rule("read", "ALLOW", &arg(0, "XX", 0, 0))), "unknown operator \"SCMP_CMP_XX\""),
        (one(r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["ROOT"]}}"#), "unknown capability \"ROOT\""),
        (one(r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"5"}}"#), "minKernel \"5\""),
        (one(r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","arg":[]}"#), "parse seccomp profile"),
    ] {
        let error = crate::parse_and_compile(text.as_bytes(), &Target::native((6, 1), 0)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} should say {expected}");
        let _ = error.kind();
    }
}

#[test]
fn a_program_that_the_kernel_would_not_take_is_refused() {
    let rules: Vec<_> = (0..2000).map(|value| rule("mmap", "ALLOW", &arg(1, "EQ", value, 0))).collect();
    let text = profile("SCMP_ACT_ERRNO", &rules.join(","));
    let error = crate::parse_and_compile(text.as_bytes(), &Target::native((6, 1), 0)).map(drop).unwrap_err();
    assert!(error.to_string().contains("the kernel takes 4096"), "{error}");
}
