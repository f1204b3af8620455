//! Ranges of ids of this machine for containers of people that have a user namespace of their own: one for each run, nobody else's
//! meanwhile. On disk there are always the container's own numbers, so that the next run may have another one.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use model::{
    ContainerId,
    pod::{IdMap, UserNamespace},
};

/// Above what systemd gives to its containers, below what it calls foreign (systemd, UIDS-GIDS.md); a kubelet and podman have
/// lower ones.
const FIRST: u32 = 0x7000_0000;
/// Ids of one container, as everybody has them.
const LENGTH: u32 = 1 << 16;
/// How many containers can run at a time.
const RANGES: u32 = 4094;

/// Who has which range.
#[derive(Debug, Default)]
pub(crate) struct Ranges(Mutex<BTreeMap<ContainerId, u32>>);

impl Ranges {
    /// A range for a run of a container; `known` are the namespaces of all pods that there are. `None`: all are taken.
    pub(super) fn take(&self, id: ContainerId, known: &[UserNamespace]) -> Option<UserNamespace> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&id);
        let own = |number: u32| IdMap { host_id: FIRST + number * LENGTH, length: LENGTH };
        let free = |number: &u32| {
            let range = own(*number);
            !taken.values().any(|other| other == number)
                && !known.iter().any(|known| overlap(known.uids, range) || overlap(known.gids, range))
        };
        let number = (0..RANGES).find(free)?;
        taken.insert(id, number);
        Some(UserNamespace { uids: own(number), gids: own(number) })
    }

    /// A run is over.
    pub(super) fn give_back(&self, id: ContainerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

fn overlap(one: IdMap, other: IdMap) -> bool {
    let end = |map: IdMap| u64::from(map.host_id) + u64::from(map.length);
    u64::from(one.host_id) < end(other) && u64::from(other.host_id) < end(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_their_own() {
        let ranges = Ranges::default();
        let id = |byte| ContainerId::from_bytes([byte; 32]);
        let first = |of: u8, known: &[UserNamespace]| ranges.take(id(of), known).map(|map| (map.uids.host_id - FIRST) / LENGTH);
        assert_eq!((first(1, &[]), first(2, &[]), first(1, &[])), (Some(0), Some(1), Some(0)));
        ranges.give_back(id(1));
        // A pod of a daemon that is no more has a part of the first one.
        let odd = IdMap { host_id: FIRST + LENGTH - 1, length: 1 };
        let elsewhere = IdMap { host_id: 1, length: 1 };
        assert_eq!(first(3, &[UserNamespace { uids: elsewhere, gids: odd }]), Some(2));
        assert_eq!(first(4, &[]), Some(0));
        let all = IdMap { host_id: FIRST, length: u32::MAX - FIRST };
        assert_eq!(first(5, &[UserNamespace { uids: all, gids: all }]), None);
        assert!(u64::from(FIRST) + u64::from(RANGES) * u64::from(LENGTH) <= 0x7FFE_0000);
    }
}
