//! The worlds that crash runs start from, and opening a store on a disk that was found.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use vefs::clock::{Clock, ManualClock};
use vefs::entropy::SeededEntropy;
use vefs::ids::{InodeNo, VeId};
use vefs::meta::{MemoryMeta, MetaStore};
use vefs::op::{Op, Owner};
use vefs::storage::Storage;
use vefs::storage::memory::MemStorage;
use vefs::store::{Options, Parts, Store};
use vefs::types::mode;
use vefs::ve::Request;
use vefs::{Error, Ve};

use crate::harness::{create_ve, small_options};
use crate::model::{Model, Reader, acl};

/// The VE of every crash run.
pub const VE: VeId = VeId(1);
/// Its quota in bytes and inodes.
pub const QUOTA: (u64, u64) = (8 << 20, 400);

/// Sizes so small that a handful of operations rolls over segments and begins extent files.
pub fn tiny_options() -> Options {
    Options {
        segment_min: 16 << 10,
        segment_max: 64 << 10,
        extent_target: 96 << 10,
        overlay_soft: 96 << 10,
        overlay_hard: 192 << 10,
        persist_bytes: 64 << 10,
        checkpoint_bytes: 256 << 10,
        ..small_options()
    }
}

/// A store at rest, everything of it durable, and what its VE holds.
#[derive(Clone)]
pub struct Base {
    /// Files.
    pub storage: Arc<MemStorage>,
    /// Metadata.
    pub meta: Arc<MemoryMeta>,
    /// What the VE holds.
    pub model: Model,
    /// The clock at that moment.
    pub time: Duration,
    /// Sizes.
    pub options: Options,
    /// Bytes that the disk takes, when it has a limit.
    pub capacity: Option<u64>,
    scratch: Arc<TempDir>,
}

/// The inodes of a prepared world by what they are.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each is what its name says")]
pub struct Things {
    pub file: InodeNo,
    pub bulk: InodeNo,
    pub dir: InodeNo,
    pub inner: InodeNo,
    pub empty: InodeNo,
    pub link: InodeNo,
    pub fifo: InodeNo,
    pub orphan: InodeNo,
    pub orphan_dir: InodeNo,
}

/// Where the content of a prepared world lies when a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// In the journal only: recovery replays all of it.
    Journal,
    /// In the metadata store and extent files: recovery replays nothing.
    Published,
}

/// Opens the store on these parts as a process that starts at `time`.
pub fn open(
    base: &Base,
    storage: Arc<dyn Storage>,
    meta: Arc<dyn MetaStore>,
    seed: u64,
) -> Result<(Arc<Store>, Arc<ManualClock>), Error> {
    let clock = Arc::new(ManualClock::default());
    clock.advance(base.time);
    let parts = Parts {
        storage,
        meta,
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(seed)),
        // Made with the first one: most stores here have none to look for.
        checkpoints: base.scratch.path().join("checkpoints"),
        options: base.options.clone(),
    };
    Ok((Arc::new(Store::open_with(parts)?), clock))
}

/// Carries an operation out in both worlds; an error other than the file system's own is given back, a different answer is told.
pub fn both(ve: &Ve, model: &mut Model, op: &Op, clock: &ManualClock) -> Result<Result<(), Error>, String> {
    let now = clock.wall();
    let before = model.clone();
    let want = model.apply(op, now);
    match ve.execute(op, Request::default()) {
        Ok(reply) if want == Ok(reply.clone()) => Ok(Ok(())),
        Err(Error::Posix(e)) if want == Err(e) => Ok(Ok(())),
        Err(e) if !matches!(e, Error::Posix(_)) => {
            *model = before;
            Ok(Err(e))
        }
        other => Err(format!("{op:?}: the model answers {want:?}, the core {other:?}")),
    }
}

impl Base {
    /// An empty VE, all of it durable.
    pub fn empty(options: Options) -> Result<Base, Error> {
        let scratch = TempDir::new().map_err(Error::io("making", "a folder for checkpoints"))?;
        let storage = Arc::new(MemStorage::new());
        let clock = ManualClock::default();
        Store::create_on(&*storage, &clock, &SeededEntropy::new(7))?;
        let mut base = Base {
            storage: storage.clone(),
            meta: Arc::default(),
            model: Model::new(QUOTA.0, QUOTA.1),
            time: Duration::from_secs(1),
            options,
            capacity: None,
            scratch: Arc::new(scratch),
        };
        let (store, _) = open(&base, storage.clone(), base.meta.clone(), 11)?;
        create_ve(&store, VE.0, QUOTA.0, QUOTA.1)?;
        base.storage = Arc::new(storage.snapshot());
        base.meta = Arc::new(base.meta.after_crash());
        Ok(base)
    }

    /// The same on a disk that takes only so many bytes more.
    pub fn with_room(&self, bytes: u64) -> Base {
        let storage = self.storage.snapshot();
        let capacity = Some(storage.used() + bytes);
        storage.set_capacity(capacity);
        Base { storage: Arc::new(storage), capacity, ..self.clone() }
    }

