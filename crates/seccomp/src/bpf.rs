//! The program itself: classic BPF over `struct seccomp_data` (linux/filter.h, linux/seccomp.h).

use std::collections::HashMap;

use crate::{
    Error,
    compile::Ranges,
    policy::{Action, Condition, Decision, Op},
};

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Insn {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

pub(crate) const LD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(crate) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(crate) const JA: u16 = 0x05; // BPF_JMP | BPF_JA
pub(crate) const JEQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(crate) const JGT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(crate) const JGE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(crate) const RET: u16 = 0x06; // BPF_RET | BPF_K

const MAX_INSNS: usize = 4096;
/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// Where to go: a verdict, or code that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Verdict(Action),
    /// An index into the program as it is built, which is backwards.
    Code(usize),
}

/// One block per audit token; anything else is killed: a filter that does not know the numbers cannot judge them.
pub(crate) fn program(blocks: &[(u32, Ranges)]) -> Vec<Insn> {
    let mut builder = Builder::default();
    let mut entry = Target::Verdict(Action::KillProcess);
    for (token, ranges) in blocks.iter().rev() {
        let mut block = builder.tree(ranges);
        if let Target::Code(_) = block {
            block = builder.push(LD, NUMBER);
        }
        entry = builder.jump(JEQ, *token, block, entry);
    }
    match entry {
        Target::Verdict(action) => builder.push(RET, action.code()),
        Target::Code(_) => builder.push(LD, ARCH),
    };
    builder.reversed.reverse();
    builder.reversed
}

/// Builds a program from its end, so that every jump knows its target and verdicts are shared: size is start-up time,
/// because the kernel checks, compiles and tries the program when it is installed.
#[derive(Default)]
struct Builder {
    reversed: Vec<Insn>,
    /// The latest instruction that gives a verdict, by its value.
    verdicts: HashMap<u32, usize>,
}

impl Builder {
    /// An instruction before all the others; it goes on with the one that was the first until now.
    fn push(&mut self, code: u16, k: u32) -> Target {
        self.reversed.push(Insn { code, jt: 0, jf: 0, k });
        Target::Code(self.reversed.len() - 1)
    }

    /// A comparison before all the others.
    fn jump(&mut self, code: u16, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        // One more instruction may come between the first target and the comparison.
        let yes = self.within_reach(yes, 1);
        let no = self.within_reach(no, 0);
        let here = self.reversed.len();
        let distance = |target: usize| u8::try_from(here - 1 - target).expect("both targets were brought within reach");
        self.reversed.push(Insn { code, jt: distance(yes), jf: distance(no), k });
        Target::Code(here)
    }

    /// An instruction that leads to `target` and that a comparison `later` instructions on can jump to: conditional
    /// jumps reach 255 instructions, `JA` all.
    fn within_reach(&mut self, target: Target, later: usize) -> usize {
        let next = self.reversed.len();
        let reachable = |index: usize| next + later - 1 - index <= usize::from(u8::MAX);
        match target {
            Target::Code(index) if reachable(index) => index,
            Target::Code(index) => {
                let distance = u32::try_from(next - 1 - index).unwrap_or(u32::MAX);
                self.push(JA, distance);
                next
            }
            Target::Verdict(action) => match self.verdicts.get(&action.code()) {
                Some(index) if reachable(*index) => *index,
                Some(_) | None => {
                    self.push(RET, action.code());
                    self.verdicts.insert(action.code(), next);
                    next
                }
            },
        }
    }

    /// A balanced search for the range that holds the number in the accumulator.
    fn tree(&mut self, ranges: &[(u32, Decision)]) -> Target {
        match ranges {
            [] => Target::Verdict(Action::KillProcess),
            [(_, decision)] => self.decision(decision),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let (above, below) = (self.tree(high), self.tree(low));
                self.jump(JGE, high[0].0, above, below)
            }
        }
    }

    /// Alternatives one after the other, then the rest.
    fn decision(&mut self, decision: &Decision) -> Target {
        let mut next = Target::Verdict(decision.otherwise);
        for (conditions, action) in decision.alternatives.iter().rev() {
            let fail = next;
            let pass = Target::Verdict(*action);
            next = conditions.iter().rev().fold(pass, |pass, condition| self.check(*condition, pass, fail));
        }
        next
    }

    /// One comparison of 64 bits, as comparisons of the halves.
    fn check(&mut self, condition: Condition, pass: Target, fail: Target) -> Target {
        if pass == fail {
            return pass;
        }
        let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
        let (high_mask, low_mask) = ((condition.mask >> 32) as u32, condition.mask as u32);
        let offset = ARGS + 8 * u32::from(condition.index);
        // `less` and `more` are where to go when the high half alone decides; equal halves go on to the low half.
        let (less, more, code, yes, no) = match condition.op {
            Op::Eq => (fail, fail, JEQ, pass, fail),
            Op::Ne => (pass, pass, JEQ, fail, pass),
            Op::Gt => (fail, pass, JGT, pass, fail),
            Op::Ge => (fail, pass, JGE, pass, fail),
            Op::Lt => (pass, fail, JGE, fail, pass),
            Op::Le => (pass, fail, JGT, fail, pass),
        };
        self.jump(code, low, yes, no);
        let equal = self.load(offset, low_mask);
        // A high half that is masked out is zero and needs no look.
        if high_mask == 0 {
            return match high {
                0 => equal,
                _ => less,
            };
        }
        let not_more = self.jump(JEQ, high, equal, less);
        if less != more {
            self.jump(JGT, high, more, not_more);
        }
        self.load(offset + 4, high_mask)
    }

    /// Half an argument, masked, for what comes next.
    fn load(&mut self, offset: u32, mask: u32) -> Target {
        if mask != u32::MAX {
            self.push(AND, mask);
        }
        self.push(LD, offset)
    }
}

/// The program's bytes.
pub(crate) fn encode(program: &[Insn]) -> Result<Vec<u8>, Error> {
    if program.len() > MAX_INSNS {
        return Err(Error::TooLong(program.len()));
    }
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for insn in program {
        bytes.extend(insn.code.to_ne_bytes());
        bytes.extend([insn.jt, insn.jf]);
        bytes.extend(insn.k.to_ne_bytes());
    }
    Ok(bytes)
}
