//! Composing a stack of trees into one, metadata only: no content is read or written.
//!
//! Later trees win. Directories of the same path merge and take attributes and extended attributes of the later one;
//! anything else of a later tree replaces what has its path, a directory with everything below it included, and a
//! directory replaces what is none. Hard links within a tree stay hard links. Whiteouts, `.wh.` names and opaque marks
//! are plain files here.

use std::collections::HashMap;
use std::sync::Arc;

use super::builder::{Attrs, BaseBuilder, NodeId};
use super::{BaseError, BaseTree, Content};
use crate::ids::{Hash, InodeNo};
use crate::limits::BASE_STACK_MAX;
use crate::object::ObjectStore;
use crate::types::{Inode, Kind, Source};

/// Composes trees, the first one lowest, into a builder; [`BaseBuilder::finish`] makes the new tree. The objects of
/// what is left of them are pinned until then.
///
/// # Errors
/// `Count` for no tree or more than [`BASE_STACK_MAX`], `Rule` for what becomes invalid by it.
pub fn compose(objects: &ObjectStore, trees: &[Arc<BaseTree>]) -> Result<BaseBuilder, BaseError> {
    if trees.is_empty() || trees.len() > BASE_STACK_MAX {
        return Err(BaseError::Count(trees.len() as u64));
    }
    let mut builder = BaseBuilder::new(objects.clone());
    for tree in trees {
        add(&mut builder, tree)?;
    }
    Ok(builder)
}

fn add(builder: &mut BaseBuilder, tree: &BaseTree) -> Result<(), BaseError> {
    let mut linked: HashMap<InodeNo, NodeId> = HashMap::new();
    settle(builder, tree, BaseBuilder::ROOT, InodeNo::ROOT)?;
    let mut dirs = vec![(InodeNo::ROOT, BaseBuilder::ROOT)];
    while let Some((dir, parent)) = dirs.pop() {
        for (name, dentry) in tree.entries(dir, 0) {
            let below = builder.child(parent, name);
            let is_dir = dentry.kind == Kind::Directory;
            if let Some(id) = below.filter(|id| is_dir && builder.kind(*id) == Some(Kind::Directory)) {
                settle(builder, tree, id, dentry.ino)?;
                dirs.push((dentry.ino, id));
                continue;
            }
            builder.remove(parent, name)?;
            if let Some(id) = linked.get(&dentry.ino) {
                builder.add_link(parent, name, *id)?;
                continue;
            }
            let Some(inode) = tree.inode(dentry.ino) else { continue };
            let id = create(builder, tree, parent, name, dentry.ino, &inode)?;
            copy_xattrs(builder, tree, id, dentry.ino)?;
            if is_dir {
                dirs.push((dentry.ino, id));
            } else if inode.nlink > 1 {
                linked.insert(dentry.ino, id);
            }
        }
    }
    Ok(())
}

/// Gives an existing directory the attributes that `tree` has for it.
fn settle(builder: &mut BaseBuilder, tree: &BaseTree, id: NodeId, ino: InodeNo) -> Result<(), BaseError> {
    if let Some(inode) = tree.inode(ino) {
        builder.set_attrs(id, &attrs(&inode))?;
    }
    builder.clear_xattrs(id)?;
    copy_xattrs(builder, tree, id, ino)
}

fn copy_xattrs(builder: &mut BaseBuilder, tree: &BaseTree, id: NodeId, ino: InodeNo) -> Result<(), BaseError> {
    tree.xattrs(ino).try_for_each(|name| builder.set_xattr(id, name, tree.xattr(ino, name).unwrap_or_default()))
}

fn create(
    builder: &mut BaseBuilder,
    tree: &BaseTree,
    parent: NodeId,
    name: &[u8],
    ino: InodeNo,
    inode: &Inode,
) -> Result<NodeId, BaseError> {
    let attrs = attrs(inode);
    match inode.kind() {
        Kind::Directory => builder.add_dir(parent, name, &attrs),
        Kind::Symlink => builder.add_symlink(parent, name, &attrs, tree.target(ino).unwrap_or_default()),
        Kind::Regular => {
            let runs = tree.content(ino).iter().map(|(offset, extent)| {
                let (hash, place) = match extent.source {
                    Source::Base { hash, offset } => (hash, offset),
                    // A tree has no other source.
                    _ => (Hash::default(), 0),
                };
                (*offset, extent.len, hash, place)
            });
            builder.add_file(parent, name, &attrs, Content::from_runs(inode.size, runs)?)
        }
        _ => builder.add_node(parent, name, &attrs),
    }
}

fn attrs(inode: &Inode) -> Attrs {
    Attrs {
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev,
        atime: inode.atime,
        mtime: inode.mtime,
        ctime: inode.ctime,
        btime: inode.btime,
    }
}