    /// A VE with one of everything.
    pub fn prepared(rest: Rest, options: Options) -> Result<(Base, Things), String> {
        let mut base = Base::empty(options).map_err(|e| e.to_string())?;
        let storage = Arc::new(base.storage.snapshot());
        let meta = Arc::new(base.meta.after_crash());
        let (store, clock) = open(&base, storage.clone(), meta.clone(), 13).map_err(|e| e.to_string())?;
        let ve = store.ve(VE).map_err(|e| e.to_string())?;
        for op in preparation(&base.model) {
            clock.advance(Duration::from_millis(10));
            both(&ve, &mut base.model, &op, &clock)?.map_err(|e| format!("{op:?}: {e}"))?;
        }
        let rested = match rest {
            Rest::Journal => ve.commit(),
            Rest::Published => ve.publish().and_then(|()| store.persist()),
        };
        rested.map_err(|e| e.to_string())?;
        drop((ve, store));
        base.storage = Arc::new(storage.snapshot());
        base.meta = Arc::new(meta.after_crash());
        base.time = clock.boot() + Duration::from_millis(10);
        let things = things(&base.model).ok_or("the preparation made other inodes")?;
        Ok((base, things))
    }
}

/// Bytes that tell their place: no two pages are alike.
pub fn pattern(seed: u64, len: usize) -> Bytes {
    (0..len as u64).map(|i| (i ^ (i >> 8) ^ seed.wrapping_mul(0x9d) ^ (i >> 12).wrapping_mul(31)) as u8).collect()
}

fn names() -> [(&'static [u8], u32); 8] {
    [
        (b"file", mode::IFREG | 0o4755),
        (b"bulk", mode::IFREG | 0o644),
        (b"dir", mode::IFDIR | 0o2755),
        (b"empty", mode::IFDIR | 0o755),
        (b"fifo", mode::IFIFO | 0o600),
        (b"orphan", mode::IFREG | 0o644),
        (b"orphandir", mode::IFDIR | 0o755),
        (b"gone", mode::IFREG | 0o644),
    ]
}

fn preparation(model: &Model) -> Vec<Op> {
    let root = InodeNo::ROOT;
    let owner = Owner { uid: 3, gid: 4, umask: 0o022 };
    let create = |parent, name: &[u8], mode| Op::Create { parent, name: name.to_vec(), mode, rdev: 0, owner };
    let first = model.next_ino().0;
    let ino = |n: u64| InodeNo(first + n);
    let write = |ino, offset, len| Op::Write { ino, offset, data: pattern(len as u64, len), kill_priv: false };
    let mut ops: Vec<Op> = names().iter().map(|(name, mode)| create(root, name, *mode)).collect();
    let entry = |tag, perm, id| acl::AclEntry::new(tag, perm, id);
    let list = [
        entry(acl::USER_OBJ, 7, acl::NO_ID),
        entry(acl::USER, 5, 9),
        entry(acl::GROUP_OBJ, 5, acl::NO_ID),
        entry(acl::MASK, 7, acl::NO_ID),
        entry(acl::OTHER, 1, acl::NO_ID),
    ];
    let set =
        |ino, name: &[u8], value| Op::Setxattr { ino, name: name.to_vec(), value, mode: vefs::op::XattrMode::Set };
    ops.extend([
        set(ino(2), acl::DEFAULT, acl::encode(&list)),
        create(ino(2), b"inner", mode::IFREG | 0o664),
        Op::Symlink { parent: root, name: b"link".to_vec(), target: b"dir/inner".to_vec(), owner },
        write(ino(0), 0, 3000),
        write(ino(0), 8192, 5000),
        write(ino(1), 4096, 70_000),
        write(ino(5), 0, 2000),
        write(ino(8), 100, 300),
        Op::Link { ino: ino(0), parent: ino(2), name: b"hard".to_vec() },
        set(ino(0), b"user.one", b"1".to_vec()),
        set(ino(2), b"user.two", vec![2; 5000]),
        Op::Unlink { parent: root, name: b"orphan".to_vec() },
        Op::Rmdir { parent: root, name: b"orphandir".to_vec() },
        Op::Unlink { parent: root, name: b"gone".to_vec() },
        Op::Reap { ino: ino(7) },
    ]);
    ops
}

fn things(model: &Model) -> Option<Things> {
    let find = |name: &[u8]| model.lookup(InodeNo::ROOT, name).ok().map(|d| d.ino);
    let (file, dir) = (find(b"file")?, find(b"dir")?);
    Some(Things {
        file,
        bulk: find(b"bulk")?,
        dir,
        inner: model.lookup(dir, b"inner").ok()?.ino,
        empty: find(b"empty")?,
        link: find(b"link")?,
        fifo: find(b"fifo")?,
        orphan: InodeNo(file.0 + 5),
        orphan_dir: InodeNo(file.0 + 6),
    })
}
