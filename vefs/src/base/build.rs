//! The end of building: numbers and bytes of the inodes, and the order in which everything becomes durable.

use std::io::IoSlice;

use super::builder::{BaseBuilder, Body, NodeId};
use super::check::DIR_SIZE;
use super::format::{Entry, Head, Run, Xattr, tree_path};
use super::write::{PageWriter, Sink, WriteError};
use super::{BaseError, RuleError};
use crate::ids::Hash;
use crate::limits::{BASE_INODES_MAX, LINK_MAX};
use crate::object::Pin;

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

impl BaseBuilder {
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
