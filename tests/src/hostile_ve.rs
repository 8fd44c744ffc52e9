//! A store whose journal is planted: right in form, hostile in content. And everything one can do with the VE in it.

use std::sync::Arc;

use bytes::Bytes;
use vefs::change::{Body, Seal};
use vefs::clock::Timestamp;
use vefs::codec;
use vefs::format::identity::Identity;
use vefs::format::record::{self, FrameKind, Parts};
use vefs::format::segment::{DATA_START, SegmentHeader};
use vefs::format::superblock::Superblock;
use vefs::ids::{Epoch, Hash, InodeNo, Lineage, TxnNo, VeId};
use vefs::meta::MemoryMeta;
use vefs::meta::rows::Head;
use vefs::op::{FallocMode, Op, Owner, RenameFlags, SetAttr};
use vefs::storage::memory::{Content, MemStorage};
use vefs::types::mode;
use vefs::ve::{Envelope, Request, Retention};
use vefs::{Error, Ve};

use crate::harness::{World, empty_tree, small_options};

const STORE: [u8; 16] = [7; 16];
const VE: VeId = VeId(1);
const EPOCH: Epoch = Epoch(1);
const INCARNATION: u64 = 99;

/// The head of the planted VE's first moment, with this next inode number.
pub fn head(next_ino: u64) -> Head {
    Head {
        lineage: Lineage([3; 16]),
        epoch: EPOCH,
        txn: TxnNo(0),
        chain: Hash::default(),
        time: Timestamp::default(),
        journal: 0,
        seq: 0,
        bytes: next_ino as i64,
        inodes: 0,
        next_ino: InodeNo(next_ino),
        floor: TxnNo(0),
        history: next_ino,
    }
}

/// A journal in the making.
pub struct Planted {
    frames: Vec<u8>,
    seq: u64,
    txn: TxnNo,
    records: u32,
    chain: Hash,
    chained: Vec<u8>,
    pending: Vec<Hash>,
    meta: Arc<MemoryMeta>,
}

impl Default for Planted {
    fn default() -> Self {
        Planted::new()
    }
}

impl Planted {
    /// An empty journal.
    pub fn new() -> Planted {
        let mut p = Planted {
            frames: Vec::new(),
            seq: 0,
            txn: TxnNo(1),
            records: 0,
            chain: Hash::default(),
            chained: Vec::new(),
            pending: Vec::new(),
            meta: Arc::default(),
        };
        p.begin();
        p
    }

    fn begin(&mut self) {
        self.chained = [&b"aspfs chain 1"[..], &self.chain.0].concat();
        self.records = 0;
        self.pending.clear();
    }

    /// Frames so far.
    pub fn frames(&self) -> u64 {
        self.seq
    }

    /// The transaction being planted.
    pub fn txn(&self) -> TxnNo {
        self.txn
    }

    /// The metadata store that will be opened with it.
    pub fn meta(&self) -> &Arc<MemoryMeta> {
        &self.meta
    }

    /// Bytes where frames should be.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.frames.extend_from_slice(bytes);
    }

    fn frame(&mut self, kind: FrameKind, body: &[u8], envelope: &[u8], payload: &[u8]) {
        let parts = Parts { kind, txn: self.txn, seq: self.seq, epoch: EPOCH, synced_upto: 0, body, envelope, payload };
        let end = self.frames.len() + parts.frame_len() as usize;
        self.frames.extend_from_slice(&parts.header(INCARNATION, record::crc(INCARNATION, payload)));
        for part in [body, envelope, payload] {
            self.frames.extend_from_slice(part);
        }
        self.frames.resize(end, 0);
        self.seq += 1;
    }

    /// A record with its checksums and its part of the chain hash.
    pub fn record(&mut self, body: &Body, envelope: &Envelope, payload: &[u8]) {
        let bytes = codec::encode(body);
        self.chained.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.chained.extend_from_slice(&bytes);
        self.records += 1;
        if body.payload.is_some_and(|p| p.hash.is_none()) {
            self.pending.push(Hash::default());
        }
        self.frame(FrameKind::Body, &bytes, &codec::encode(envelope), payload);
    }

    /// Seals the transaction, chain hash right.
    pub fn seal(&mut self, time: Timestamp) {
        let mut input = self.chained.clone();
        input.extend_from_slice(b"seal");
        input.extend_from_slice(&self.txn.0.to_le_bytes());
        input.extend_from_slice(&EPOCH.0.to_le_bytes());
        input.extend_from_slice(&time.secs.to_le_bytes());
        input.extend_from_slice(&time.nanos.to_le_bytes());
        self.pending.iter().for_each(|p| input.extend_from_slice(&p.0));
        let chain = Hash::of(&input);
        let seal = Seal { records: self.records, time, payloads: self.pending.clone(), chain };
        self.frame(FrameKind::Seal, &codec::encode(&seal), &[], &[]);
        self.chain = chain;
        self.txn = TxnNo(self.txn.0 + 1);
        self.begin();
    }

    /// Opens the store and does everything with the VE, if it opens. True when it did.
    pub fn open(self) -> bool {
        let superblock = Superblock { store: STORE, created: Timestamp::default() }.to_bytes();
        let lineage = Lineage([3; 16]);
        let identity =
            Identity { store: STORE, ve: VE, lineage, base: empty_tree(), epoch: EPOCH, slot: VE }.to_bytes();
        let capacity = self.frames.len().next_multiple_of(4096) as u64;
        let header =
            SegmentHeader { store: STORE, ve: VE, incarnation: INCARNATION, order: 0, base: 0, first_seq: 0, capacity };
        let mut segment = Content::zeros(DATA_START + capacity);
        segment.write_at(&header.to_bytes(), 0);
        segment.write_at(&self.frames, DATA_START);
        let whole = |bytes: &[u8]| {
            let mut c = Content::default();
            c.write_at(bytes, 0);
            Arc::new(c)
        };
        let files = [
            ("superblock".into(), whole(&superblock)),
            (format!("ves/{VE}/identity").into(), whole(&identity)),
            (format!("ves/{VE}/journal/0000000000000001").into(), Arc::new(segment)),
        ];
        let mut world = World::attach(Arc::new(MemStorage::from_files(files, [])), 1, small_options());
        world.meta = self.meta;
        let store = world.open().expect("the store itself is sound");
        match store.ve(VE) {
            Ok(ve) => {
                exercise(&ve);
                let _ = store.tick();
                let _ = store.persist();
                true
            }
            Err(e) => {
                assert!(!matches!(e, Error::Posix(_)), "opening a VE answers what is wrong with it: {e}");
                false
            }
        }
    }
}

