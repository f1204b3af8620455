//! The kernel's side for tests: checks a program as seccomp_check_filter does, and runs it on a call.

use crate::bpf::{AND, Insn, JA, JEQ, JGE, JGT, LD, RET};

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) arch: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            // The instruction pointer, 8 to 15, is of no interest to any program of ours.
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
            }
            _ => panic!("load at {offset}"),
        }
    }
}

pub(crate) fn decode(bytes: &[u8]) -> Vec<Insn> {
    assert_eq!(bytes.len() % 8, 0);
    let insn = |b: &[u8]| Insn {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    };
    bytes.chunks_exact(8).map(insn).collect()
}

/// What the kernel's verifier demands (bpf_check_classic, seccomp_check_filter).
pub(crate) fn verify(program: &[Insn]) {
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    for (at, insn) in program.iter().enumerate() {
        let rest = program.len() - at - 1;
        match insn.code {
            LD => assert!(insn.k < 64 && insn.k.is_multiple_of(4), "load of {}", insn.k),
            JA => assert!((insn.k as usize) < rest, "jump out"),
            JEQ | JGT | JGE => assert!(usize::from(insn.jt) < rest && usize::from(insn.jf) < rest, "jump out"),
            AND | RET => {}
            other => panic!("instruction {other:#x}"),
        }
    }
    assert_eq!(program.last().unwrap().code, RET);
}

pub(crate) fn run(program: &[Insn], call: &Call) -> u32 {
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let insn = program[at];
        at += 1;
        let skip = |holds: bool| usize::from(if holds { insn.jt } else { insn.jf });
        match insn.code {
            LD => accumulator = call.word(insn.k),
            AND => accumulator &= insn.k,
            JA => at += insn.k as usize,
            JEQ => at += skip(accumulator == insn.k),
            JGT => at += skip(accumulator > insn.k),
            JGE => at += skip(accumulator >= insn.k),
            RET => return insn.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}
