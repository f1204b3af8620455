//! Programs against a direct reading of the profile, on an interpreter of the kernel's instructions.

mod default;
mod kernel;
mod random;
mod rules;

use crate::{
    Arch, Target,
    interpreter::{Call, decode, run, verify},
    policy::{Action, Condition, Op},
};

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

fn errno(number: u32) -> u32 {
    0x0005_0000 | number
}

/// A verified program, to be asked.
struct Program(Vec<crate::bpf::Insn>);

impl Program {
    fn new(bytes: &[u8]) -> Self {
        let program = decode(bytes);
        verify(&program);
        Self(program)
    }

    fn json(text: &str) -> Self {
        Self::for_target(text, Target { arch: Arch::X86_64, kernel: (6, 1), caps: 0 })
    }

    fn for_target(text: &str, target: Target) -> Self {
        Self::new(&crate::parse_and_compile(text.as_bytes(), &target).unwrap_or_else(|e| panic!("{text}: {e:?}")))
    }

    fn ask(&self, arch: Arch, number: u32, args: [u64; 6]) -> u32 {
        run(&self.0, &Call { number, arch: arch.token(), args })
    }

    fn name(&self, arch: Arch, name: &str, args: &[u64]) -> u32 {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        self.ask(arch, arch.number(name).unwrap_or_else(|| panic!("no {name}")), all)
    }
}

/// The reading that a condition is measured by.
fn holds(condition: &Condition, args: &[u64; 6]) -> bool {
    let (left, right) = (args[usize::from(condition.index)] & condition.mask, condition.value);
    match condition.op {
        Op::Eq => left == right,
        Op::Ne => left != right,
        Op::Lt => left < right,
        Op::Le => left <= right,
        Op::Ge => left >= right,
        Op::Gt => left > right,
    }
}

#[test]
fn the_order_of_actions_is_the_kernels() {
    let all =
        [Action::KillProcess, Action::KillThread, Action::Trap, Action::Errno(1), Action::Trace(1), Action::Log, Action::Allow];
    // The kernel compares the action part as a signed number (seccomp_run_filters).
    assert!(all.windows(2).all(|pair| (pair[0].code() as i32) < (pair[1].code() as i32)));
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
}
