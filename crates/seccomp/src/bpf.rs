//! The program itself: classic BPF over `struct seccomp_data` (linux/filter.h, linux/seccomp.h).

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

fn insn(code: u16, k: u32) -> Insn {
    Insn { code, jt: 0, jf: 0, k }
}

fn ret(action: Action) -> Insn {
    insn(RET, action.code())
}

/// One block per audit token; anything else is killed: a filter that does not know the numbers cannot judge them.
pub(crate) fn program(blocks: &[(u32, Ranges)]) -> Vec<Insn> {
    let mut program = vec![insn(LD, ARCH)];
    for (token, ranges) in blocks {
        let mut body = vec![insn(LD, NUMBER)];
        tree(ranges, &mut body);
        skip_unless(JEQ, *token, body, &mut program);
    }
    program.push(ret(Action::KillProcess));
    program
}

/// The body, jumped over unless the comparison holds. A conditional jump reaches 255 instructions, `JA` all of them.
fn skip_unless(code: u16, k: u32, body: Vec<Insn>, program: &mut Vec<Insn>) {
    match u8::try_from(body.len()) {
        Ok(jf) => program.push(Insn { code, jt: 0, jf, k }),
        Err(_) => {
            program.push(Insn { code, jt: 1, jf: 0, k });
            program.push(insn(JA, u32::try_from(body.len()).unwrap_or(u32::MAX)));
        }
    }
    program.extend(body);
}

/// A balanced search for the range that holds the number in the accumulator.
fn tree(ranges: &[(u32, Decision)], program: &mut Vec<Insn>) {
    match ranges {
        [] => {}
        [(_, decision)] => leaf(decision, program),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let mut body = Vec::new();
            tree(high, &mut body);
            skip_unless(JGE, high[0].0, body, program);
            tree(low, program);
        }
    }
}

fn leaf(decision: &Decision, program: &mut Vec<Insn>) {
    for (conditions, action) in &decision.alternatives {
        alternative(conditions, *action, program);
    }
    program.push(ret(decision.otherwise));
}

/// Where a jump of a condition goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Next,
    /// The condition holds: after its last instruction.
    Pass,
    /// It does not: after the alternative's last instruction.
    Fail,
}

struct Draft {
    insn: Insn,
    /// Where to if the comparison holds, and if not; absent for other instructions.
    to: Option<(To, To)>,
    /// Index just after the condition that this belongs to.
    end: usize,
}

/// `if all conditions hold { return action }`, else falls through.
fn alternative(conditions: &[Condition], action: Action, program: &mut Vec<Insn>) {
    let mut drafts: Vec<Draft> = Vec::new();
    for condition in conditions {
        let start = drafts.len();
        drafts.extend(check(*condition).into_iter().map(|(insn, to)| Draft { insn, to, end: 0 }));
        let end = drafts.len();
        drafts[start..].iter_mut().for_each(|draft| draft.end = end);
    }
    let after = drafts.len() + 1;
    for (at, draft) in drafts.into_iter().enumerate() {
        // At most six conditions of eight instructions each: the distances fit.
        let distance = |to| match to {
            To::Next => 0,
            To::Pass => u8::try_from(draft.end - at - 1).expect("a condition is short"),
            To::Fail => u8::try_from(after - at - 1).expect("six conditions are short"),
        };
        let (jt, jf) = draft.to.map_or((0, 0), |(yes, no)| (distance(yes), distance(no)));
        program.push(Insn { jt, jf, ..draft.insn });
    }
    program.push(ret(action));
}

type Step = (Insn, Option<(To, To)>);

/// One comparison of 64 bits, as comparisons of the halves.
fn check(condition: Condition) -> Vec<Step> {
    use To::{Fail, Next, Pass};
    let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
    let (high_mask, low_mask) = ((condition.mask >> 32) as u32, condition.mask as u32);
    let offset = ARGS + 8 * u32::from(condition.index);
    let mut steps = Vec::new();
    // `less` and `more` are where to go when the high half alone decides; equal halves go on to the low half.
    let (less, more, code, yes, no) = match condition.op {
        Op::Eq => (Fail, Fail, JEQ, Pass, Fail),
        Op::Ne => (Pass, Pass, JEQ, Fail, Pass),
        Op::Gt => (Fail, Pass, JGT, Pass, Fail),
        Op::Ge => (Fail, Pass, JGE, Pass, Fail),
        Op::Lt => (Pass, Fail, JGE, Fail, Pass),
        Op::Le => (Pass, Fail, JGT, Fail, Pass),
    };
    load(offset + 4, high_mask, &mut steps);
    if less == more {
        steps.push((insn(JEQ, high), Some((Next, less))));
    } else {
        steps.push((insn(JGT, high), Some((more, Next))));
        steps.push((insn(JEQ, high), Some((Next, less))));
    }
    load(offset, low_mask, &mut steps);
    steps.push((insn(code, low), Some((yes, no))));
    steps
}

/// Loads half an argument. A half that is masked out completely is loaded all the same: it is rare, and one form of
/// code is easier to trust than two.
fn load(offset: u32, mask: u32, steps: &mut Vec<Step>) {
    steps.push((insn(LD, offset), None));
    if mask != u32::MAX {
        steps.push((insn(AND, mask), None));
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
