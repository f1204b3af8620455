//! Profiles as JSON files: LinuxSeccomp of the OCI runtime spec, and docker's form of it with `archMap`, `includes`
//! and `excludes`. Strict: what is not known is an error that names it, because a rule that is read wrongly is a hole.

use model::capability;
use serde::Deserialize;

use crate::{
    Arch, Error, MAX_PROFILE, Target,
    error::cut,
    policy::{Action, Condition, Op, Policy, Rule},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    // Shown to a listener; there is none.
    #[serde(rename = "listenerMetadata")]
    _listener_metadata: Option<String>,
    syscalls: Option<Vec<Call>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    #[serde(rename = "$schema")]
    _schema: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Call {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Arg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Arg {
    index: u32,
    #[serde(default)]
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Flags that change nothing about what is allowed (seccomp(2)): the supervisor has one thread, and what is logged or
/// mitigated is the node's own policy.
const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

impl Profile {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, Error> {
        if json.len() > MAX_PROFILE {
            return Err(Error::TooLarge(json.len()));
        }
        serde_json::from_slice(json).map_err(Error::Parse)
    }

    /// What the profile means on this target.
    pub(crate) fn policy(&self, target: &Target) -> Result<Policy<'_>, Error> {
        if self.listener_path.as_deref().is_some_and(|path| !path.is_empty()) {
            return Err(Error::Notify("listenerPath".into()));
        }
        if let Some(flag) = self.flags.iter().flatten().find(|flag| !FLAGS.contains(&flag.as_str())) {
            return Err(Error::Flag(cut(flag)));
        }
        let mut policy = Policy {
            default: action(&self.default_action, self.default_errno_ret, "defaultAction")?,
            archs: self.archs(target)?,
            rules: Vec::new(),
            known: Vec::new(),
        };
        for (at, call) in self.syscalls.iter().flatten().enumerate() {
            let names = call.names(at)?;
            let place = format!("rule {at} ({})", cut(names[0]));
            policy.known.extend(&names);
            let action = action(&call.action, call.errno_ret, &place)?;
            let conditions = call.args.iter().flatten().map(|arg| arg.condition(&place)).collect::<Result<Vec<_>, _>>()?;
            if !call.applies(target)? {
                continue;
            }
            for conditions in alternatives(conditions) {
                policy.rules.push(Rule { names: names.clone(), conditions, action });
            }
        }
        Ok(policy)
    }

    /// The native architecture is always one of them, as with libseccomp.
    fn archs(&self, target: &Target) -> Result<Vec<Arch>, Error> {
        let mut archs = vec![target.arch];
        let mut add = |name: &str| -> Result<(), Error> {
            match Arch::parse(name)? {
                Some(arch) if arch.runs_on(target.arch) && !archs.contains(&arch) => archs.push(arch),
                Some(_) | None => {}
            }
            Ok(())
        };
        let plain = self.architectures.as_deref().unwrap_or_default();
        let map = self.arch_map.as_deref().unwrap_or_default();
        if !plain.is_empty() && !map.is_empty() {
            return Err(Error::BothArchitectures);
        }
        plain.iter().try_for_each(|name| add(name))?;
        for entry in map {
            if Arch::parse(&entry.architecture)? == Some(target.arch) {
                entry.sub_architectures.iter().flatten().try_for_each(|name| add(name))?;
            }
        }
        Ok(archs)
    }
}

impl Call {
    fn names(&self, at: usize) -> Result<Vec<&str>, Error> {
        match (&self.name, &self.names) {
            (Some(name), None) => Ok(vec![name]),
            (None, Some(names)) if !names.is_empty() => Ok(names.iter().map(String::as_str).collect()),
            (Some(_), Some(_)) | (None, Some(_) | None) => Err(Error::Names(at)),
        }
    }

    fn applies(&self, target: &Target) -> Result<bool, Error> {
        let empty = Filter::default();
        let (includes, excludes) = (self.includes.as_ref().unwrap_or(&empty), self.excludes.as_ref().unwrap_or(&empty));
        // Both are read completely, so that a mistake in either is an error whatever the other says.
        let included = includes.all(target)?;
        let excluded = excludes.any(target)?;
        Ok(included && !excluded)
    }
}

impl Filter {
    /// docker's `includes`: everything that is said must hold; of architectures one is enough.
    fn all(&self, target: &Target) -> Result<bool, Error> {
        let caps = self.masks()?.iter().all(|mask| target.caps & mask != 0);
        let arch = self.arches().is_empty() || self.names(target);
        Ok(caps && arch && self.kernel()?.is_none_or(|least| target.kernel >= least))
    }

    /// docker's `excludes`: anything that is said and holds is enough.
    fn any(&self, target: &Target) -> Result<bool, Error> {
        let caps = self.masks()?.iter().any(|mask| target.caps & mask != 0);
        Ok(caps || self.names(target) || self.kernel()?.is_some_and(|least| target.kernel >= least))
    }

    fn arches(&self) -> &[String] {
        self.arches.as_deref().unwrap_or_default()
    }

    fn names(&self, target: &Target) -> bool {
        self.arches().iter().any(|name| name == target.arch.go_name())
    }

    fn masks(&self) -> Result<Vec<u64>, Error> {
        let caps = self.caps.iter().flatten();
        caps.map(|name| capability::mask(name).ok_or_else(|| Error::Capability(cut(name)))).collect()
    }

    fn kernel(&self) -> Result<Option<(u32, u32)>, Error> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let version = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        version.map(Some).ok_or_else(|| Error::Kernel(cut(text)))
    }
}

impl Arg {
    fn condition(&self, place: &str) -> Result<Condition, Error> {
        let op = match self.op.as_str() {
            "SCMP_CMP_EQ" | "SCMP_CMP_MASKED_EQ" => Op::Eq,
            "SCMP_CMP_NE" => Op::Ne,
            "SCMP_CMP_LT" => Op::Lt,
            "SCMP_CMP_LE" => Op::Le,
            "SCMP_CMP_GE" => Op::Ge,
            "SCMP_CMP_GT" => Op::Gt,
            other => return Err(Error::Operator { operator: cut(other), place: place.to_owned() }),
        };
        let index = match u8::try_from(self.index) {
            Ok(index @ 0..=5) => index,
            Ok(_) | Err(_) => return Err(Error::Index { index: self.index, place: place.to_owned() }),
        };
        // Of a masked comparison `value` is the mask and `valueTwo` what must be left.
        let (mask, value) = match self.op.as_str() {
            "SCMP_CMP_MASKED_EQ" => (self.value, self.value_two),
            _ => (u64::MAX, self.value),
        };
        Ok(Condition { index, mask, op, value })
    }
}

/// Conditions of one rule are joined by AND, but if an argument occurs twice, each condition is a rule of its own:
/// runc has always done so, because libseccomp refuses two conditions on one argument.
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let mut seen = [false; 6];
    let twice = conditions.iter().any(|condition| std::mem::replace(&mut seen[usize::from(condition.index)], true));
    if twice { conditions.into_iter().map(|condition| vec![condition]).collect() } else { vec![conditions] }
}

const EPERM: u32 = 1;
/// MAX_ERRNO of the kernel, which cuts off what is larger.
const MAX_ERRNO: u32 = 4095;

fn action(name: &str, errno: Option<u32>, place: &str) -> Result<Action, Error> {
    let wrong = |errno| Error::Errno { errno, action: cut(name), place: place.to_owned() };
    let data = |most: u32| {
        let number = errno.unwrap_or(EPERM);
        u16::try_from(number).ok().filter(|_| number <= most).ok_or_else(|| wrong(number))
    };
    let plain = match name {
        "SCMP_ACT_ERRNO" => return data(MAX_ERRNO).map(Action::Errno),
        "SCMP_ACT_TRACE" => return data(u32::from(u16::MAX)).map(Action::Trace),
        "SCMP_ACT_NOTIFY" => return Err(Error::Notify(place.to_owned())),
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_LOG" => Action::Log,
        _ => return Err(Error::Action { action: cut(name), place: place.to_owned() }),
    };
    errno.map_or(Ok(plain), |errno| Err(wrong(errno)))
}
