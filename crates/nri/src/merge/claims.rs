//! Who said what: two plugins never decide the same thing.

use std::collections::BTreeMap;

use crate::{
    Error,
    proto::{CompoundFieldOwners, Field, FieldOwners, OwningPlugins},
};

/// Fields of one container and the plugins that set them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    owners: BTreeMap<(i32, String), String>,
    compound: std::collections::BTreeSet<i32>,
}

impl Claims {
    /// A field without parts.
    pub(crate) fn take(&mut self, field: Field, plugin: &str) -> Result<(), Error> {
        self.claim(field, "", plugin)
    }

    /// One entry of a list or map.
    pub(crate) fn take_entry(&mut self, field: Field, key: &str, plugin: &str) -> Result<(), Error> {
        self.compound.insert(field as i32);
        self.claim(field, key, plugin)
    }

    /// Entries that everybody may add to; the last one is remembered.
    pub(crate) fn share(&mut self, field: Field, plugin: &str) {
        self.owners.insert((field as i32, String::new()), plugin.to_owned());
    }

    /// A plugin took back what was said.
    pub(crate) fn clear(&mut self, field: Field, key: &str) {
        self.owners.remove(&(field as i32, key.to_owned()));
    }

    fn claim(&mut self, field: Field, key: &str, plugin: &str) -> Result<(), Error> {
        let owner = self.owners.entry((field as i32, key.to_owned())).or_insert_with(|| plugin.to_owned());
        if owner == plugin {
            return Ok(());
        }
        let name = field.as_str_name();
        let field =
            if key.is_empty() { name.to_owned() } else { format!("{name} {:?}", key.chars().take(100).collect::<String>()) };
        Err(Error::Conflict { field, first: owner.clone(), second: plugin.to_owned() })
    }

    fn to_proto(&self) -> FieldOwners {
        let mut owners = FieldOwners::default();
        for ((field, key), plugin) in &self.owners {
            if self.compound.contains(field) {
                let entries: &mut CompoundFieldOwners = owners.compound.entry(*field).or_default();
                entries.owners.insert(key.clone(), plugin.clone());
            } else {
                owners.simple.insert(*field, plugin.clone());
            }
        }
        owners
    }
}

/// For the validators.
pub(crate) fn owning<'a>(claims: impl Iterator<Item = (&'a String, &'a Claims)>) -> OwningPlugins {
    OwningPlugins { owners: claims.map(|(id, claims)| (id.clone(), claims.to_proto())).collect() }
}
