//! Device rules of cgroup v2: a BPF program that we write ourselves, one comparison after the other
//! (Documentation/admin-guide/cgroup-v2.rst, "Device controller"; linux/bpf.h).

use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

use super::{Access, DeviceKind, DeviceRule};
use crate::{Context, Error, process::last_errno};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_PROG_QUERY: libc::c_long = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of groups below may be attached too (a systemd in the container); all have to agree.
const ALLOW_MULTI: u32 = 2;
const MAX_ATTACHED: usize = 64;

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_U32: u8 = 0x61;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
/// 32 bits wide, so that a number above 2^31 is not sign-extended.
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

const fn op(code: u8, to: u8, from: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset: 0, immediate }
}

/// Registers: r1 the request, then scratch; r2 kind, r3 access, r4 major, r5 minor.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let load = |to, offset| Instruction { offset, ..op(LOAD_U32, to, 1, 0) };
    // struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor.
    let mut code = vec![load(2, 0), op(COPY, 3, 2, 0), op(AND, 2, 0, 0xffff), op(SHIFT_RIGHT, 3, 0, 16), load(4, 4), load(5, 8)];
    for rule in rules {
        let checks = checks(rule);
        let length = checks.len();
        for (place, mut check) in checks.into_iter().enumerate() {
            if check.code == JUMP_UNLESS_EQUAL {
                // Over the rest of the checks and the two instructions that allow.
                check.offset = i16::try_from(length - place - 1 + 2).unwrap_or(i16::MAX);
            }
            code.push(check);
        }
        code.extend([op(SET, 0, 0, 1), op(EXIT, 0, 0, 0)]);
        if length == 0 {
            // Everything is allowed. The verifier refuses instructions that are never reached, so nothing may follow.
            return code;
        }
    }
    code.extend([op(SET, 0, 0, 0), op(EXIT, 0, 0, 0)]);
    code
}

fn checks(rule: &DeviceRule) -> Vec<Instruction> {
    let mut checks = Vec::new();
    match rule.kind {
        DeviceKind::Any => {}
        DeviceKind::Block => checks.push(op(JUMP_UNLESS_EQUAL, 2, 0, 1)),
        DeviceKind::Character => checks.push(op(JUMP_UNLESS_EQUAL, 2, 0, 2)),
    }
    if rule.access != Access::ALL {
        let denied = i32::from(!rule.access.mknod) | i32::from(!rule.access.read) << 1 | i32::from(!rule.access.write) << 2;
        checks.extend([op(COPY, 1, 3, 0), op(AND, 1, 0, denied), op(JUMP_UNLESS_EQUAL, 1, 0, 0)]);
    }
    checks.extend(rule.major.map(|major| op(JUMP_UNLESS_EQUAL, 4, 0, major.cast_signed())));
    checks.extend(rule.minor.map(|minor| op(JUMP_UNLESS_EQUAL, 5, 0, minor.cast_signed())));
    checks
}

/// Attaches a program for the rules, then takes the ones away that were there: at no time is everything allowed.
pub(super) fn attach(group: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, group, flags, Mode::empty()).during(|| format!("open({group:?})"))?;
    let before = attached(&directory).during(|| format!("bpf(PROG_QUERY, {group:?})"))?;
    let new = load(&program(rules)).during(|| "bpf(PROG_LOAD, CGROUP_DEVICE)".to_owned())?;
    attachment(BPF_PROG_ATTACH, &directory, &new).during(|| format!("bpf(PROG_ATTACH, {group:?})"))?;
    for id in before {
        let old = bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut [id, 0, 0]).during(|| format!("bpf(PROG_GET_FD_BY_ID, {id})"))?;
        attachment(BPF_PROG_DETACH, &directory, &old).during(|| format!("bpf(PROG_DETACH, {group:?})"))?;
    }
    Ok(())
}

fn attachment(command: libc::c_long, directory: &OwnedFd, program: &OwnedFd) -> Result<(), Errno> {
    let flags = if command == BPF_PROG_ATTACH { ALLOW_MULTI } else { 0 };
    let fd = |fd: &OwnedFd| fd.as_raw_fd().cast_unsigned();
    bpf(command, &mut [fd(directory), fd(program), ATTACH_CGROUP_DEVICE, flags]).map(|_| ())
}

