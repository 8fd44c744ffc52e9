//! The model's sample tree as a base tree of a store.

use std::collections::BTreeMap;

use vefs::base::{Attrs, BaseBuilder, BaseError};
use vefs::ids::Hash;
use vefs::object::ObjectStore;
use vefs::types::{Kind, mode};

use crate::model::BaseEntry;

/// Builds a base tree of a plain list; directories come before what is in them.
pub fn build(objects: &ObjectStore, tree: &[BaseEntry]) -> Result<Hash, BaseError> {
    let mut builder = BaseBuilder::new(objects.clone());
    let mut dirs = BTreeMap::from([(Vec::new(), BaseBuilder::ROOT)]);
    for entry in tree {
        let at = entry.path.iter().rposition(|b| *b == b'/');
        let (dir, name) = at.map_or((&[][..], &entry.path[..]), |i| (&entry.path[..i], &entry.path[i + 1..]));
        let parent = *dirs.get(dir).ok_or(BaseError::NotADirectory)?;
        let (uid, gid, rdev) = (entry.uid, entry.gid, entry.rdev);
        let attrs = Attrs { mode: entry.mode, uid, gid, rdev, ..Attrs::default() };
        let node = match Kind::of_mode(entry.mode) {
            Some(Kind::Directory) => {
                let node = builder.add_dir(parent, name, &attrs)?;
                dirs.insert(entry.path.clone(), node);
                node
            }
            Some(Kind::Regular) => {
                let executable = entry.mode & mode::IXGRP != 0;
                let content = builder.add_content(&mut &entry.content[..], executable, false)?;
                builder.add_file(parent, name, &attrs, content)?
            }
            Some(Kind::Symlink) => builder.add_symlink(parent, name, &attrs, &entry.target)?,
            _ => builder.add_node(parent, name, &attrs)?,
        };
        for (name, value) in &entry.xattrs {
            builder.set_xattr(node, name, value)?;
        }
    }
    builder.finish()
}
