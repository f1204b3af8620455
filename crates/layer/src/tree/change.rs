//! What an entry does to the tree.

use super::{Attributes, Id, Node, ROOT, Stop, Tree, resolve::Missing};
use crate::{
    Error, Refusal,
    error::shown,
    path::Located,
    sink::{Dentry, Sink},
};

impl Tree {
    /// An entry that is not a directory or a hard link. Whatever had the name goes away, directories with all that is in
    /// them (an engine that applies the layer over others removes it there too).
    pub(crate) fn insert(&mut self, at: &Located, attributes: Attributes, node: Node, sink: &mut dyn Sink) -> Result<Placed, Stop> {
        let dir = self.parent(at)?;
        self.checked_path_len(dir, &at.name)?;
        self.charge_inode(&at.name, &attributes, &node)?;
        self.clear(dir, &at.name, sink)?;
        let id = self.new_inode(attributes, node)?;
        self.put(dir, &at.name, id);
        Ok(Placed { dir, id })
    }

    /// A directory. One that is there keeps its children and gets new attributes.
    pub(crate) fn insert_directory(&mut self, at: &Located, attributes: Attributes, sink: &mut dyn Sink) -> Result<(), Stop> {
        let dir = self.parent(at)?;
        let there = self.directory_mut(dir).children.get(&at.name[..]).copied();
        if let Some(id) = there.filter(|id| self.directory(*id).is_some()) {
            return self.describe(id, attributes);
        }
        self.charge_inode(&at.name, &attributes, &Node::Fifo)?;
        self.clear(dir, &at.name, sink)?;
        let id = self.new_directory(dir, &at.name, attributes)?;
        // What was there (a file, or a whiteout) hid a directory of the layers below; the new one must go on hiding it.
        self.directory_mut(id).opaque = there.is_some();
        self.put(dir, &at.name, id);
        Ok(())
    }

    /// The archive's own words about the root or another directory that is there.
    pub(crate) fn describe_root(&mut self, attributes: Attributes) -> Result<(), Stop> {
        self.describe(ROOT, attributes)
    }

    fn describe(&mut self, id: Id, attributes: Attributes) -> Result<(), Stop> {
        self.charge_inode(&[], &attributes, &Node::Fifo)?;
        self.directory_mut(id).implied = false;
        let known = &mut self.inodes[id as usize].attributes;
        let mut xattrs = std::mem::take(&mut known.xattrs);
        xattrs.extend(attributes.xattrs);
        *known = Attributes { xattrs, ..attributes };
        Ok(())
    }

    /// A hard link. Its target must be in this layer: a link to a file of a layer below would need that file's inode, which
    /// the engines that unpack layers on their own (docker's overlay2, containerd) do not have either. The attributes
    /// are the target's, as GNU tar does it.
    pub(crate) fn link(&mut self, at: &Located, target: &Located, sink: &mut dyn Sink) -> Result<(), Stop> {
        let shown = || shown(&[&target.parent[..], b"/", &target.name].concat());
        let missing = || Refusal::LinkTarget(shown());
        let from_dir = self.resolve(&target.parent, Missing::Refuse)?.ok_or_else(missing)?;
        let id = self.directory_mut(from_dir).children.get(&target.name[..]).copied().ok_or_else(missing)?;
        match self.inode(id).node {
            Node::Directory(_) => return Err(Refusal::LinkDirectory(shown()).into()),
            Node::Whiteout => return Err(missing().into()),
            _ => {}
        }
        let dir = self.parent(at)?;
        if self.directory_mut(dir).children.get(&at.name[..]) == Some(&id) {
            return Ok(());
        }
        self.checked_path_len(dir, &at.name)?;
        self.charge_metadata(at.name.len())?;
        // Clearing the new name may take the target with it, when the new name is a directory above the target.
        self.clear(dir, &at.name, sink)?;
        if self.directory(from_dir).and_then(|directory| directory.children.get(&target.name[..])) != Some(&id) {
            return Err(missing().into());
        }
        sink.link(self, Dentry { dir: from_dir, name: &target.name, id }, Dentry { dir, name: &at.name, id })?;
        self.put(dir, &at.name, id);
        Ok(())
    }

    /// A whiteout hides the layers below, never this layer (OCI image spec, layer.md#whiteouts): a file that is or comes
    /// here hides them by itself, and a directory does when it is opaque.
    pub(crate) fn whiteout(&mut self, at: &Located) -> Result<(), Stop> {
        let dir = self.parent(at)?;
        match self.directory_mut(dir).children.get(&at.name[..]).copied() {
            Some(id) if self.directory(id).is_some() => self.directory_mut(id).opaque = true,
            Some(_) => {}
            None => {
                self.checked_path_len(dir, &at.name)?;
                self.charge_metadata(at.name.len())?;
                let attributes = Attributes { mode: 0, ..Attributes::implied() };
                let id = self.new_inode(attributes, Node::Whiteout)?;
                self.put(dir, &at.name, id);
            }
        }
        Ok(())
    }

    /// Makes a directory hide what the layers below have in it.
    pub(crate) fn opaque(&mut self, dir: &[u8]) -> Result<(), Stop> {
        let id = self.resolve(dir, Missing::Imply)?.expect("implied when missing");
        self.directory_mut(id).opaque = true;
        Ok(())
    }

    fn parent(&mut self, at: &Located) -> Result<Id, Stop> {
        Ok(self.resolve(&at.parent, Missing::Imply)?.expect("implied when missing"))
    }

    fn charge_inode(&mut self, name: &[u8], attributes: &Attributes, node: &Node) -> Result<(), Error> {
        let xattrs: usize = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let own = match node {
            Node::Symlink(target) => target.len(),
            Node::File(super::Content::Sparse(sparse)) => std::mem::size_of_val(&sparse.map[..]),
            _ => 0,
        };
        self.charge_metadata(name.len() + xattrs + own)
    }

    /// Removes what has the name, deepest first.
    fn clear(&mut self, dir: Id, name: &[u8], sink: &mut dyn Sink) -> Result<(), Error> {
        let Some(top) = self.directory_mut(dir).children.get(name).copied() else { return Ok(()) };
        // A removed name may have been part of how the last parent was found.
        self.last_parent = None;
        let mut at = top;
        while self.directory(top).is_some_and(|directory| !directory.children.is_empty()) {
            let directory = self.directory(at).expect("descends into directories only");
            match directory.children.last_key_value().map(|(name, id)| (name.clone(), *id)) {
                Some((_, id)) if self.directory(id).is_some_and(|child| !child.children.is_empty()) => at = id,
                Some((name, _)) => self.unlink(at, &name, sink)?,
                None => at = directory.parent,
            }
        }
        self.unlink(dir, name, sink)
    }

    fn unlink(&mut self, dir: Id, name: &[u8], sink: &mut dyn Sink) -> Result<(), Error> {
        let Some(id) = self.directory_mut(dir).children.get(name).copied() else { return Ok(()) };
        sink.unlink(self, Dentry { dir, name, id })?;
        let is_directory = self.directory(id).is_some();
        let directory = self.directory_mut(dir);
        directory.children.remove(name);
        directory.subdirectories -= u32::from(is_directory);
        self.drop_name(id);
        Ok(())
    }
}

/// Where [`Tree::insert`] put an inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) dir: Id,
    pub(crate) id: Id,
}
