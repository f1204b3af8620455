//! A pod's user namespace, as the daemon needs it: for the mapping of root file systems.

use super::Pod;
use crate::{
    blocking::blocking,
    error::{Error, Step},
    failpoint,
    image::Idmap,
};

impl Pod {
    /// The mapping of its user namespace; `None`: it is in the node's.
    ///
    /// # Errors
    /// Its supervisor, which holds the namespace, is gone.
    pub(crate) async fn idmap(&self) -> Result<Option<Idmap>, Error> {
        let Some(map) = self.spec.userns else { return Ok(None) };
        failpoint::hit("ctr.userns", self.id)?;
        let shim = self.shim()?;
        let userns = blocking(move || shim.userns()).await.step(self.id, "find the pod's user namespace")?;
        Ok(Some(Idmap::new(userns, map)))
    }
}
