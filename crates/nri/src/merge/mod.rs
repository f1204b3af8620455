//! Several plugins' wishes made one, or refused where they contradict each other.

mod claims;
mod entries;
mod resources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::{
    Error,
    proto::{
        Container, ContainerAdjustment, ContainerEviction, ContainerUpdate, CreateContainerRequest, CreateContainerResponse, Field,
        Hooks, LinuxContainer, LinuxContainerAdjustment, LinuxContainerUpdate, LinuxResources, OwningPlugins, PodSandbox,
    },
};
use claims::Claims;

/// Updates and evictions of existing containers that plugins ask for in the course of one event.
#[derive(Debug, Default)]
pub struct Updates {
    list: Vec<ContainerUpdate>,
    evict: Vec<ContainerEviction>,
    claims: BTreeMap<String, Claims>,
}

impl Updates {
    /// Adds what a plugin asks for.
    ///
    /// # Errors
    /// Another plugin has said something else, unless this one can do without.
    pub fn add(&mut self, plugin: &str, updates: Vec<ContainerUpdate>, evict: Vec<ContainerEviction>) -> Result<(), Error> {
        for update in updates {
            let known = self.list.iter().position(|known| known.container_id == update.container_id);
            let mut merged = known.map_or_else(|| empty(&update), |place| self.list[place].clone());
            merged.ignore_failure &= update.ignore_failure;
            let mut claims = self.claims.get(&update.container_id).cloned().unwrap_or_default();
            let wanted = update.linux.as_ref().and_then(|linux| linux.resources.as_ref());
            if let Some(from) = wanted {
                let into = merged.linux.get_or_insert_default().resources.get_or_insert_default();
                match resources::lay(&mut claims, plugin, from, &mut [into]) {
                    Err(_) if update.ignore_failure => continue,
                    other => other?,
                }
            }
            match known {
                Some(place) => self.list[place] = merged,
                None => self.list.push(merged),
            }
            self.claims.insert(update.container_id, claims);
        }
        self.evict.extend(evict);
        Ok(())
    }

    /// What is wanted for one container; it is no longer in the list then.
    pub fn take(&mut self, id: &str) -> Option<LinuxResources> {
        let place = self.list.iter().position(|update| update.container_id == id)?;
        self.list.remove(place).linux.and_then(|linux| linux.resources)
    }

    /// Everything.
    pub fn into_parts(self) -> (Vec<ContainerUpdate>, Vec<ContainerEviction>) {
        (self.list, self.evict)
    }
}

fn empty(update: &ContainerUpdate) -> ContainerUpdate {
    ContainerUpdate {
        container_id: update.container_id.clone(),
        linux: Some(LinuxContainerUpdate { resources: Some(LinuxResources::default()) }),
        ignore_failure: update.ignore_failure,
    }
}

/// What has become of a creation.
#[derive(Debug)]
pub struct Outcome {
    /// What is to be different about the container.
    pub adjust: ContainerAdjustment,
    /// Of other containers.
    pub updates: Vec<ContainerUpdate>,
    /// Of other containers.
    pub evict: Vec<ContainerEviction>,
    /// Who said what.
    pub owners: OwningPlugins,
}

impl Outcome {
    /// Whether the container is to be as it is.
    pub fn changes_nothing(&self) -> bool {
        let mut adjust = self.adjust.clone();
        if let Some(linux) = &mut adjust.linux
            && let Some(resources) = &mut linux.resources
        {
            // What is laid over is made where it is not there.
            resources.memory.take_if(|memory| *memory == Default::default());
            resources.cpu.take_if(|cpu| *cpu == Default::default());
            linux.resources.take_if(|resources| *resources == LinuxResources::default());
        }
        adjust.linux.take_if(|linux| *linux == LinuxContainerAdjustment::default());
        adjust.hooks.take_if(|hooks| *hooks == Hooks::default());
        adjust == ContainerAdjustment::default()
    }
}

/// A creation on its way through the plugins: each sees what those before it did.
#[derive(Debug)]
pub struct Adjusting {
    request: CreateContainerRequest,
    adjust: ContainerAdjustment,
    claims: Claims,
    updates: Updates,
}

impl Adjusting {
    /// Begins with the container as the client wants it.
    pub fn new(pod: PodSandbox, container: Container) -> Self {
        let request = CreateContainerRequest { pod: Some(pod), container: Some(container) };
        Self { request, adjust: ContainerAdjustment::default(), claims: Claims::default(), updates: Updates::default() }
    }

    /// What the next plugin is to see.
    pub fn request(&self) -> &CreateContainerRequest {
        &self.request
    }

    /// Adds a plugin's answer.
    ///
    /// # Errors
    /// Another plugin has said something else.
    pub fn add(&mut self, plugin: &str, response: CreateContainerResponse) -> Result<(), Error> {
        let container = self.request.container.get_or_insert_default();
        if response.update.iter().any(|update| update.container_id == container.id) {
            return Err(Error::UpdateOfCreated { plugin: plugin.to_owned() });
        }
        if let Some(adjust) = response.adjust {
            let mut merge = Merge { plugin, claims: &mut self.claims, merged: &mut self.adjust, container };
            merge.all(adjust)?;
        }
        self.updates.add(plugin, response.update, response.evict)
    }

