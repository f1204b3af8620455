//! The calls of i386 that have two ways in: socketcall(2) and ipc(2) carry a call number as their first argument.

use crate::policy::{Action, Condition, Op};

/// `SYS_..` of linux/net.h, numbers from 1.
const SOCKETCALL: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// linux/ipc.h. The kernel takes the upper 16 bits of the number as a version, so they are masked out.
const IPC: [(&str, u64); 11] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
];
const SHMCTL: u64 = 24;

/// The other way in to `name`, and the condition that picks it out there.
fn other_way(name: &str) -> Option<(&'static str, Condition)> {
    let pick = |mask, value| Condition { index: 0, mask, op: Op::Eq, value };
    if let Some(at) = SOCKETCALL.iter().position(|known| *known == name) {
        return Some(("socketcall", pick(u64::from(u32::MAX), at as u64 + 1)));
    }
    let number = IPC.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    number.or((name == "shmctl").then_some(SHMCTL)).map(|number| ("ipc", pick(0xffff, number)))
}

/// The rule about `name` as it applies to its other way in, where a filter cannot see the real arguments (they are
/// behind a pointer). So a permission with conditions is not given there, and a refusal with conditions is given to
/// all: a filter is never weaker on the other way in than on the first.
pub(crate) fn mirrored(name: &str, conditions: &[Condition], action: Action) -> Option<(&'static str, Condition)> {
    other_way(name).filter(|_| conditions.is_empty() || !action.permits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_headers() {
        for (name, call, value) in
            [("socket", "socketcall", 1), ("sendmmsg", "socketcall", 20), ("shmctl", "ipc", 24), ("msgctl", "ipc", 14)]
        {
            let (way, condition) = other_way(name).unwrap();
            assert_eq!((way, condition.value), (call, value), "{name}");
        }
        assert!(other_way("read").is_none());
    }

    #[test]
    fn what_cannot_be_seen_is_not_permitted() {
        let family = [Condition { index: 0, mask: u64::MAX, op: Op::Eq, value: 1 }];
        assert!(mirrored("socket", &[], Action::Allow).is_some());
        assert!(mirrored("socket", &family, Action::Allow).is_none());
        assert!(mirrored("socket", &family, Action::Errno(1)).is_some());
    }
}
