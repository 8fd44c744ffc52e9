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

/// What a name in a directory stands for.
#[derive(Clone, Copy)]
struct Child {
    node: u32,
    /// The layer that told of this name last. A layer that tells of another name of the inode leaves this one with its own.
    layer: u32,
}

struct Entry {
    /// Entries of a directory; `None` for anything else.
    children: Option<BTreeMap<Box<[u8]>, Child>>,
    symlink: bool,
    /// Of a directory, the layer that made it or hid all of earlier ones in it. While that layer is read nothing else comes to be hidden in
    /// it, so that nobody looks for it again.
    clean: u32,
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
        let root = Entry { children: Some(BTreeMap::new()), symlink: false, clean: 0 };
        Names { entries: vec![root], layer: 0 }
    }

    /// What comes from here on belongs to the next layer.
    pub fn next_layer(&mut self) {
        self.layer += 1;
    }

    fn told(&self, dir: u32, name: &[u8]) -> Option<Child> {
        self.entries[dir as usize].children.as_ref()?.get(name).copied()
    }

    fn child(&self, dir: u32, name: &[u8]) -> Option<u32> {
        self.told(dir, name).map(|child| child.node)
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
        self.entries.push(Entry { children, symlink, clean: self.layer });
        self.name(parent, name, number);
        out.event(Event::Node { parent, name: name.to_vec(), meta, what })?;
        Ok(number)
    }

    /// The present layer tells of a name.
    fn name(&mut self, parent: u32, name: &[u8], node: u32) {
        if let Some(children) = &mut self.entries[parent as usize].children {
            children.insert(name.into(), Child { node, layer: self.layer });
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
                self.name(parent, name, node);
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
                self.name(parent, name, to);
                return Ok(());
            }
            Some(_) => self.remove(out, parent, name)?,
            None => {}
        }
        self.name(parent, name, to);
        Ok(out.event(Event::Link { parent, name: name.to_vec(), to })?)
    }

    /// Hides what earlier layers have at a path: a whiteout.
    pub fn hide(&mut self, out: &mut Out<'_>, path: &[u8]) -> NameResult<()> {
        let parts = parts(path)?;
        if let Some((name, dirs)) = parts.split_last()
            && let Some(parent) = self.find(dirs)
            && let Some(child) = self.told(parent, name)
        {
            self.hide_entry(out, parent, name, child)?;
        }
        Ok(())
    }

    /// Hides what earlier layers have in a directory: an opaque one.
    pub fn hide_below(&mut self, out: &mut Out<'_>, path: &[u8]) -> NameResult<()> {
        let parts = parts(path)?;
        if let Some(dir) = self.find(&parts) {
            for (name, child) in self.clean(dir) {
                self.hide_entry(out, dir, &name, child)?;
            }
        }
        Ok(())
    }

    /// What is in a directory, to be hidden by the caller: nothing, if that was done in this layer already.
    fn clean(&mut self, dir: u32) -> Vec<(Box<[u8]>, Child)> {
        let entry = &mut self.entries[dir as usize];
        if entry.clean == self.layer {
            return Vec::new();
        }
        entry.clean = self.layer;
        entry.children.iter().flatten().map(|(name, child)| (name.clone(), *child)).collect()
    }

    /// Hides an entry and all below it, but for what this layer has told of and the directories that this is in.
    fn hide_entry(&mut self, out: &mut Out<'_>, parent: u32, name: &[u8], child: Child) -> Result<()> {
        // Depth first, without recursion: a tree may be as deep as its maker likes.
        let mut stack = vec![(parent, Box::<[u8]>::from(name), child, false)];
        while let Some((parent, name, child, seen)) = stack.pop() {
            if self.is_dir(child.node) && !seen {
                stack.push((parent, name, child, true));
                let below = self.clean(child.node);
                stack.extend(below.into_iter().map(|(name, inner)| (child.node, name, inner, false)));
                continue;
            }
            let is_empty = self.entries[child.node as usize].children.as_ref().is_none_or(BTreeMap::is_empty);
            if child.layer < self.layer && is_empty {
                self.remove(out, parent, &name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Progress;
    use super::*;

    /// Every repeated `.wh..wh..opq` listed the whole directory, so that a small layer of many names and as many of these kept the import
    /// busy for hours.
    #[test]
    fn a_directory_is_looked_through_once_in_a_layer() {
        let mut out = Out { emit: &mut |_| Ok(()), progress: &mut |_| {}, now: Progress::default(), told: (0, 0) };
        let mut names = Names::new();
        let mut layer = |names: &mut Names, path: &[u8]| {
            names.next_layer();
            assert!(names.put(&mut out, path, Meta::default(), What::Fifo).is_ok());
            assert!(names.hide_below(&mut out, b"d").is_ok());
        };
        layer(&mut names, b"d/below/old");
        layer(&mut names, b"d/below/new");
        let dir = names.child(0, b"d").unwrap();
        let below = names.child(dir, b"below").unwrap();
        assert!(names.child(below, b"old").is_none() && names.child(below, b"new").is_some());
        assert!(names.clean(dir).is_empty() && names.clean(below).is_empty(), "nothing is left to be hidden");
        names.next_layer();
        assert_eq!((names.clean(dir).len(), names.clean(below).len()), (1, 1), "the next layer may hide it all");
    }
}
