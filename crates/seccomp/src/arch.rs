//! Architectures: their names in profiles, their audit tokens, and which ones a kernel runs together.

use crate::{Error, tables};

/// An architecture (really: a system call ABI) that this crate makes filters for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// x86_64.
    X86_64,
    /// 32-bit x86, run by x86_64 kernels.
    I386,
    /// The x32 ABI: the token of x86_64, numbers with bit 30 set.
    X32,
    /// 64-bit arm.
    Aarch64,
    /// 32-bit arm (EABI), run by many aarch64 kernels.
    Arm,
}

/// Names that libseccomp knows besides ours. Listing them changes nothing on the kernels we run on.
const FOREIGN: &[&str] = &[
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PPC",
    "PPC64",
    "PPC64LE",
    "S390",
    "S390X",
    "PARISC",
    "PARISC64",
    "RISCV64",
    "LOONGARCH64",
    "M68K",
    "SH",
    "SHEB",
];

impl Arch {
    /// The one that this program was built for.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// `SCMP_ARCH_..` of a profile; `Ok(None)`: a real architecture, of other machines.
    pub(crate) fn parse(name: &str) -> Result<Option<Self>, Error> {
        let unknown = || Error::Architecture(crate::error::cut(name));
        match name.strip_prefix("SCMP_ARCH_").ok_or_else(unknown)? {
            "X86_64" => Ok(Some(Self::X86_64)),
            "X86" => Ok(Some(Self::I386)),
            "X32" => Ok(Some(Self::X32)),
            "AARCH64" => Ok(Some(Self::Aarch64)),
            "ARM" => Ok(Some(Self::Arm)),
            bare if FOREIGN.contains(&bare) => Ok(None),
            _ => Err(unknown()),
        }
    }

    /// The name in profiles.
    pub(crate) fn oci_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::I386 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// The name that `includes` and `excludes` of docker's profiles use (GOARCH).
    pub(crate) fn go_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::I386 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// Whether a kernel of architecture `native` may run this one.
    pub(crate) fn runs_on(self, native: Self) -> bool {
        match native {
            Self::X86_64 => matches!(self, Self::X86_64 | Self::I386 | Self::X32),
            Self::Aarch64 => matches!(self, Self::Aarch64 | Self::Arm),
            Self::I386 | Self::X32 | Self::Arm => self == native,
        }
    }

    /// `AUDIT_ARCH_..` (linux/audit.h), what the kernel puts into `seccomp_data.arch`.
    pub(crate) fn token(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Arguments have 32 bits; the kernel hands them over zero-extended. x32 programs may set the upper halves of
    /// registers, but their ABI has nothing there.
    pub(crate) fn narrow(self) -> bool {
        matches!(self, Self::I386 | Self::Arm | Self::X32)
    }

    pub(crate) fn number(self, name: &str) -> Option<u32> {
        tables::number(self, name)
    }
}
