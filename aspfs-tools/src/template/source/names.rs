//! The names of what has been told of, so that members of archives, which say paths, become numbers; and what a later member
//! or layer does to an earlier one.
//!
//! Invariant: what stands here is what the receiver has.

use std::collections::BTreeMap;

use vefs::limits::NAME_MAX;

use super::super::event::{Event, Meta, What};
use super::{Out, Result};

/// Longest path of a member, in bytes.
const PATH_MAX: usize = 32 << 10;

/// Why a member cannot be where it wants to be. Worded to follow its name.
pub(super) type Refused = String;

/// Either what [`super`] reports, or a member that is refused.
pub(super) enum NameError {
    Refused(Refused),
    Out(super::SourceError),
}

impl From<super::SourceError> for NameError {
    fn from(e: super::SourceError) -> NameError {
        NameError::Out(e)
    }
}

impl From<Refused> for NameError {
    fn from(e: Refused) -> NameError {
        NameError::Refused(e)
    }
}

type NameResult<T> = std::result::Result<T, NameError>;

struct Entry {
    /// Entries of a directory; `None` for anything else.
    children: Option<BTreeMap<Box<[u8]>, u32>>,
    symlink: bool,
    /// The layer that told of it last.
    layer: u32,
}

/// All names so far.
pub(super) struct Names {
    entries: Vec<Entry>,
    layer: u32,
}

/// The parts of a member's path. A leading slash is ignored, as tar does; `.` and empty parts as well.
pub(super) fn parts(path: &[u8]) -> std::result::Result<Vec<&[u8]>, Refused> {
    if path.len() > PATH_MAX {
        return Err(format!("its path is longer than {PATH_MAX} bytes"));
    }
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err("its path has `..` in it and may lead out of the tree".into());
    }
    if parts.iter().any(|p| p.len() > NAME_MAX || p.contains(&0)) {
        return Err(format!("its path has a name of more than {NAME_MAX} bytes, or with a NUL"));
    }
    Ok(parts)
}

impl Names {
    pub fn new() -> Names {
        let root = Entry { children: Some(BTreeMap::new()), symlink: false, layer: 0 };
        Names { entries: vec![root], layer: 0 }
    }

    /// What comes from here on belongs to the next layer.
    pub fn next_layer(&mut self) {
        self.layer += 1;
    }

    fn child(&self, dir: u32, name: &[u8]) -> Option<u32> {
        self.entries[dir as usize].children.as_ref()?.get(name).copied()
    }

    fn is_dir(&self, node: u32) -> bool {
        self.entries[node as usize].children.is_some()
    }

    /// The number of the inode at a path, if it is there.
    fn find(&self, parts: &[&[u8]]) -> Option<u32> {
        parts.iter().try_fold(0, |dir, name| self.child(dir, name))
    }

    /// The directory that a path's last part is in. What is missing of it is made: mode 0755, owner 0:0, times 0.
    fn parent(&mut self, out: &mut Out<'_>, dirs: &[&[u8]]) -> NameResult<u32> {
        let mut at = 0;
        for name in dirs {
            at = match self.child(at, name) {
                Some(next) if self.is_dir(next) => next,
                Some(next) => {
                    let what = if self.entries[next as usize].symlink { "a symbolic link" } else { "not a directory" };
                    return Err(format!("its parent {:?} is {what}", String::from_utf8_lossy(name)).into());
                }
                None => {
                    let meta = Meta { mode: 0o755, ..Meta::default() };
                    self.add(out, at, name, meta, What::Directory)?
                }
            };
        }
        Ok(at)
    }

    /// Tells of a new inode under a free name.
    fn add(&mut self, out: &mut Out<'_>, parent: u32, name: &[u8], meta: Meta, what: What) -> NameResult<u32> {
        let full = || "there are too many members".to_owned();
        let number = u32::try_from(self.entries.len()).map_err(|_| full())?;
        let children = matches!(what, What::Directory).then(BTreeMap::new);
        let symlink = matches!(what, What::Symlink(_));
        self.entries.push(Entry { children, symlink, layer: self.layer });
        self.name(parent, name, number);
        out.event(Event::Node { parent, name: name.to_vec(), meta, what })?;
        Ok(number)
    }

    fn name(&mut self, parent: u32, name: &[u8], node: u32) {
        if let Some(children) = &mut self.entries[parent as usize].children {
            children.insert(name.into(), node);
        }
    }

