//! Paths to directories, resolved against the layer's own entries.

use super::{Attributes, Directory, Id, Inode, Node, ROOT, Stop, Tree};
use crate::{Error, Refusal};

/// What to do about a directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it, as every engine does for archives that leave parents out.
    Imply,
    /// Give up.
    Refuse,
}

/// As many symlinks as the kernel follows (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// Components still to be walked: pieces of paths, the innermost symlink's target on top.
struct Pending(Vec<(Vec<u8>, usize)>);

impl Pending {
    fn next(&mut self) -> Option<Vec<u8>> {
        while let Some((path, at)) = self.0.last_mut() {
            let rest = &path[*at..];
            if rest.is_empty() {
                self.0.pop();
                continue;
            }
            let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let part = rest[..end].to_vec();
            *at += (end + 1).min(rest.len());
            if !part.is_empty() && part != b"." {
                return Some(part);
            }
        }
        None
    }
}

impl Tree {
    /// The directory at `path`. Symlinks among its components are followed inside the layer: absolute targets start at
    /// the layer's root, and `..` (which only symlinks can hold here) stops there.
    pub(super) fn resolve(&mut self, path: &[u8], missing: Missing) -> Result<Option<Id>, Stop> {
        if path.is_empty() {
            return Ok(Some(ROOT));
        }
        if let Some((last, id)) = &self.last_parent
            && last == path
        {
            return Ok(Some(*id));
        }
        let found = self.walk(path, missing)?;
        if let Some(id) = found {
            self.last_parent = Some((path.to_vec(), id));
        }
        Ok(found)
    }

    fn walk(&mut self, path: &[u8], missing: Missing) -> Result<Option<Id>, Stop> {
        let mut pending = Pending(vec![(path.to_vec(), 0)]);
        let (mut at, mut links) = (ROOT, 0);
        while let Some(part) = pending.next() {
            if links > 0 {
                self.charge_link_step()?;
            }
            let directory = self.directory_mut(at);
            if part == b".." {
                at = directory.parent;
                continue;
            }
            let child = directory.children.get(&part[..]).copied();
            match child.map(|id| (id, &self.inode(id).node)) {
                Some((id, Node::Directory(_))) => at = id,
                Some((_, Node::Symlink(target))) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Refusal::Loop.into());
                    }
                    if target.starts_with(b"/") {
                        at = ROOT;
                    }
                    pending.0.push((target.to_vec(), 0));
                }
                None | Some((_, Node::Whiteout)) => match missing {
                    Missing::Imply => at = self.imply(at, &part)?,
                    Missing::Refuse => return Ok(None),
                },
                Some((_, Node::File(_) | Node::CharDevice(_) | Node::BlockDevice(_) | Node::Fifo | Node::Gone)) => match missing {
                    Missing::Imply => return Err(Refusal::NotADirectory.into()),
                    Missing::Refuse => return Ok(None),
                },
            }
        }
        Ok(Some(at))
    }

    /// A new directory where nothing or a whiteout is. Over a whiteout it is opaque: it hides what the whiteout hid.
    fn imply(&mut self, parent: Id, name: &[u8]) -> Result<Id, Stop> {
        if name.len() > 255 {
            return Err(Refusal::LongName.into());
        }
        self.charge_entry()?;
        let opaque = self.directory_mut(parent).children.contains_key(name);
        let id = self.new_directory(parent, name, Attributes::implied())?;
        let directory = self.directory_mut(id);
        directory.opaque = opaque;
        directory.implied = true;
        self.put(parent, name, id);
        Ok(id)
    }

    pub(super) fn new_directory(&mut self, parent: Id, name: &[u8], attributes: Attributes) -> Result<Id, Stop> {
        let path_len = self.checked_path_len(parent, name)?;
        let directory = Directory {
            parent,
            name: name.into(),
            children: std::collections::BTreeMap::new(),
            subdirectories: 0,
            opaque: false,
            implied: false,
            path_len,
        };
        Ok(self.new_inode(attributes, Node::Directory(Box::new(directory)))?)
    }

    /// The length of a path that the kernel will have to take in one piece.
    pub(super) fn checked_path_len(&mut self, parent: Id, name: &[u8]) -> Result<usize, Stop> {
        let limit = self.limits.path;
        let above = self.directory_mut(parent).path_len;
        let length = above + usize::from(above > 0) + name.len();
        if length > limit { Err(Refusal::LongPath.into()) } else { Ok(length) }
    }

    pub(super) fn new_inode(&mut self, attributes: Attributes, node: Node) -> Result<Id, Error> {
        let id = Id::try_from(self.inodes.len()).map_err(|_| Error::Limit { what: "entries", max: self.limits.entries })?;
        self.inodes.push(Inode { attributes, node, links: 0 });
        Ok(id)
    }

    /// Names an inode. What had the name before (a whiteout, or what the caller unlinked) loses it.
    pub(super) fn put(&mut self, parent: Id, name: &[u8], id: Id) {
        let is_directory = self.directory(id).is_some();
        self.inodes[id as usize].links += 1;
        let directory = self.directory_mut(parent);
        directory.subdirectories += u32::from(is_directory);
        let before = directory.children.insert(name.into(), id);
        if let Some(before) = before {
            self.drop_name(before);
        }
    }

    pub(super) fn drop_name(&mut self, id: Id) {
        let inode = &mut self.inodes[id as usize];
        inode.links -= 1;
        if inode.links == 0 {
            inode.node = Node::Gone;
            inode.attributes.xattrs.clear();
        }
    }

    fn charge_link_step(&mut self) -> Result<(), Error> {
        let over = Error::Limit { what: "steps through symlinked parents", max: self.limits.link_steps };
        self.budget.link_steps = self.budget.link_steps.checked_sub(1).ok_or(over)?;
        Ok(())
    }
}
