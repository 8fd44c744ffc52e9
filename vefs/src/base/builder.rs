//! Building a tree: names, attributes and contents go in, in any order; numbers and bytes come out at the end.
//!
//! What is built depends on what was put in, not on the order: also packs are filled in the order of the tree.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::io::Read;

use super::check;
use super::pack::{PackRun, Packer};
use super::{BaseError, Content, Pieces, RuleError};
use crate::clock::Timestamp;
use crate::object::ObjectStore;
use crate::types::{Kind, mode};

/// An inode of one builder. Only that builder knows what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(u32);

impl NodeId {
    pub(super) fn index(&self) -> usize {
        self.0 as usize
    }
}

/// What an importer says about an inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Permission bits, and the type bits or none; with [`BaseBuilder::add_node`] the type bits say what is made.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, for a device; else it is not looked at.
    pub rdev: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
}

/// A tree in the making.
pub struct BaseBuilder {
    pub(super) packer: Packer,
    pub(super) nodes: Vec<Node>,
}

pub(super) struct Node {
    pub attrs: Attrs,
    pub kind: Kind,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub body: Body,
}

pub(super) enum Body {
    Dir(BTreeMap<Vec<u8>, NodeId>),
    File { size: u64, runs: Vec<PackRun> },
    Symlink(Vec<u8>),
    Special,
}

impl BaseBuilder {
    /// The root directory of every builder.
    pub const ROOT: NodeId = NodeId(0);

    /// Starts with an empty root directory, mode 0755, owner 0:0, times 0.
    pub fn new(objects: ObjectStore) -> BaseBuilder {
        let attrs = Attrs { mode: mode::IFDIR | 0o755, ..Attrs::default() };
        let body = Body::Dir(BTreeMap::new());
        let root = Node { attrs, kind: Kind::Directory, xattrs: BTreeMap::new(), body };
        BaseBuilder { packer: Packer::new(objects), nodes: vec![root] }
    }

    /// Makes a content of bytes: 64 KiB and more, or an executable, become an object of their own, less goes to a
    /// pack. With `sparse`, which says that the source had holes, chunks of 64 KiB that are all zero become holes; an
    /// object then holds only the rest, one chunk after the other.
    ///
    /// # Errors
    /// `Content` when the reader fails, `Object`, `Rule` for a content over the limit.
    pub fn add_content(&mut self, reader: &mut dyn Read, executable: bool, sparse: bool) -> Result<Content, BaseError> {
        self.packer.add(reader, executable, sparse)
    }

    /// Starts a content whose pieces come one by one; [`BaseBuilder::add_content`] tells what becomes of it.
    pub fn begin_content(&self, executable: bool, sparse: bool) -> Pieces {
        Pieces::new(self.packer.objects().clone(), executable, sparse)
    }

    /// Ends a content of `size` bytes; a hole may be at its end.
    ///
    /// # Errors
    /// As [`Pieces::write`].
    pub fn end_content(&mut self, pieces: Pieces, size: u64) -> Result<Content, BaseError> {
        self.packer.end(pieces, size)
    }

    fn node(&mut self, id: NodeId) -> Result<&mut Node, BaseError> {
        self.nodes.get_mut(id.index()).ok_or(BaseError::NotADirectory)
    }

    fn children(&mut self, dir: NodeId) -> Result<&mut BTreeMap<Vec<u8>, NodeId>, BaseError> {
        match &mut self.node(dir)?.body {
            Body::Dir(children) => Ok(children),
            _ => Err(BaseError::NotADirectory),
        }
    }

    fn enter(&mut self, dir: NodeId, name: &[u8], id: NodeId) -> Result<(), BaseError> {
        match self.children(dir)?.entry(name.to_vec()) {
            btree_map::Entry::Occupied(_) => Err(BaseError::Exists),
            btree_map::Entry::Vacant(free) => {
                free.insert(id);
                Ok(())
            }
        }
    }

