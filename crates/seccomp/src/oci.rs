//! A policy as `LinuxSeccomp` of the OCI runtime spec, for runtimes that compile it with libseccomp.
//!
//! libseccomp lets a rule without conditions swallow those with conditions on the same call, and takes the first of two
//! rules that both apply; here a condition comes before none and the stricter action first ([`Decision::combine`]). So each
//! call is written down as decided, with conditions that exclude each other, or refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    Error,
    error::cut,
    policy::{Action, Condition, Decision, Op, Policy},
};

pub(crate) fn document(policy: &Policy<'_>) -> Result<Value, Error> {
    let calls: BTreeSet<&str> = policy.rules.iter().flat_map(|rule| rule.names.iter().copied()).collect();
    let mut plain: BTreeMap<Action, Vec<&str>> = BTreeMap::new();
    let mut syscalls = Vec::new();
    for call in calls {
        let rules = policy.rules.iter().filter(|rule| rule.names.contains(&call));
        let rules: Vec<_> = rules.map(|rule| (rule.conditions.clone(), rule.action)).collect();
        let Decision { alternatives, otherwise } = Decision::combine(&rules, policy.default);
        if alternatives.windows(2).any(|pair| pair[0].1 != pair[1].1) {
            return Err(Error::Ambiguous { call: cut(call), why: "conditions with different actions" });
        }
        if otherwise != policy.default {
            match alternatives.as_slice() {
                [] => plain.entry(otherwise).or_default().push(call),
                [(conditions, _)] => syscalls.push(rule(&[call], otherwise, &inverse(call, conditions)?)),
                _ => return Err(Error::Ambiguous { call: cut(call), why: "several conditions and a rule without any" }),
            }
        }
        syscalls.extend(alternatives.iter().map(|(conditions, action)| rule(&[call], *action, conditions)));
    }
    syscalls.extend(plain.iter().map(|(action, names)| rule(names, *action, &[])));
    let mut document = json!({
        "defaultAction": name(policy.default),
        "architectures": policy.archs.iter().map(|arch| arch.oci_name()).collect::<Vec<_>>(),
        "syscalls": syscalls,
    });
    if let Some(errno) = data(policy.default) {
        document["defaultErrnoRet"] = errno.into();
    }
    Ok(document)
}

fn rule(names: &[&str], action: Action, conditions: &[Condition]) -> Value {
    let mut rule = json!({ "names": names, "action": name(action) });
    if let Some(errno) = data(action) {
        rule["errnoRet"] = errno.into();
    }
    if !conditions.is_empty() {
        rule["args"] = conditions.iter().map(arg).collect();
    }
    rule
}

fn arg(condition: &Condition) -> Value {
    let Condition { index, mask, op, value } = *condition;
    if mask != u64::MAX {
        // The one masked comparison that profiles have.
        return json!({ "index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value });
    }
    let op = match op {
        Op::Eq => "SCMP_CMP_EQ",
        Op::Ne => "SCMP_CMP_NE",
        Op::Lt => "SCMP_CMP_LT",
        Op::Le => "SCMP_CMP_LE",
        Op::Ge => "SCMP_CMP_GE",
        Op::Gt => "SCMP_CMP_GT",
    };
    json!({ "index": index, "op": op, "value": value })
}

/// What holds when the conditions do not.
fn inverse(call: &str, conditions: &[Condition]) -> Result<[Condition; 1], Error> {
    match conditions {
        [only] if only.mask == u64::MAX => {
            let op = match only.op {
                Op::Eq => Op::Ne,
                Op::Ne => Op::Eq,
                Op::Lt => Op::Ge,
                Op::Le => Op::Gt,
                Op::Ge => Op::Lt,
                Op::Gt => Op::Le,
            };
            Ok([Condition { op, ..*only }])
        }
        _ => Err(Error::Ambiguous { call: cut(call), why: "a condition that cannot be turned round and a rule without any" }),
    }
}

fn name(action: Action) -> &'static str {
    match action {
        Action::KillProcess => "SCMP_ACT_KILL_PROCESS",
        Action::KillThread => "SCMP_ACT_KILL_THREAD",
        Action::Trap => "SCMP_ACT_TRAP",
        Action::Errno(_) => "SCMP_ACT_ERRNO",
        Action::Trace(_) => "SCMP_ACT_TRACE",
        Action::Log => "SCMP_ACT_LOG",
        Action::Allow => "SCMP_ACT_ALLOW",
    }
}

fn data(action: Action) -> Option<u16> {
    match action {
        Action::Errno(number) | Action::Trace(number) => Some(number),
        Action::KillProcess | Action::KillThread | Action::Trap | Action::Log | Action::Allow => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::{Arch, Target, parse_and_compile, parse_and_resolve};

    fn target(caps: u64) -> Target {
        Target { arch: Arch::X86_64, kernel: (6, 1), caps }
    }

    /// The document, read again as a profile, must mean the same.
    fn same(json: &str) {
        let target = target(1 << 21);
        let document = parse_and_resolve(json.as_bytes(), &target).unwrap();
        let again = parse_and_compile(document.to_string().as_bytes(), &target).unwrap();
        assert_eq!(again.len(), parse_and_compile(json.as_bytes(), &target).unwrap().len(), "{document:#}");
    }

    #[test]
    fn the_default_profile_can_be_said_for_every_set() {
        for caps in std::iter::once(0).chain((0..41).map(|n| 1_u64 << n)).chain([u64::MAX]) {
            super::document(&crate::default::policy(Arch::X86_64, caps)).unwrap();
            parse_and_compile(crate::default_document(caps).to_string().as_bytes(), &target(caps)).unwrap();
        }
    }

    #[test]
    fn what_depends_on_the_target_is_decided() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"archMap":[{"architecture":"SCMP_ARCH_X86_64",
            "subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[
            {"names":["read","mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["reboot"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_BOOT"]}},
            {"name":"clone","action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
        let document = parse_and_resolve(json.as_bytes(), &target(1 << 21)).unwrap();
        let expected = serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 2_114_060_288, "valueTwo": 0}]},
                {"names": ["mount", "read"], "action": "SCMP_ACT_ALLOW"},
            ],
        });
        assert_eq!(document, expected);
        same(json);
    }

    #[test]
    fn what_libseccomp_would_misread_is_turned_round_or_refused() {
        let rules = |first: &str, second: &str| {
            format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"name":"socket",{first}}},{{"name":"socket",{second}}}]}}"#)
        };
        let allow = r#""action":"SCMP_ACT_ALLOW""#;
        let kill = |op: &str, value: u32| {
            format!(r#""action":"SCMP_ACT_KILL_PROCESS","args":[{{"index":0,"op":"SCMP_CMP_{op}","value":{value}}}]"#)
        };
        let document = parse_and_resolve(rules(allow, &kill("EQ", 38)).as_bytes(), &target(0)).unwrap();
        let ops: Vec<_> = document["syscalls"].as_array().unwrap().iter().map(|rule| rule["args"][0]["op"].clone()).collect();
        assert_eq!(ops, ["SCMP_CMP_NE", "SCMP_CMP_EQ"]);
        let masked = kill("EQ", 1).replace("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ");
        let refused = parse_and_resolve(rules(allow, &masked).as_bytes(), &target(0)).unwrap_err().to_string();
        assert!(refused.contains("system call socket"), "{refused}");
        let log = r#""action":"SCMP_ACT_LOG","args":[{"index":1,"op":"SCMP_CMP_EQ","value":1}]"#;
        assert!(parse_and_resolve(rules(log, &kill("EQ", 1)).as_bytes(), &target(0)).is_err());
    }
}