/// Ids of the device programs attached to the group itself.
fn attached(directory: &OwnedFd) -> Result<Vec<u32>, Errno> {
    let mut ids = [0u32; MAX_ATTACHED];
    let [low, high] = halves(ids.as_mut_ptr() as u64);
    let count = u32::try_from(MAX_ATTACHED).unwrap_or(u32::MAX);
    let mut query = [directory.as_raw_fd().cast_unsigned(), ATTACH_CGROUP_DEVICE, 0, 0, low, high, count, 0];
    bpf(BPF_PROG_QUERY, &mut query)?;
    Ok(ids[..(query[6] as usize).min(MAX_ATTACHED)].to_vec())
}

fn load(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let [code_low, code_high] = halves(program.as_ptr() as u64);
    let [licence_low, licence_high] = halves(c"Apache-2.0".as_ptr() as u64);
    let count = u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    // prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags.
    let mut request = [PROG_TYPE_CGROUP_DEVICE, count, code_low, code_high, licence_low, licence_high, 0, 0, 0, 0, 0, 0];
    bpf_fd(BPF_PROG_LOAD, &mut request)
}

/// A 64-bit field of `union bpf_attr` in 32-bit words, native endian.
fn halves(value: u64) -> [u32; 2] {
    let bytes = value.to_ne_bytes();
    [u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])]
}

fn bpf_fd(command: libc::c_long, request: &mut [u32]) -> Result<OwnedFd, Errno> {
    let fd = bpf(command, request)?;
    #[allow(unsafe_code, reason = "bpf hands descriptors over as numbers")]
    // SAFETY: only called with commands whose result is a new descriptor (PROG_LOAD, PROG_GET_FD_BY_ID); nobody else
    // owns it. BPF descriptors are close-on-exec from the start.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `request` is the start of `union bpf_attr` for the command.
fn bpf(command: libc::c_long, request: &mut [u32]) -> Result<i32, Errno> {
    // bpf(2) wants the 64-bit fields aligned; a copy in u64 cells has that.
    let mut cells: Vec<u64> =
        request.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 32).collect();
    #[cfg(target_endian = "big")]
    compile_error!("the cells above are laid out for little-endian machines");
    #[allow(unsafe_code, reason = "no library in use wraps bpf(2)")]
    // SAFETY: the pointer and size are of a live, initialised, 8-byte aligned buffer; pointers inside of it were made by
    // the callers in this file from live slices of the length they say, and the kernel writes only into the ids of
    // PROG_QUERY, which are a mutable array.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, cells.as_mut_ptr(), size_of_val(request)) };
    if result < 0 {
        return Err(last_errno());
    }
    for (pair, cell) in request.chunks_mut(2).zip(&cells) {
        let words = [*cell as u32, (*cell >> 32) as u32];
        pair.copy_from_slice(&words[..pair.len()]);
    }
    i32::try_from(result).map_err(|_| Errno::RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do with the program.
    fn allows(code: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0u64; 11], 0usize);
        loop {
            let i = code[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            match i.code {
                LOAD_U32 => registers[to] = context[usize::try_from(i.offset).unwrap() / 4].into(),
                COPY => registers[to] = registers[from],
                SET => registers[to] = u64::try_from(i.immediate).unwrap(),
                AND => registers[to] &= u64::try_from(i.immediate).unwrap(),
                SHIFT_RIGHT => registers[to] >>= i.immediate,
                JUMP_UNLESS_EQUAL if registers[to] as u32 != i.immediate.cast_unsigned() => {
                    at += usize::try_from(i.offset).unwrap();
                }
                JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("code {other:#x}"),
            }
        }
    }

    #[test]
    fn ex_25_only_what_is_listed_is_allowed() {
        let read_only = Access { read: true, write: false, mknod: false };
        let disk = DeviceRule { kind: DeviceKind::Block, major: Some(8), minor: None, access: read_only };
        let big = DeviceRule { kind: DeviceKind::Any, major: None, minor: Some(0xffff_fff0), access: Access::ALL };
        let code = program(&[DeviceRule::standard(), vec![disk, big]].concat());
        let (block, character, mknod, read, write) = (1, 2, 1, 2, 4);
        assert!(allows(&code, character, read | write | mknod, 1, 3));
        assert!(allows(&code, character, read, 136, 77));
        assert!(!allows(&code, character, read, 1, 1), "/dev/mem");
        assert!(!allows(&code, block, read, 1, 3), "a block device with null's numbers");
        assert!(allows(&code, block, read, 8, 5));
        assert!(!allows(&code, block, read | write, 8, 5));
        assert!(!allows(&code, block, mknod, 8, 5));
        assert!(allows(&code, block, write, 9, 0xffff_fff0));
        assert!(!allows(&program(&[]), character, read, 1, 3));
        assert!(allows(&program(&[DeviceRule::ALL]), block, 7, 8, 0));
    }
}
