//! What a filter shall do, free of file formats: rules about names, and how several rules about one call combine.

use crate::Arch;

/// What happens to a system call. The order is the kernel's own: of two filters the smaller one wins (seccomp(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    KillProcess,
    KillThread,
    Trap,
    Errno(u16),
    Trace(u16),
    Log,
    Allow,
}

pub(crate) const ENOSYS: u16 = 38;

impl Action {
    /// The return value of the program (linux/seccomp.h).
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trace(message) => 0x7ff0_0000 | u32::from(message),
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }

    /// The call goes through (a tracer is trusted to decide).
    pub(crate) fn permits(self) -> bool {
        match self {
            Self::Allow | Self::Log | Self::Trace(_) => true,
            Self::KillProcess | Self::KillThread | Self::Trap | Self::Errno(_) => false,
        }
    }
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Ge,
    Gt,
}

/// `(argument & mask) OP value`, on 64 bits without a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Condition {
    /// Which argument, 0 to 5.
    pub(crate) index: u8,
    pub(crate) mask: u64,
    pub(crate) op: Op,
    pub(crate) value: u64,
}

impl Condition {
    /// As the kernel means it where it reads 32 bits.
    pub(crate) fn narrowed(self) -> Self {
        let low = u64::from(u32::MAX);
        Self { mask: self.mask & low, value: self.value & low, ..self }
    }
}

/// One rule: all conditions must hold.
#[derive(Clone, Debug)]
pub(crate) struct Rule<'a> {
    pub(crate) names: Vec<&'a str>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) action: Action,
}

/// A whole filter.
#[derive(Clone, Debug)]
pub(crate) struct Policy<'a> {
    /// For calls that no rule speaks about.
    pub(crate) default: Action,
    /// The kernel's architecture first, then what else it may run.
    pub(crate) archs: Vec<Arch>,
    pub(crate) rules: Vec<Rule<'a>>,
    /// All names that the author knew of, also those of rules that do not apply here.
    pub(crate) known: Vec<&'a str>,
}

/// What to do about one system call number: alternatives in order, then the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) alternatives: Vec<(Vec<Condition>, Action)>,
    pub(crate) otherwise: Action,
}

impl Decision {
    pub(crate) fn plain(action: Action) -> Self {
        Self { alternatives: Vec::new(), otherwise: action }
    }

    /// Combines all rules about one call: a rule with conditions goes before one without, and between equals the
    /// stricter action wins. So the order of rules in a file never matters, and a general ALLOW cannot hide a
    /// particular refusal, as happens with libseccomp.
    pub(crate) fn combine(rules: &[(Vec<Condition>, Action)], default: Action) -> Self {
        let otherwise = rules.iter().filter(|(when, _)| when.is_empty()).map(|(_, action)| *action).min().unwrap_or(default);
        let mut alternatives: Vec<_> = rules.iter().filter(|(when, _)| !when.is_empty()).cloned().collect();
        alternatives.sort_by(|(a, x), (b, y)| x.cmp(y).then_with(|| a.cmp(b)));
        alternatives.dedup();
        while alternatives.last().is_some_and(|(_, action)| *action == otherwise) {
            alternatives.pop();
        }
        Self { alternatives, otherwise }
    }
}