    fn add(&mut self, dir: NodeId, name: &[u8], attrs: &Attrs, kind: Kind, body: Body) -> Result<NodeId, BaseError> {
        check::name(name)?;
        let attrs = checked(attrs, kind)?;
        let count = self.nodes.len() as u64;
        let id = NodeId(u32::try_from(count).map_err(|_| BaseError::Count(count))?);
        self.enter(dir, name, id)?;
        self.nodes.push(Node { attrs, kind, xattrs: BTreeMap::new(), body });
        Ok(id)
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// `Exists`, `NotADirectory`, `Rule` for a bad name or attributes. The same for everything that is added.
    pub fn add_dir(&mut self, dir: NodeId, name: &[u8], attrs: &Attrs) -> Result<NodeId, BaseError> {
        self.add(dir, name, attrs, Kind::Directory, Body::Dir(BTreeMap::new()))
    }

    /// Adds a regular file. The objects of its content stay pinned until the builder is done.
    ///
    /// # Errors
    /// See [`BaseBuilder::add_dir`]; `Object` when an object of the content is not there.
    pub fn add_file(&mut self, dir: NodeId, name: &[u8], attrs: &Attrs, content: Content) -> Result<NodeId, BaseError> {
        self.pin_content(&content)?;
        self.add(dir, name, attrs, Kind::Regular, Body::File { size: content.size, runs: content.runs })
    }

    /// Gives a regular file another content.
    ///
    /// # Errors
    /// `Rule` when the inode is none; `Object` when an object of the content is not there.
    pub fn set_content(&mut self, id: NodeId, content: Content) -> Result<(), BaseError> {
        self.pin_content(&content)?;
        match &mut self.node(id)?.body {
            Body::File { size, runs } => {
                (*size, *runs) = (content.size, content.runs);
                Ok(())
            }
            _ => Err(RuleError::Parts.into()),
        }
    }

    fn pin_content(&mut self, content: &Content) -> Result<(), BaseError> {
        let objects = content.runs.iter().filter_map(|run| match run.object {
            super::pack::Object::Named(hash) => Some(hash),
            super::pack::Object::Small(_) => None,
        });
        for hash in objects {
            self.packer.pin_existing(hash)?;
        }
        Ok(())
    }

    /// Adds a symbolic link. Its permissions are 0777, as Linux has it.
    ///
    /// # Errors
    /// See [`BaseBuilder::add_dir`]; `Rule` for a bad target.
    pub fn add_symlink(&mut self, dir: NodeId, name: &[u8], attrs: &Attrs, target: &[u8]) -> Result<NodeId, BaseError> {
        check::target(target)?;
        self.add(dir, name, attrs, Kind::Symlink, Body::Symlink(target.to_vec()))
    }

    /// Adds a device, FIFO or socket, as the type bits of the mode say.
    ///
    /// # Errors
    /// See [`BaseBuilder::add_dir`]; `Rule` for type bits of another kind.
    pub fn add_node(&mut self, dir: NodeId, name: &[u8], attrs: &Attrs) -> Result<NodeId, BaseError> {
        match check::kind(attrs.mode)? {
            Kind::Regular | Kind::Directory | Kind::Symlink => Err(RuleError::Mode.into()),
            kind => self.add(dir, name, attrs, kind, Body::Special),
        }
    }

    /// Adds another name of an inode that is no directory.
    ///
    /// # Errors
    /// `LinkToDirectory`, and see [`BaseBuilder::add_dir`].
    pub fn add_link(&mut self, dir: NodeId, name: &[u8], to: NodeId) -> Result<(), BaseError> {
        check::name(name)?;
        match self.node(to)?.kind {
            Kind::Directory => Err(BaseError::LinkToDirectory),
            _ => self.enter(dir, name, to),
        }
    }

    /// Sets the attributes of an inode, the root's for instance. Its kind stays.
    ///
    /// # Errors
    /// `Rule` for bad attributes or another kind.
    pub fn set_attrs(&mut self, id: NodeId, attrs: &Attrs) -> Result<(), BaseError> {
        let node = self.node(id)?;
        node.attrs = checked(attrs, node.kind)?;
        Ok(())
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// `Rule` when name, value or all names together are not within the limits.
    pub fn set_xattr(&mut self, id: NodeId, name: &[u8], value: &[u8]) -> Result<(), BaseError> {
        check::xattr(name, value)?;
        let node = self.node(id)?;
        let others = node.xattrs.keys().filter(|n| *n != name).map(Vec::len);
        check::xattr_list(others.chain([name.len()]))?;
        node.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    /// Removes all extended attributes of an inode.
    ///
    /// # Errors
    /// `NotADirectory` for a handle of another builder.
    pub fn clear_xattrs(&mut self, id: NodeId) -> Result<(), BaseError> {
        self.node(id)?.xattrs.clear();
        Ok(())
    }

    /// The inode that a name stands for; `None` when there is none.
    pub fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.nodes.get(dir.index())?.body {
            Body::Dir(children) => children.get(name).copied(),
            _ => None,
        }
    }

    /// What kind of file an inode is.
    pub fn kind(&self, id: NodeId) -> Option<Kind> {
        self.nodes.get(id.index()).map(|node| node.kind)
    }

    /// Removes a name, with everything below it; answers whether there was one. An inode with other names stays.
    ///
    /// # Errors
    /// `NotADirectory`.
    pub fn remove(&mut self, dir: NodeId, name: &[u8]) -> Result<bool, BaseError> {
        Ok(self.children(dir)?.remove(name).is_some())
    }
}

/// Checks attributes for an inode of this kind and puts them in their one form.
fn checked(attrs: &Attrs, kind: Kind) -> Result<Attrs, RuleError> {
    let mut attrs = attrs.clone();
    if attrs.mode & mode::IFMT == 0 {
        attrs.mode |= kind.bits();
    }
    if check::kind(attrs.mode)? != kind {
        return Err(RuleError::Mode);
    }
    if kind == Kind::Symlink {
        attrs.mode |= 0o777;
        attrs.mode &= !0o7000;
    }
    if !matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        attrs.rdev = 0;
    }
    check::times(&[attrs.atime, attrs.mtime, attrs.ctime, attrs.btime])?;
    Ok(attrs)
}
