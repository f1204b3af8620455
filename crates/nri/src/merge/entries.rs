//! Lists and maps whose entries have keys: each entry has one owner, and a key that begins with `-` removes.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::Claims;
use crate::{
    Error,
    proto::{CdiDevice, Field, KeyValue, LinuxDevice, LinuxNamespace, Mount, PosixRlimit},
};

/// In whose name entries are taken.
pub(super) struct Owner<'a> {
    pub(super) claims: &'a mut Claims,
    pub(super) field: Field,
    pub(super) plugin: &'a str,
}

/// An entry of a list.
pub(super) trait Entry: Clone {
    fn key(&self) -> &str;
    fn removal(key: &str) -> Self;
}

macro_rules! entry {
    ($($type:ident . $key:ident),*) => { $(
        impl Entry for $type {
            fn key(&self) -> &str {
                &self.$key
            }

            #[allow(clippy::needless_update, reason = "one of these types is nothing but its key")]
            fn removal(key: &str) -> Self {
                Self { $key: format!("-{key}"), ..Self::default() }
            }
        }
    )* };
}
entry!(Mount.destination, LinuxDevice.path, LinuxNamespace.r#type, KeyValue.key, PosixRlimit.r#type, CdiDevice.name);

/// What a key asks to remove.
fn removed(key: &str) -> Option<&str> {
    key.strip_prefix('-')
}

/// Lays a plugin's entries over those of the others, and over what the next plugin sees.
pub(super) fn list<T: Entry>(owner: &mut Owner<'_>, from: Vec<T>, merged: &mut Vec<T>, view: &mut Vec<T>) -> Result<(), Error> {
    let added = take(owner, &from, merged)?;
    let gone: BTreeSet<&str> = from.iter().map(|entry| removed(entry.key()).unwrap_or(entry.key())).collect();
    view.retain(|entry| !gone.contains(entry.key()));
    view.extend(added);
    Ok(())
}

/// The same for environment variables, which the next plugin sees as `NAME=value`.
pub(super) fn env(
    owner: &mut Owner<'_>,
    from: Vec<KeyValue>,
    merged: &mut Vec<KeyValue>,
    view: &mut Vec<String>,
) -> Result<(), Error> {
    let added = take(owner, &from, merged)?;
    let gone: BTreeSet<&str> = from.iter().map(|entry| removed(entry.key()).unwrap_or(entry.key())).collect();
    view.retain(|entry| !gone.contains(entry.split_once('=').map_or(entry.as_str(), |(name, _)| name)));
    view.extend(added.iter().map(|entry| format!("{}={}", entry.key, entry.value)));
    Ok(())
}

/// Removals first, so that a plugin can replace what another one has said. Returns what was added.
fn take<T: Entry>(owner: &mut Owner<'_>, from: &[T], merged: &mut Vec<T>) -> Result<Vec<T>, Error> {
    for key in from.iter().filter_map(|entry| removed(entry.key())) {
        owner.claims.clear(owner.field, key);
        merged.retain(|known| known.key() != key && removed(known.key()) != Some(key));
        merged.push(T::removal(key));
    }
    let added: Vec<T> = from.iter().filter(|entry| removed(entry.key()).is_none()).cloned().collect();
    for entry in &added {
        owner.claims.take_entry(owner.field, entry.key(), owner.plugin)?;
        merged.retain(|known| known.key() != entry.key());
        merged.push(entry.clone());
    }
    Ok(added)
}

/// The same for maps.
pub(super) fn map<V: Clone + Default>(
    owner: &mut Owner<'_>,
    from: BTreeMap<String, V>,
    merged: &mut BTreeMap<String, V>,
    view: &mut BTreeMap<String, V>,
) -> Result<(), Error> {
    for key in from.keys().filter_map(|key| removed(key)) {
        owner.claims.clear(owner.field, key);
        merged.remove(key);
        view.remove(key);
        merged.insert(format!("-{key}"), V::default());
    }
    for (key, value) in from.into_iter().filter(|(key, _)| removed(key).is_none()) {
        owner.claims.take_entry(owner.field, &key, owner.plugin)?;
        view.insert(key.clone(), value.clone());
        merged.insert(key, value);
    }
    Ok(())
}
