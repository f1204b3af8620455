//! Plugins of the Node Resource Interface: who they are, and how they are asked.
//!
//! **Invariants:** no lock of the engine is held while a plugin thinks, only those of this module: a plugin's turn (one call
//! at a time, in the order in which they came) and a container's sequence of events. A plugin that joins misses nothing: it
//! is a member from the moment of its snapshot, its turn is taken until it has been synchronized, and no pod or container
//! gets into the table before every member of that moment has been asked. Without a plugin nothing is allocated.

mod adjust;
mod config;
mod containers;
mod join;
mod launch;
mod message;
mod pods;
mod resources;
mod updates;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ::nri::{Plugin, Rpc};
use tokio::task::JoinSet;

pub(crate) use adjust::{Refusal, Target};
pub use config::NriConfig;
pub(crate) use containers::Told;
pub(crate) use message::{ContainerFacts, PodFacts};

/// All plugins.
#[derive(Debug, Default)]
pub(crate) struct Nri {
    /// In the order in which they are asked. Held shared while a row of the table comes or goes, alone while a plugin
    /// becomes a member and the rows are copied for it: it sees each of them come or go, or has it in its snapshot.
    members: RwLock<Arc<[Arc<Member>]>>,
    /// The socket's task and those of the members.
    tasks: Mutex<JoinSet<()>>,
}

/// A plugin that is synchronized, or being so.
#[derive(Debug)]
struct Member {
    id: String,
    plugin: Plugin,
    /// One call at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The plugins of one moment, at least one.
#[derive(Clone, Debug)]
pub(crate) struct Members(Arc<[Arc<Member>]>);

/// Those that have been asked about a pod or container that is being made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(Vec<Members>);

impl Asked {
    pub(crate) fn add(&mut self, members: Members) {
        self.0.push(members);
    }

    fn has(&self, member: &Arc<Member>) -> bool {
        self.0.iter().flat_map(|members| members.0.iter()).any(|known| Arc::ptr_eq(known, member))
    }
}

impl Nri {
    /// Those that there are; `None`: nobody has to be told anything.
    pub(crate) fn members(&self) -> Option<Members> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        (!members.is_empty()).then(|| Members(members.clone()))
    }

    /// Puts a row into the table, unless there are plugins that have not been asked about it: these are returned.
    pub(crate) fn commit<T>(&self, asked: &Asked, put: impl FnOnce() -> T) -> Result<T, Members> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let late: Vec<_> = members.iter().filter(|member| !asked.has(member)).cloned().collect();
        if late.is_empty() { Ok(put()) } else { Err(Members(late.into())) }
    }

    /// Takes a row out of the table; returns those that have to know.
    pub(crate) fn leave(&self, take: impl FnOnce()) -> Option<Members> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        take();
        (!members.is_empty()).then(|| Members(members.clone()))
    }

    /// Their names, for people.
    pub(crate) fn names(&self) -> Vec<String> {
        self.members().map(|all| all.0.iter().map(|member| member.id.clone()).collect()).unwrap_or_default()
    }

    /// Makes it a member; returns what `copy` takes of the table at this moment.
    fn add<T>(&self, member: Arc<Member>, copy: impl FnOnce() -> T) -> T {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        let mut list = members.to_vec();
        list.push(member);
        // Stable: of two with one index and name the older one comes first.
        list.sort_by(|a, b| (a.plugin.index(), a.plugin.name()).cmp(&(b.plugin.index(), b.plugin.name())));
        *members = list.into();
        copy()
    }

    fn remove(&self, member: &Arc<Member>) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        *members = members.iter().filter(|known| !Arc::ptr_eq(known, member)).cloned().collect();
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Tells all plugins that the daemon goes, and ends their connections.
    pub(crate) async fn shutdown(&self) {
        if let Some(Members(all)) = self.members() {
            futures_util::future::join_all(all.iter().map(|member| member.plugin.shutdown())).await;
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl Member {
    /// Asks, if it wants to be asked. `None`: it does not, or it is gone; pods go on without it.
    async fn ask<R: Rpc>(&self, request: &R) -> Result<Option<R::Response>, ::nri::Error> {
        if R::EVENT.is_some_and(|event| !self.plugin.wants(event)) {
            return Ok(None);
        }
        let _turn = self.turn.lock().await;
        if self.plugin.is_closed() {
            return Ok(None);
        }
        match self.plugin.call(request).await {
            Ok(answer) => Ok(Some(answer)),
            // Its connection is closed now; who watches over it logs why.
            Err(error) if error.is_fatal() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Members {
    /// Asks one after the other; the first refusal is the end of it.
    async fn ask<R: Rpc>(&self, request: &R) -> Result<Vec<(&str, R::Response)>, ::nri::Error> {
        let mut answers = Vec::new();
        for member in self.0.iter() {
            if let Some(answer) = member.ask(request).await? {
                answers.push((member.id.as_str(), answer));
            }
        }
        Ok(answers)
    }

    /// Tells one after the other what cannot be changed any more: a refusal is only logged.
    async fn tell<R: Rpc>(&self, request: &R) -> Vec<(&str, R::Response)> {
        let mut answers = Vec::new();
        for member in self.0.iter() {
            match member.ask(request).await {
                Ok(Some(answer)) => answers.push((member.id.as_str(), answer)),
                Ok(None) => {}
                Err(error) => tracing::warn!(error = crate::chain(&error), "NRI"),
            }
        }
        answers
    }
}