/// Reads and changes whatever there is. Every error is fine, a panic is not.
fn exercise(ve: &Arc<Ve>) {
    let first = InodeNo::FIRST_PRIVATE.0;
    let inodes = [1, first, first + 1, first + 2, first + 3, 1 << 62].map(InodeNo);
    inodes.into_iter().for_each(|ino| look(ve, ino));
    inodes.into_iter().for_each(|ino| change(ve, ino));
    let _ = (ve.usage(), ve.statfs(), ve.position(), ve.orphans(), ve.holds());
    let _ = ve.commit();
    let _ = ve.publish();
    for txn in 0..4 {
        if let Ok(past) = ve.version(TxnNo(txn)) {
            for ino in inodes {
                let _ = (past.inode(ino), past.entries(ino, 0, 20), past.xattr_names(ino), past.read(ino, 0, 5000));
            }
        }
    }
    let _ = ve.versions();
    let _ = ve.collect(&Retention::default());
    inodes.into_iter().for_each(|ino| look(ve, ino));
}

fn look(ve: &Ve, ino: InodeNo) {
    let size = ve.inode(ino).map_or(0, |i| i.size);
    let _ = (ve.entries(ino, 0, 20), ve.entries(ino, u64::MAX, 20), ve.lookup(ino, b"a"));
    let _ = (ve.read(ino, 0, 5000), ve.read(ino, size.saturating_sub(100), 5000), ve.readlink(ino));
    let _ = (ve.seek_data(ino, 0), ve.seek_hole(ino, 0), ve.seek_data(ino, size.saturating_sub(1)));
    let _ = (ve.xattr_names(ino), ve.xattr(ino, b"user.a"));
}

fn change(ve: &Ve, ino: InodeNo) {
    let (parent, root) = (ino, InodeNo::ROOT);
    let name = |n: &str| n.as_bytes().to_vec();
    let set = SetAttr { size: Some(100), ..SetAttr::default() };
    let owner = Owner::default();
    let whole = FallocMode::Allocate { keep_size: true };
    let ops = [
        Op::Create { parent, name: name("new"), mode: mode::IFREG | 0o644, rdev: 0, owner },
        Op::Create { parent, name: name("a"), mode: mode::IFDIR | 0o755, rdev: 0, owner },
        Op::Link { ino, parent: root, name: name("linked") },
        Op::Write { ino, offset: 50, data: Bytes::from_static(b"written after recovery"), kill_priv: true },
        Op::CopyRange { src: ino, src_offset: 0, dst: InodeNo::FIRST_PRIVATE, dst_offset: 1 << 20, len: u64::MAX },
        Op::Fallocate { ino, mode: whole, offset: 0, len: vefs::limits::FILE_SIZE_MAX },
        Op::Fallocate { ino, mode: FallocMode::PunchHole, offset: 10, len: 1 << 40 },
        Op::Setattr { ino, set },
        Op::Rename { parent, name: name("a"), new_parent: root, new_name: name("b"), flags: RenameFlags::default() },
        Op::Removexattr { ino, name: name("user.a") },
        Op::Unlink { parent, name: name("c") },
        Op::Rmdir { parent, name: name("b") },
        Op::Reap { ino },
        Op::Trim { ino, from: 0 },
    ];
    for op in ops {
        let _ = ve.execute(&op, Request::default());
    }
}
