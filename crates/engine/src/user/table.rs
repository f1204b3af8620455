//! All containers of people, and which of them a person means.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use model::{ContainerId, ErrorKind};

use super::{container::UserContainer, names};
use crate::error::{About, Error};

#[derive(Debug, Default)]
struct Rows {
    containers: BTreeMap<ContainerId, Arc<UserContainer>>,
    /// Taken names, those of containers that are being made too.
    names: HashMap<String, ContainerId>,
}

/// The table. Locked only for a look-up or a change of one row.
#[derive(Debug, Default)]
pub(crate) struct Users {
    rows: RwLock<Rows>,
}

/// A name that is kept for a container that is being made, or renamed.
#[derive(Debug)]
pub(super) struct Reserved<'t> {
    table: &'t Users,
    pub(super) name: String,
    kept: bool,
}

impl Reserved<'_> {
    /// The container has it now.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.table.rows.write().unwrap_or_else(PoisonError::into_inner).names.remove(&self.name);
        }
    }
}

impl Users {
    /// Keeps a name for a container; an empty one is made up.
    pub(super) fn reserve(&self, wanted: &str, id: ContainerId) -> Result<Reserved<'_>, Error> {
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        if !wanted.is_empty() && !names::is_name(name) {
            let shown: String = name.chars().take(80).collect();
            let why = format!("Invalid container name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
            return Err(Error::new(ErrorKind::InvalidArgument, About::Words, why));
        }
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let name = match wanted.is_empty() {
            true => names::free(|name| rows.names.contains_key(name), draw),
            false => name.to_owned(),
        };
        if let Some(other) = rows.names.get(&name) {
            let why = format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{other}\". You have to remove (or rename) that container to be able to reuse that name."
            );
            return Err(Error::new(ErrorKind::AlreadyExists, About::Words, why));
        }
        rows.names.insert(name.clone(), id);
        Ok(Reserved { table: self, name, kept: false })
    }

    /// Makes a container visible. Of two with one name (only a damaged store has them) the first keeps it.
    pub(super) fn insert(&self, container: Arc<UserContainer>) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.names.entry(container.name()).or_insert(container.id);
        rows.containers.insert(container.id, container);
    }

    /// It has another name now.
    pub(super) fn release_name(&self, name: &str, id: ContainerId) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if rows.names.get(name) == Some(&id) {
            rows.names.remove(name);
        }
    }

    pub(super) fn remove(&self, container: &UserContainer) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.containers.remove(&container.id);
        rows.names.retain(|_, id| *id != container.id);
    }

    /// Whether this is a container of people.
    pub(crate) fn has(&self, id: ContainerId) -> bool {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).containers.contains_key(&id)
    }

    pub(crate) fn get(&self, id: ContainerId) -> Option<Arc<UserContainer>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).containers.get(&id).cloned()
    }

    /// All, oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<UserContainer>> {
        let mut list: Vec<_> = self.rows.read().unwrap_or_else(PoisonError::into_inner).containers.values().cloned().collect();
        list.sort_by_key(|container| (container.created_at, container.id));
        list
    }

    /// The one that is meant: by its whole id, its name, or the beginning of its id, in this order.
    pub(crate) fn resolve(&self, text: &str) -> Result<Arc<UserContainer>, Error> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let by_id = |id: &ContainerId| rows.containers.get(id).cloned();
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(found) = text.parse().ok().and_then(|id| by_id(&id)).or_else(|| rows.names.get(name).and_then(by_id)) {
            return Ok(found);
        }
        let shown: String = text.chars().take(80).collect();
        let digits = !text.is_empty() && text.len() < 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let mut matching = rows.containers.values().filter(|one| digits && one.id.to_string().starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => Err(Error::new(ErrorKind::NotFound, About::Words, format!("No such container: {shown}"))),
            (Some(_), Some(_)) => {
                let why = format!("multiple IDs found with provided prefix: {shown}");
                Err(Error::new(ErrorKind::InvalidArgument, About::Words, why))
            }
        }
    }
}

fn draw() -> u32 {
    let bytes = crate::random_id();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
