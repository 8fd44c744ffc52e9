//! A store in memory, importing into it, and what a tree looks like from inside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aspfs_tests::harness::{World, small_options};
use aspfs_tools::template::event::Event;
use aspfs_tools::template::sink::{Import, ImportError, Imported};
use aspfs_tools::template::source::{self, Options, Progress, SourceError};
use vefs::Store;
use vefs::base::BaseTree;
use vefs::ids::{Hash, InodeNo};
use vefs::storage::memory::MemStorage;
use vefs::types::{Kind, Source};

/// A new store.
pub fn store() -> Arc<Store> {
    World::create(Arc::new(MemStorage::new()), 1, small_options()).unwrap().open().unwrap()
}

/// Imports a source, every event through its bytes; also the last figures that were told of the reading.
pub fn import_told(store: &Arc<Store>, path: &Path, options: &Options) -> Result<(Imported, Progress), SourceError> {
    let mut import = Import::begin(store).unwrap();
    let mut told = Progress::default();
    let mut progress = |now: Progress| told = now;
    source::read(path, options, &mut progress, &mut |event| Ok(import.event(Event::decode(&event.encode())?)?))?;
    let done = import.finish().map_err(|e| SourceError::Receiver(Box::new(e)))?;
    Ok((done, told))
}

/// Imports a source, every event through its bytes.
pub fn import_with(store: &Arc<Store>, path: &Path, options: &Options) -> Result<Imported, SourceError> {
    import_told(store, path, options).map(|(done, _)| done)
}

/// As [`import_with`], with the usual options.
pub fn import(store: &Arc<Store>, path: &Path) -> Result<Imported, SourceError> {
    import_with(store, path, &Options::default())
}

/// Gives events to an import; the first error ends it.
pub fn feed(store: &Arc<Store>, events: Vec<Event>) -> Result<Imported, ImportError> {
    let mut import = Import::begin(store)?;
    events.into_iter().try_for_each(|event| import.event(event))?;
    import.finish()
}

/// What there is to be seen of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub ino: u64,
    pub mode: u32,
    pub owner: (u32, u32),
    pub nlink: u32,
    pub rdev: u64,
    pub size: u64,
    pub mapped: u64,
    pub mtime: (i64, u32),
    pub bytes: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Every path of a tree.
pub fn look(store: &Store, root: Hash) -> BTreeMap<Vec<u8>, Seen> {
    let tree = BaseTree::open(&**store.storage(), root).unwrap();
    let mut out = BTreeMap::from([(Vec::new(), inode(store, &tree, InodeNo::ROOT))]);
    let mut dirs = vec![(Vec::new(), InodeNo::ROOT)];
    while let Some((path, dir)) = dirs.pop() {
        for (name, dentry) in tree.entries(dir, 0) {
            let path = if path.is_empty() { name.to_vec() } else { [&path, &b"/"[..], name].concat() };
            out.insert(path.clone(), inode(store, &tree, dentry.ino));
            if dentry.kind == Kind::Directory {
                dirs.push((path, dentry.ino));
            }
        }
    }
    out
}

fn inode(store: &Store, tree: &BaseTree, ino: InodeNo) -> Seen {
    let i = tree.inode(ino).unwrap();
    assert_eq!((i.atime, i.ctime, i.btime), (i.mtime, i.mtime, i.mtime));
    let bytes = match i.kind() {
        Kind::Symlink => tree.target(ino).unwrap().to_vec(),
        Kind::Regular if i.size <= 8 << 20 => {
            let mut out = vec![0; i.size as usize];
            for (at, extent) in tree.content(ino) {
                let Source::Base { hash, offset } = extent.source else { panic!("{extent:?}") };
                let range = *at as usize..(*at + extent.len) as usize;
                store.objects().open(hash).unwrap().read_at(&mut out[range], offset).unwrap();
            }
            out
        }
        _ => Vec::new(),
    };
    let xattrs = tree.xattrs(ino).map(|name| (name.to_vec(), tree.xattr(ino, name).unwrap().to_vec()));
    Seen {
        ino: ino.0,
        mode: i.mode,
        owner: (i.uid, i.gid),
        nlink: i.nlink,
        rdev: i.rdev,
        size: i.size,
        mapped: i.mapped,
        mtime: (i.mtime.secs, i.mtime.nanos),
        bytes,
        xattrs: xattrs.collect(),
    }
}