    fn remove(&mut self, out: &mut Out<'_>, parent: u32, name: &[u8]) -> Result<()> {
        if let Some(children) = &mut self.entries[parent as usize].children {
            children.remove(name);
        }
        out.event(Event::Remove { parent, name: name.to_vec() })
    }

    /// Tells of a member. A directory that is there gets the member's attributes; anything else at its path is replaced.
    pub fn put(&mut self, out: &mut Out<'_>, path: &[u8], meta: Meta, what: What) -> NameResult<()> {
        let parts = parts(path)?;
        let Some((name, dirs)) = parts.split_last() else {
            return match what {
                What::Directory => Ok(out.event(Event::Meta { node: 0, meta })?),
                _ => Err("it has the name of the root and is no directory".to_owned().into()),
            };
        };
        let parent = self.parent(out, dirs)?;
        match self.child(parent, name) {
            Some(node) if self.is_dir(node) && what == What::Directory => {
                self.entries[node as usize].layer = self.layer;
                Ok(out.event(Event::Meta { node, meta })?)
            }
            found => {
                if found.is_some() {
                    self.remove(out, parent, name)?;
                }
                self.add(out, parent, name, meta, what).map(drop)
            }
        }
    }

    /// Tells of another name of a member.
    pub fn link(&mut self, out: &mut Out<'_>, path: &[u8], target: &[u8]) -> NameResult<()> {
        let shown = String::from_utf8_lossy(target).into_owned();
        let to = parts(target).map_err(|_| format!("it is a link to {shown:?}, which may lead out of the tree"))?;
        let to = self.find(&to).ok_or_else(|| format!("it is a link to {shown:?}, which is not there"))?;
        if self.is_dir(to) {
            return Err(format!("it is a hard link to the directory {shown:?}").into());
        }
        let parts = parts(path)?;
        let Some((name, dirs)) = parts.split_last() else {
            return Err("it has the name of the root and is no directory".to_owned().into());
        };
        let parent = self.parent(out, dirs)?;
        match self.child(parent, name) {
            Some(found) if found == to => {
                self.entries[to as usize].layer = self.layer;
                return Ok(());
            }
            Some(_) => self.remove(out, parent, name)?,
            None => {}
        }
        self.name(parent, name, to);
        self.entries[to as usize].layer = self.layer;
        Ok(out.event(Event::Link { parent, name: name.to_vec(), to })?)
    }

    /// Hides what earlier layers have at a path: a whiteout.
    pub fn hide(&mut self, out: &mut Out<'_>, path: &[u8]) -> NameResult<()> {
        let parts = parts(path)?;
        if let Some((name, dirs)) = parts.split_last()
            && let Some(parent) = self.find(dirs)
            && let Some(node) = self.child(parent, name)
        {
            self.hide_entry(out, parent, name, node)?;
        }
        Ok(())
    }

    /// Hides what earlier layers have in a directory: an opaque one.
    pub fn hide_below(&mut self, out: &mut Out<'_>, path: &[u8]) -> NameResult<()> {
        let parts = parts(path)?;
        if let Some(dir) = self.find(&parts) {
            for (name, node) in self.list(dir) {
                self.hide_entry(out, dir, &name, node)?;
            }
        }
        Ok(())
    }

    fn list(&self, dir: u32) -> Vec<(Box<[u8]>, u32)> {
        let children = self.entries[dir as usize].children.iter().flatten();
        children.map(|(name, node)| (name.clone(), *node)).collect()
    }

    /// Whether this layer has told of an entry, or of anything below it.
    fn hide_entry(&mut self, out: &mut Out<'_>, parent: u32, name: &[u8], node: u32) -> Result<()> {
        // Depth first, without recursion: a tree may be as deep as its maker likes.
        let mut stack = vec![(parent, Box::<[u8]>::from(name), node, false)];
        while let Some((parent, name, node, seen)) = stack.pop() {
            if self.is_dir(node) && !seen {
                stack.push((parent, name, node, true));
                stack.extend(self.list(node).into_iter().map(|(name, child)| (node, name, child, false)));
                continue;
            }
            let entry = &self.entries[node as usize];
            let is_empty = entry.children.as_ref().is_none_or(BTreeMap::is_empty);
            if entry.layer < self.layer && is_empty {
                self.remove(out, parent, &name)?;
            }
        }
        Ok(())
    }
}
