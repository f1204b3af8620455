//! Hooks of containers that are the executor's, at the points that the supervisor knows of.
//!
//! While one runs, the supervisor does nothing else: a hook has a deadline, and nobody has to wonder what it may see.

use container::Hooks;
use model::{
    ContainerId,
    plan::{ContainerPlan, HookStage},
};

use crate::{
    error::Error,
    executor::Pod,
    supervisor::{Supervisor, chain},
    table::number,
};

/// The hooks of a new container, with their bundle made.
pub(crate) fn prepare(plan: &ContainerPlan) -> Result<Option<Hooks>, Error> {
    let Some(hooks) = Hooks::of(plan) else { return Ok(None) };
    match hooks.write_bundle() {
        Ok(()) => Ok(Some(hooks)),
        Err(source) => {
            remove(&hooks);
            Err(Error::Executor { step: "make bundle for hooks", source })
        }
    }
}

/// The container is gone, or never came to be: what there is to clean up is the hooks' to know.
pub(crate) fn finish(pod: &Pod, hooks: &Hooks) -> Result<(), Error> {
    let outcome = pod.run_hooks(hooks, HookStage::Poststop, None);
    remove(hooks);
    outcome
}

fn remove(hooks: &Hooks) {
    if let Err(error) = hooks.remove_bundle() {
        crate::complain(&format!("remove bundle for hooks: {error}"));
    }
}

impl Supervisor {
    /// The program runs.
    pub(crate) fn started(&mut self, id: ContainerId) {
        let Ok(container) = self.table.container(id) else { return };
        let (Some(hooks), pid) = (container.hooks.clone(), container.pid) else { return };
        let Some(pod) = self.pod.as_ref() else { return };
        if let Err(error) = pod.run_hooks(&hooks, HookStage::Poststart, Some(pid)) {
            self.warn(Some(id), format!("process {}: {}", number(pid), chain(&error)));
        }
    }

    /// The container is gone.
    pub(crate) fn stopped(&mut self, id: ContainerId) {
        let Some(hooks) = self.table.container(id).ok().and_then(|container| container.hooks.take()) else { return };
        let Some(pod) = self.pod.as_ref() else { return };
        if let Err(error) = finish(pod, &hooks) {
            self.warn(Some(id), chain(&error));
        }
    }
}
