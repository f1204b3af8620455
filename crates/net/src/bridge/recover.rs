//! After a start of the daemon.

use std::collections::HashSet;

use model::PodId;

use super::{Bridge, link::Links, record};
use crate::{Error, Recovered, error};

impl Bridge {
    /// See [`crate::Network::recover`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn recover(&self, live: &[(PodId, Vec<u8>)]) -> Result<Recovered, Error> {
        let mut found = Recovered::default();
        let mut state = self.lock();
        for (pod, bytes) in live {
            match record::decode(*pod, bytes) {
                Ok(plug) => state.adopt(*pod, plug),
                Err(e) => found.unreadable.push((*pod, error::chain(&e))),
            }
        }
        state.rebuild(&self.config)?;
        state.ensure_bridge(&self.config)?;
        let (links, plugs) = state.interfaces(&self.config)?;
        let present: HashSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        found.unplugged =
            plugs.iter().filter(|(_, plug)| !present.contains(plug.interface.as_str())).map(|(pod, _)| *pod).collect();
        // An interface whose record cannot be read may well belong to a live pod: it is not ours to judge.
        let mut wanted: HashSet<String> = plugs.values().map(|plug| plug.interface.clone()).collect();
        wanted.extend(found.unreadable.iter().map(|(pod, _)| super::state::interface_name(&self.config, *pod)));
        let gone: Vec<String> = links.into_iter().map(|link| link.name).filter(|name| !wanted.contains(name)).collect();
        drop(state);
        // Tens of milliseconds each, so not under the lock: nobody else uses these names.
        let mut links = Links::open()?;
        for name in gone {
            links.delete(&name)?;
            found.removed_interfaces.push(name);
        }
        Ok(found)
    }
}
