//! From rules about names to one decision per range of system call numbers, for each architecture.

use std::collections::BTreeMap;

use crate::{
    Arch, Error, bpf, multiplex,
    policy::{Action, Condition, Decision, ENOSYS, Policy},
    tables::{ARM_PRIVATE, X32_BIT},
    width,
};

/// Decisions for all numbers: each holds from its number up to the next one's. The first begins at zero.
pub(crate) type Ranges = Vec<(u32, Decision)>;

type Numbers = BTreeMap<u32, Vec<(Vec<Condition>, Action)>>;

/// The program: `struct sock_filter` after `struct sock_filter`, in the byte order of this machine.
pub(crate) fn compile(policy: &Policy<'_>) -> Result<Vec<u8>, Error> {
    bpf::encode(&bpf::program(&blocks(policy)))
}

/// One block per audit token.
pub(crate) fn blocks(policy: &Policy<'_>) -> Vec<(u32, Ranges)> {
    let archs = policy.archs.iter().filter(|arch| **arch != Arch::X32);
    archs.map(|arch| (arch.token(), ranges(policy, *arch))).collect()
}

fn ranges(policy: &Policy<'_>, arch: Arch) -> Ranges {
    let mut ranges = Vec::new();
    match arch {
        Arch::X86_64 => {
            zone(policy, arch, 0..X32_BIT, &mut ranges);
            if policy.archs.contains(&Arch::X32) {
                zone(policy, Arch::X32, X32_BIT..u32::MAX, &mut ranges);
            } else {
                // What a kernel without x32 says; also to -1, the number that a tracer leaves in a call it skips.
                ranges.push((X32_BIT, Decision::plain(Action::Errno(ENOSYS))));
            }
        }
        Arch::Arm => {
            zone(policy, arch, 0..ARM_PRIVATE, &mut ranges);
            ranges.push((ARM_PRIVATE, Decision::plain(policy.default)));
            push_rules(policy, arch, &(ARM_PRIVATE..u32::MAX), &mut ranges);
        }
        Arch::I386 | Arch::Aarch64 | Arch::X32 => zone(policy, arch, 0..u32::MAX, &mut ranges),
    }
    merge(ranges)
}

/// The rules about numbers within `span`, and what holds between and after them.
fn zone(policy: &Policy<'_>, arch: Arch, span: std::ops::Range<u32>, ranges: &mut Ranges) {
    ranges.push((span.start, Decision::plain(policy.default)));
    push_rules(policy, arch, &span, ranges);
    // A call that is newer than everything the author knew of gets ENOSYS, so that a C library falls back to an older
    // one instead of giving up. Only where the author wants an errno anyway; other refusals stay what they are.
    let newest = policy.known.iter().filter_map(|name| arch.number(name)).filter(|number| span.contains(number)).max();
    if let (Some(newest), Action::Errno(_)) = (newest, policy.default) {
        ranges.push((newest + 1, Decision::plain(Action::Errno(ENOSYS))));
    }
}

fn push_rules(policy: &Policy<'_>, arch: Arch, span: &std::ops::Range<u32>, ranges: &mut Ranges) {
    for (number, rules) in numbers(policy, arch).range(span.clone()) {
        ranges.push((*number, Decision::combine(rules, policy.default)));
        ranges.push((number + 1, Decision::plain(policy.default)));
    }
}

/// All rules by number. Names that the architecture does not have are left out, as everywhere in the field.
fn numbers(policy: &Policy<'_>, arch: Arch) -> Numbers {
    let mut numbers = Numbers::new();
    for rule in &policy.rules {
        for name in &rule.names {
            let conditions = as_read(&rule.conditions, arch, name);
            if arch == Arch::I386
                && let Some((way, pick)) = multiplex::mirrored(name, &conditions, rule.action)
                && let Some(number) = arch.number(way)
            {
                numbers.entry(number).or_default().push((vec![pick], rule.action));
            }
            if let Some(number) = arch.number(name) {
                numbers.entry(number).or_default().push((conditions, rule.action));
            }
        }
    }
    numbers
}

/// Conditions as wide as the kernel reads the arguments.
fn as_read(conditions: &[Condition], arch: Arch, name: &str) -> Vec<Condition> {
    let narrow = |condition: &Condition| arch.narrow() || width::is_int(name, condition.index);
    conditions.iter().map(|condition| if narrow(condition) { condition.narrowed() } else { *condition }).collect()
}

/// Leaves out what says the same as its neighbour, and of two beginnings at one number the earlier one.
fn merge(ranges: Ranges) -> Ranges {
    let mut merged: Ranges = Vec::with_capacity(ranges.len());
    for (start, decision) in ranges {
        if let Some(last) = merged.last_mut() {
            if last.0 == start {
                last.1 = decision;
                continue;
            }
            if last.1 == decision {
                continue;
            }
        }
        merged.push((start, decision));
    }
    // Replacing may have made two neighbours equal.
    merged.dedup_by(|later, earlier| later.1 == earlier.1);
    merged
}
