//! System call names and numbers, per architecture. Data only, taken from the kernel's headers.

#[rustfmt::skip]
mod aarch64;
#[rustfmt::skip]
mod arm;
#[rustfmt::skip]
mod i386;
#[rustfmt::skip]
mod x32;
#[rustfmt::skip]
mod x86_64;

use crate::Arch;

/// The bit that marks a system call of x32 (`__X32_SYSCALL_BIT`).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// Where the private system calls of arm begin (`__ARM_NR_BASE`).
pub(crate) const ARM_PRIVATE: u32 = 0x000f_0000;

fn find(table: &[(&str, u32)], name: &str) -> Option<u32> {
    table.binary_search_by_key(&name, |(known, _)| known).ok().map(|at| table[at].1)
}

/// The number of a system call on an architecture; `None`: it has none of that name.
pub(crate) fn number(arch: Arch, name: &str) -> Option<u32> {
    match arch {
        Arch::X86_64 => find(x86_64::X86_64, name),
        Arch::I386 => find(i386::I386, name),
        Arch::Aarch64 => find(aarch64::AARCH64, name),
        Arch::Arm => find(arm::ARM, name),
        Arch::X32 if x32::ABSENT.contains(&name) => None,
        Arch::X32 => find(x32::OWN, name).or_else(|| find(x86_64::X86_64, name)).map(|number| number | X32_BIT),
    }
}

/// Every name of an architecture, for tests over the whole grid.
#[cfg(test)]
pub(crate) fn names(arch: Arch) -> Vec<&'static str> {
    let table = match arch {
        Arch::X86_64 | Arch::X32 => x86_64::X86_64,
        Arch::I386 => i386::I386,
        Arch::Aarch64 => aarch64::AARCH64,
        Arch::Arm => arm::ARM,
    };
    table.iter().map(|(name, _)| *name).filter(|name| number(arch, name).is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_so_that_every_name_is_found() {
        for table in [x86_64::X86_64, i386::I386, aarch64::AARCH64, arm::ARM, x32::OWN] {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0));
            assert!(table.iter().all(|(name, expected)| find(table, name) == Some(*expected)));
        }
    }

    #[test]
    fn well_known_numbers() {
        for (arch, name, expected) in [
            (Arch::X86_64, "read", Some(0)),
            (Arch::X86_64, "clone3", Some(435)),
            (Arch::X86_64, "socketcall", None),
            (Arch::I386, "read", Some(3)),
            (Arch::I386, "socketcall", Some(102)),
            (Arch::I386, "socket", Some(359)),
            (Arch::Aarch64, "read", Some(63)),
            (Arch::Aarch64, "open", None),
            (Arch::Arm, "read", Some(3)),
            (Arch::Arm, "set_tls", Some(0x000f_0005)),
            (Arch::X32, "read", Some(X32_BIT)),
            (Arch::X32, "ioctl", Some(X32_BIT | 514)),
            (Arch::X32, "set_thread_area", None),
        ] {
            assert_eq!(number(arch, name), expected, "{arch:?} {name}");
        }
    }
}
