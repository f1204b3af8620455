//! Random profiles: the program says what a direct reading of the same JSON says; random bytes never panic.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 12] =
    ["read", "write", "lseek", "mmap", "mremap", "clone", "clone3", "ptrace", "mseal", "brk", "shmget", "not_a_call"];
const OPS: [(&str, Op); 7] =
    [("EQ", Op::Eq), ("NE", Op::Ne), ("LT", Op::Lt), ("LE", Op::Le), ("GE", Op::Ge), ("GT", Op::Gt), ("MASKED_EQ", Op::Eq)];
const ACTIONS: [(&str, Action); 7] = [
    ("KILL_PROCESS", Action::KillProcess),
    ("KILL_THREAD", Action::KillThread),
    ("TRAP", Action::Trap),
    ("ERRNO", Action::Errno(1)),
    ("TRACE", Action::Trace(1)),
    ("LOG", Action::Log),
    ("ALLOW", Action::Allow),
];

type RandomRule = (Vec<usize>, usize, Vec<(u8, usize, u64, u64)>);

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..4, any::<u64>(), Just(u64::MAX), Just(1 << 32), (0_u64..4).prop_map(|v| v << 32 | 1)]
}

fn rules() -> impl Strategy<Value = Vec<RandomRule>> {
    let condition = (0_u8..3, 0..OPS.len(), value(), value());
    let rule = (prop::collection::vec(0..NAMES.len(), 1..4), 0..ACTIONS.len(), prop::collection::vec(condition, 0..4));
    prop::collection::vec(rule, 0..8)
}

fn json(default: usize, rules: &[RandomRule]) -> String {
    let mut text = format!(r#"{{"defaultAction":"SCMP_ACT_{}","syscalls":["#, ACTIONS[default].0);
    for (at, (names, action, conditions)) in rules.iter().enumerate() {
        let names: Vec<_> = names.iter().map(|name| format!("\"{}\"", NAMES[*name])).collect();
        let comma = if at == 0 { "" } else { "," };
        write!(text, r#"{comma}{{"names":[{}],"action":"SCMP_ACT_{}","args":["#, names.join(","), ACTIONS[*action].0).unwrap();
        for (at, (index, op, value, two)) in conditions.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let op = OPS[*op].0;
            write!(text, r#"{comma}{{"index":{index},"op":"SCMP_CMP_{op}","value":{value},"valueTwo":{two}}}"#).unwrap();
        }
        text.push_str("]}");
    }
    text + "]}"
}

/// The reading: which conditions hold, by the words of the documentation.
fn direct(default: usize, rules: &[RandomRule], number: u32, args: &[u64; 6]) -> u32 {
    let arch = Arch::X86_64;
    let (mut particular, mut general) = (None::<Action>, None::<Action>);
    let stricter = |old: Option<Action>, new| Some(old.map_or(new, |old: Action| old.min(new)));
    let mut newest = None;
    for (names, action, conditions) in rules {
        newest = newest.max(names.iter().filter_map(|name| arch.number(NAMES[*name])).max());
        if !names.iter().any(|name| arch.number(NAMES[*name]) == Some(number)) {
            continue;
        }
        let action = ACTIONS[*action].1;
        let truth: Vec<bool> = conditions
            .iter()
            .map(|(index, op, value, two)| match OPS[*op] {
                ("MASKED_EQ", _) => args[usize::from(*index)] & value == *two,
                (_, op) => holds(&Condition { index: *index, mask: u64::MAX, op, value: *value }, args),
            })
            .collect();
        let twice = (0..6).any(|index| conditions.iter().filter(|condition| condition.0 == index).count() > 1);
        if conditions.is_empty() {
            general = stricter(general, action);
        } else if if twice { truth.contains(&true) } else { !truth.contains(&false) } {
            particular = stricter(particular, action);
        }
    }
    let newer = newest.is_some_and(|newest| number > newest) && matches!(ACTIONS[default].1, Action::Errno(_));
    let rest = if newer { errno(38) } else { ACTIONS[default].1.code() };
    particular.or(general).map_or(rest, Action::code)
}

proptest! {
    #[test]
    fn programs_do_what_profiles_say(
        default in 0..ACTIONS.len(),
        rules in rules(),
        calls in prop::collection::vec((0_u32..470, prop::array::uniform3(value())), 1..20),
    ) {
        let program = Program::json(&json(default, &rules));
        let named = NAMES.iter().filter_map(|name| Arch::X86_64.number(name)).map(|number| (number, [0, 1, 2]));
        // The profile's own values are where verdicts change.
        let own: Vec<_> = rules.iter().flat_map(|(_, _, conditions)| conditions.iter().map(|c| c.2)).collect();
        for (number, args) in calls.into_iter().chain(named) {
            for first in own.iter().copied().chain([args[0]]) {
                let args = [first, args[1], args[2], 0, 0, 0];
                prop_assert_eq!(program.ask(Arch::X86_64, number, args), direct(default, &rules, number, &args));
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = crate::parse_and_compile(&bytes, &Target::native((6, 1), 0));
    }

    #[test]
    fn no_damaged_profile_makes_it_panic(default in 0..ACTIONS.len(), rules in rules(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = json(default, &rules).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(program) = crate::parse_and_compile(&bytes, &Target::native((6, 1), 0)) {
            Program::new(&program);
        }
    }
}