    /// The end of it.
    pub fn finish(self) -> Outcome {
        let id = self.request.container.map(|container| container.id).unwrap_or_default();
        let own = std::iter::once((&id, &self.claims));
        let owners = claims::owning(own.chain(&self.updates.claims));
        let (updates, evict) = self.updates.into_parts();
        Outcome { adjust: self.adjust, updates, evict, owners }
    }
}

/// One plugin's adjustment on its way into the others'.
struct Merge<'a> {
    plugin: &'a str,
    claims: &'a mut Claims,
    merged: &'a mut ContainerAdjustment,
    container: &'a mut Container,
}

impl Merge<'_> {
    fn all(&mut self, adjust: ContainerAdjustment) -> Result<(), Error> {
        let (plugin, claims) = (self.plugin, &mut *self.claims);
        let mut owner = entries::Owner { claims, field: Field::Annotations, plugin };
        entries::map(&mut owner, adjust.annotations, &mut self.merged.annotations, &mut self.container.annotations)?;
        owner.field = Field::Mounts;
        entries::list(&mut owner, adjust.mounts, &mut self.merged.mounts, &mut self.container.mounts)?;
        owner.field = Field::Env;
        entries::env(&mut owner, adjust.env, &mut self.merged.env, &mut self.container.env)?;
        owner.field = Field::Rlimits;
        entries::list(&mut owner, adjust.rlimits, &mut self.merged.rlimits, &mut self.container.rlimits)?;
        owner.field = Field::CdiDevices;
        entries::list(&mut owner, adjust.cdi_devices, &mut self.merged.cdi_devices, &mut self.container.cdi_devices)?;
        self.args(adjust.args)?;
        if let Some(hooks) = adjust.hooks {
            self.hooks(hooks);
        }
        match adjust.linux {
            Some(linux) => self.linux(linux),
            None => Ok(()),
        }
    }

    fn args(&mut self, mut args: Vec<String>) -> Result<(), Error> {
        if args.first().is_some_and(String::is_empty) {
            self.claims.clear(Field::Args, "");
            args.remove(0);
        }
        if args.is_empty() {
            return Ok(());
        }
        self.claims.take(Field::Args, self.plugin)?;
        self.container.args.clone_from(&args);
        self.merged.args = args;
        Ok(())
    }

    /// Hooks add up.
    fn hooks(&mut self, hooks: Hooks) {
        self.claims.share(Field::OciHooks, self.plugin);
        for target in [self.merged.hooks.get_or_insert_default(), self.container.hooks.get_or_insert_default()] {
            target.prestart.extend(hooks.prestart.clone());
            target.create_runtime.extend(hooks.create_runtime.clone());
            target.create_container.extend(hooks.create_container.clone());
            target.start_container.extend(hooks.start_container.clone());
            target.poststart.extend(hooks.poststart.clone());
            target.poststop.extend(hooks.poststop.clone());
        }
    }

    fn linux(&mut self, linux: LinuxContainerAdjustment) -> Result<(), Error> {
        let (plugin, claims) = (self.plugin, &mut *self.claims);
        let merged: &mut LinuxContainerAdjustment = self.merged.linux.get_or_insert_default();
        let view: &mut LinuxContainer = self.container.linux.get_or_insert_default();
        if let Some(from) = &linux.resources {
            let into = [merged.resources.get_or_insert_default(), view.resources.get_or_insert_default()];
            resources::lay(claims, plugin, from, &mut { into })?;
        }
        let mut owner = entries::Owner { claims, field: Field::Devices, plugin };
        entries::list(&mut owner, linux.devices, &mut merged.devices, &mut view.devices)?;
        owner.field = Field::Namespace;
        entries::list(&mut owner, linux.namespaces, &mut merged.namespaces, &mut view.namespaces)?;
        owner.field = Field::Sysctl;
        entries::map(&mut owner, linux.sysctl, &mut merged.sysctl, &mut view.sysctl)?;
        owner.field = Field::LinuxNetDevices;
        entries::map(&mut owner, linux.net_devices, &mut merged.net_devices, &mut view.net_devices)?;
        if !linux.cgroups_path.is_empty() {
            self.claims.take(Field::CgroupsPath, plugin)?;
            view.cgroups_path.clone_from(&linux.cgroups_path);
            merged.cgroups_path = linux.cgroups_path;
        }
        macro_rules! whole {
            ($($name:ident = $field:ident),*) => { $(
                if let Some(value) = linux.$name {
                    self.claims.take(Field::$field, plugin)?;
                    view.$name = Some(value.clone());
                    merged.$name = Some(value);
                }
            )* };
        }
        whole!(oom_score_adj = OomScoreAdj, io_priority = IoPriority, seccomp_policy = SeccompPolicy, scheduler = LinuxSched);
        if let Some(policy) = linux.memory_policy {
            self.claims.take(Field::MemoryPolicy, plugin)?;
            merged.memory_policy = Some(policy);
        }
        if let Some(rdt) = linux.rdt {
            self.claims.take(Field::RdtClosId, plugin)?;
            view.rdt = Some(rdt.clone());
            merged.rdt = Some(rdt);
        }
        Ok(())
    }
}
