//! A base tree under the model: numbered and filled from a plain list.

use bytes::Bytes;

use vefs::clock::Timestamp;
use vefs::ids::InodeNo;
use vefs::types::{Dentry, Kind, mode};

use super::content::Segment;
use super::{Body, Model, Node, acl};

/// One file of a base tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseEntry {
    /// Path from the root, without a leading slash; empty for the root itself.
    pub path: Vec<u8>,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, for devices.
    pub rdev: u64,
    /// Content of a regular file.
    pub content: Vec<u8>,
    /// Target of a symlink.
    pub target: Vec<u8>,
    /// Extended attributes, ACLs included; an access ACL must agree with `mode`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl BaseEntry {
    /// An entry of root's.
    pub fn new(path: &str, mode: u32) -> BaseEntry {
        BaseEntry { path: path.as_bytes().to_vec(), mode, ..BaseEntry::default() }
    }

    /// The same with content.
    pub fn with_content(self, content: Vec<u8>) -> BaseEntry {
        BaseEntry { content, ..self }
    }

    /// The same with an extended attribute.
    pub fn with_xattr(mut self, name: &[u8], value: Vec<u8>) -> BaseEntry {
        self.xattrs.push((name.to_vec(), value));
        self
    }
}

impl Model {
    /// A VE over a base tree: inode numbers from 1 on, depth first with the names of each directory in byte order; cookies from
    /// 3 on in the same order; all times 0; every byte of content mapped, free of charge. Every directory on a path needs
    /// an entry of its own; the root's may be left out.
    pub fn with_tree(quota_bytes: u64, quota_inodes: u64, tree: &[BaseEntry]) -> Model {
        let mut model = Model::new(quota_bytes, quota_inodes);
        // Byte order of paths, compared by component, is depth-first order with sorted names.
        let mut sorted: Vec<(Vec<&[u8]>, &BaseEntry)> =
            tree.iter().map(|e| (e.path.split(|b| *b == b'/').filter(|c| !c.is_empty()).collect(), e)).collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let mut next = InodeNo::ROOT.0 + 1;
        for (path, entry) in sorted {
            let Some((name, dirs)) = path.split_last() else {
                let root = model.known(InodeNo::ROOT);
                (root.attr.mode, root.attr.uid, root.attr.gid) = (entry.mode, entry.uid, entry.gid);
                root.xattrs = entry.xattrs.iter().cloned().collect();
                continue;
            };
            let parent = dirs.iter().fold(InodeNo::ROOT, |at, dir| match model.lookup_entry(at, dir) {
                Ok(Dentry { ino, kind: Kind::Directory, .. }) => ino,
                other => panic!("no directory for {:?}: {other:?}", String::from_utf8_lossy(&entry.path)),
            });
            let node = base_node(entry, parent);
            let kind = node.attr.kind();
            assert!(model.lookup_entry(parent, name).is_err(), "{:?} is there twice", entry.path);
            model.nodes.insert(next, node);
            model.enter(parent, name, InodeNo(next), kind);
            model.known(parent).attr.nlink += u32::from(kind == Kind::Directory);
            next += 1;
        }
        model
    }
}

fn base_node(entry: &BaseEntry, parent: InodeNo) -> Node {
    let mut node = Node::new(entry.mode, entry.uid, entry.gid, Timestamp::default());
    node.attr.flags = 0;
    node.xattrs = entry.xattrs.iter().cloned().collect();
    match &mut node.body {
        Body::File(content) => {
            content.put(0, Segment::Base(Bytes::from(entry.content.clone())));
            node.attr.size = content.mapped();
            node.attr.mapped = content.mapped();
        }
        Body::Symlink(target) => {
            target.clone_from(&entry.target);
            node.attr.size = entry.target.len() as u64;
        }
        Body::Dir(_) => node.attr.parent = parent,
        Body::Special => {
            let device = matches!(node.attr.kind(), Kind::CharDevice | Kind::BlockDevice);
            node.attr.rdev = if device { entry.rdev } else { 0 };
        }
    }
    node
}

/// A small tree that has one of everything: for property tests over a base.
pub fn sample_tree() -> Vec<BaseEntry> {
    let file = |path: &str, bits: u32, len: usize| {
        let content = (0..len).map(|i| (i / 7 + i / 4096 + path.len()) as u8).collect();
        BaseEntry::new(path, mode::IFREG | bits).with_content(content)
    };
    let dir = |path: &str, bits: u32| BaseEntry::new(path, mode::IFDIR | bits);
    let entry = acl::AclEntry::new;
    let list = [
        entry(acl::USER_OBJ, 7, 0),
        entry(acl::USER, 5, 1000),
        entry(acl::GROUP_OBJ, 5, 0),
        entry(acl::MASK, 5, 0),
        entry(acl::OTHER, 5, 0),
    ];
    vec![
        dir("a", 0o755),
        dir("a/b", 0o755),
        dir("a/b/c", 0o700),
        file("a/b/c/d", 0o644, 100),
        file("a/b/e", 0o4755, 70_000),
        file("a/f", 0o2755, 200_000),
        file("a/g", 0o600, 0),
        dir("b", 0o2775),
        file("b/a", 0o644, 4096),
        dir("b/b", 0o755).with_xattr(acl::DEFAULT, acl::encode(&list)),
        BaseEntry { target: b"../b/a".to_vec(), ..BaseEntry::new("c", mode::IFLNK | 0o777) },
        dir("d", 0o1777),
        file("e", 0o755, 10).with_xattr(b"user.a", b"base".to_vec()).with_xattr(acl::ACCESS, acl::encode(&list)),
        BaseEntry { rdev: 0x103, ..BaseEntry::new("f", mode::IFCHR | 0o666) },
        BaseEntry::new("g", mode::IFIFO | 0o600),
        BaseEntry { uid: 7, gid: 8, ..file("h", 0o664, 300_000) },
    ]
}
