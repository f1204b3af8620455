//! A seccomp profile becomes a classic BPF program: the OCI runtime spec's JSON, docker's form of it, and the engine's
//! own default profile.
//!
//! Pure: bytes in, bytes out. Hostile profiles get an error; whatever compiles is refused by no kernel.
//!
//! **Invariants.** A program ends in a verdict for every number of every architecture: unknown architectures are
//! killed, x32 is ENOSYS unless listed. How rules combine does not depend on their order in the file
//! (`policy::Decision::combine`).
#![forbid(unsafe_code)]

mod arch;
mod bpf;
mod compile;
mod default;
mod error;
#[cfg(test)]
mod interpreter;
mod multiplex;
mod oci;
mod policy;
mod profile;
mod tables;
#[cfg(test)]
mod tests;
mod width;

pub use arch::Arch;
pub use error::Error;

/// Most bytes of a profile. docker's own has 15 KiB.
pub const MAX_PROFILE: usize = 1 << 20;

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The kernel's architecture.
    pub arch: Arch,
    /// The kernel's version, major and minor.
    pub kernel: (u32, u32),
    /// The container's bounding set, a bit per capability.
    pub caps: u64,
}

impl Target {
    /// The architecture that this program was built for.
    pub fn native(kernel: (u32, u32), caps: u64) -> Self {
        Self { arch: Arch::NATIVE, kernel, caps }
    }
}

/// Compiles a JSON profile into `struct sock_filter`s of 8 bytes each, in the machine's byte order.
///
/// # Errors
/// Everything that is wrong with the profile, named; a program of more than 4096 instructions.
pub fn parse_and_compile(json: &[u8], target: &Target) -> Result<Vec<u8>, Error> {
    compile::compile(&profile::Profile::parse(json)?.policy(target)?)
}

/// The same as a document for an OCI runtime (`linux.seccomp` of its config.json): what depends on the target is decided, and
/// no call has rules whose order would matter to libseccomp.
///
/// # Errors
/// As [`parse_and_compile`], and a profile that cannot be said so.
pub fn parse_and_resolve(json: &[u8], target: &Target) -> Result<serde_json::Value, Error> {
    oci::document(&profile::Profile::parse(json)?.policy(target)?)
}

/// The engine's default profile as a document for an OCI runtime. One refusal cannot be said: libseccomp makes rules for
/// socketcall(2) of i386 out of those for socket(2) and takes none of ours beside them, so that there sockets of every
/// family can be opened by it, as with the profiles of docker and containerd.
pub fn default_document(caps: u64) -> serde_json::Value {
    let mut policy = default::policy(Arch::NATIVE, caps);
    policy.rules.retain(|rule| rule.names != ["socketcall"] || rule.conditions.is_empty());
    oci::document(&policy).expect("the default profile can be said, as tests show")
}

/// The engine's default profile (`RuntimeDefault`) for a container with this bounding set.
pub fn default_program(caps: u64) -> Vec<u8> {
    default_program_for(Arch::NATIVE, caps)
}

/// The same for another architecture than this program's.
pub fn default_program_for(arch: Arch, caps: u64) -> Vec<u8> {
    compile::compile(&default::policy(arch, caps)).expect("the default profile fits, as tests show for every set")
}
