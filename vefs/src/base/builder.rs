//! Building a tree: names, attributes and contents go in, in any order; numbers and bytes come out at the end.
//!
//! What is built depends on what was put in, not on the order: also packs are filled in the order of the tree.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::io::{IoSlice, Read};

use super::check::{self, DIR_SIZE};
use super::format::{Entry, Head, Run, Xattr, tree_path};
use super::pack::{PackRun, Packer};
use super::write::{PageWriter, Sink, WriteError};
use super::{BaseError, Content, Pieces, RuleError};
use crate::clock::Timestamp;
use crate::ids::Hash;
use crate::limits::{BASE_INODES_MAX, LINK_MAX};
use crate::object::{ObjectStore, Pin};
use crate::types::{Kind, mode};

/// An inode of one builder. Only that builder knows what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(u32);

impl NodeId {
    fn index(&self) -> usize {
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

/// A tree that was built.
#[derive(Debug)]
pub struct Built {
    /// Its root hash.
    pub hash: Hash,
    /// Its inodes.
    pub inodes: u64,
    /// Bytes of its files, holes not counted; hard links once.
    pub bytes: u64,
    /// Bytes of objects that were not in the store before.
    pub new_bytes: u64,
    /// Keeps the tree from removal until something names it.
    pub pin: Pin,
}

/// A tree in the making.
pub struct BaseBuilder {
    pub(super) packer: Packer,
    nodes: Vec<Node>,
}

struct Node {
    attrs: Attrs,
    kind: Kind,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    body: Body,
}

enum Body {
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

    /// As [`BaseBuilder::build`], for those who name the tree before anybody collects garbage.
    ///
    /// # Errors
    /// As [`BaseBuilder::build`].
    pub fn finish(self) -> Result<Hash, BaseError> {
        Ok(self.build()?.hash)
    }

    /// Makes all objects and then the tree durable. From then on whoever collects garbage sees the tree in `bases/`, and keeps it
    /// for as long as it is pinned; until then its objects are pinned.
    ///
    /// # Errors
    /// `Object`, `Io`, `Count` for too many inodes, `Rule` for too many links.
    pub fn build(mut self) -> Result<Built, BaseError> {
        let plan = self.number()?;
        for id in &plan.order {
            if let Body::File { runs, .. } = &self.nodes[id.index()].body {
                runs.iter().try_for_each(|run| self.packer.pack(run))?;
            }
        }
        self.packer.flush()?;
        let objects = self.packer.objects();
        let staging = objects.staging(".tree")?;
        let file = staging.file.clone();
        let mut sink = |offset, bytes: &[u8]| file.write_at(&[IoSlice::new(bytes)], offset);
        let (hash, bytes) = self.write(&plan, &mut sink, &staging.path)?;
        let io_at = |path: &str| {
            let path = path.to_owned();
            |source| BaseError::Io { path, source }
        };
        file.sync().map_err(io_at(&staging.path))?;
        let pin = objects.pin(hash);
        staging.rename(&tree_path(hash))?;
        objects.storage().sync_dir("bases").map_err(io_at("bases"))?;
        self.packer.resurrect();
        Ok(Built { hash, inodes: plan.order.len() as u64, bytes, new_bytes: self.packer.new_bytes(), pin })
    }

    /// Writes the bytes of the tree, and answers its root hash and the bytes of its files; `path` is for errors.
    fn write(&self, plan: &Plan, sink: Sink<'_>, path: &str) -> Result<(Hash, u64), BaseError> {
        let mut pages = PageWriter::new(sink);
        let mut bytes = 0;
        for id in &plan.order {
            if let Body::File { runs, .. } = &self.nodes[id.index()].body {
                bytes += runs.iter().map(|run| run.len).sum::<u64>();
            }
            self.write_node(&mut pages, *id, plan).map_err(|e| e.at(path))?;
        }
        Ok((pages.finish().map_err(|e| e.at(path))?, bytes))
    }

    fn write_node(&self, pages: &mut PageWriter<'_>, id: NodeId, plan: &Plan) -> Result<(), WriteError> {
        let node = &self.nodes[id.index()];
        let (mut size, mut target, mut entries, mut runs): (_, &[u8], _, Vec<Run>) = (0, b"", Vec::new(), Vec::new());
        match &node.body {
            Body::Dir(children) => {
                size = DIR_SIZE;
                let entry = |name, at: usize| Entry { name, ino: plan.numbers[at], kind: self.nodes[at].kind };
                entries = children.iter().map(|(name, child)| entry(name, child.index())).collect();
            }
            Body::File { size: len, runs: packed } => {
                size = *len;
                runs = packed.iter().filter_map(|run| self.packer.resolve(run)).collect();
                debug_assert_eq!(runs.len(), packed.len(), "every pack is finished before the tree is written");
            }
            Body::Symlink(path) => {
                size = path.len() as u64;
                target = path;
            }
            Body::Special => {}
        }
        let attrs = &node.attrs;
        let head = Head {
            mode: attrs.mode,
            uid: attrs.uid,
            gid: attrs.gid,
            nlink: plan.links[id.index()],
            rdev: attrs.rdev,
            size,
            atime: attrs.atime,
            mtime: attrs.mtime,
            ctime: attrs.ctime,
            btime: attrs.btime,
            target,
            xattrs: 0,
            entries: 0,
            runs: 0,
        };
        let xattrs: Vec<_> = node.xattrs.iter().map(|(name, value)| Xattr { name, value }).collect();
        pages.inode(head, &xattrs, &entries, &runs)
    }

    /// Numbers what can be reached from the root, in depth-first order, and counts links.
    fn number(&self) -> Result<Plan, BaseError> {
        let mut plan = Plan { order: Vec::new(), numbers: vec![0; self.nodes.len()], links: vec![0; self.nodes.len()] };
        let mut stack = Vec::new();
        let mut visit = Some((Self::ROOT, Self::ROOT));
        loop {
            if let Some((parent, id)) = visit.take() {
                let at = id.index();
                plan.links[at] += 1;
                if plan.numbers[at] == 0 {
                    plan.order.push(id);
                    plan.numbers[at] = plan.order.len() as u32;
                }
                if let Body::Dir(children) = &self.nodes[at].body {
                    plan.links[at] = 2;
                    if id != parent {
                        plan.links[parent.index()] += 1;
                    }
                    stack.push((id, children.values()));
                } else if plan.links[at] > LINK_MAX {
                    return Err(RuleError::Links.into());
                }
            }
            let Some((dir, left)) = stack.last_mut() else { break };
            match left.next() {
                Some(child) => visit = Some((*dir, *child)),
                None => drop(stack.pop()),
            }
        }
        let count = plan.order.len() as u64;
        if count > BASE_INODES_MAX { Err(BaseError::Count(count)) } else { Ok(plan) }
    }
}

/// The numbers of a tree about to be written; `numbers` and `links` are by node.
struct Plan {
    order: Vec<NodeId>,
    numbers: Vec<u32>,
    links: Vec<u32>,
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
