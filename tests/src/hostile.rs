//! Hostile bytes against everything that decodes (promise G29): one function a decoder, used by the fuzz targets and, with
//! random and mutated golden bytes, by a plain test. None may panic, hang or take much memory; what is accepted must come
//! out again as it went in.

use std::sync::Arc;

use bytes::Bytes;
use vefs::base::BaseTree;
use vefs::change::validate::validate;
use vefs::change::{Body, Change, Hold, PayloadRef, Purpose, Seal, Settings};
use vefs::clock::Timestamp;
use vefs::codec;
use vefs::content::ExtentPlace;
use vefs::format::extent::ExtentHeader;
use vefs::format::identity::Identity;
use vefs::format::record::{self, FrameKind};
use vefs::format::segment::SegmentHeader;
use vefs::format::superblock::Superblock;
use vefs::ids::{Hash, InodeNo, PayloadId, TxnNo, VeId};
use vefs::meta::rows::{self, Current, Former};
use vefs::meta::{Batch, MetaStore, Table};
use vefs::object::ObjectStore;
use vefs::op::{Op, Owner, SetAttr, XattrMode};
use vefs::state::key::{Entry, Key, Value};
use vefs::storage::memory::{Content, MemStorage};
use vefs::types::{Dentry, Extent, Inode, Kind, Source, mode};
use vefs::ve::{Envelope, Memo, Request};

use crate::harness::{World, create_ve, small_options};
use crate::{hostile_ve, samples};

/// A decoder that is given bytes.
pub type Target = fn(&[u8]);

/// Every decoder there is, by the name of its fuzz target.
pub const TARGETS: [(&str, Target); 13] = [
    ("acl", acl),
    ("base_tree", base_tree),
    ("codec", values),
    ("extent_header", extent_header),
    ("frame", frame),
    ("identity", identity),
    ("journal", journal),
    ("key", key),
    ("metadata", metadata),
    ("object", object),
    ("segment_file", segment_file),
    ("segment_header", segment_header),
    ("superblock", superblock),
];

/// Gives bytes to the decoder of a name.
pub fn run(target: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, decode) = found.unwrap_or_else(|| panic!("there is no target {target}"));
    decode(data);
}

fn superblock(data: &[u8]) {
    if let Ok(s) = Superblock::parse(data) {
        assert_eq!(Superblock::parse(&s.to_bytes()), Ok(s));
    }
}

fn identity(data: &[u8]) {
    if let Ok(i) = Identity::parse(data) {
        assert_eq!(Identity::parse(&i.to_bytes()), Ok(i));
    }
}

fn segment_header(data: &[u8]) {
    if let Ok(h) = SegmentHeader::parse(data) {
        assert_eq!(SegmentHeader::parse(&h.to_bytes()), Ok(h));
    }
}

fn extent_header(data: &[u8]) {
    if let Ok(h) = ExtentHeader::parse(data) {
        assert_eq!(ExtentHeader::parse(&h.to_bytes()), Ok(h));
    }
}

/// A frame as it is, and one whose header is right and whose parts are the input.
fn frame(data: &[u8]) {
    if let Ok(f) = record::parse(data, samples::INCARNATION) {
        assert!(f.header.frame_len() as usize <= data.len());
        parts(&f);
    }
    let (first, rest) = data.split_at(data.len() / 2);
    let bytes = samples::frame(FrameKind::Body, first, rest, &[]);
    let f = record::parse(&bytes, samples::INCARNATION).expect("a frame made by this program");
    assert_eq!((f.body, f.envelope), (first, rest));
    parts(&f);
}

fn parts(f: &record::Frame<'_>) {
    if let Ok(body) = codec::decode::<Body>(f.body) {
        let _ = validate(&body, f.header.txn);
    }
    again::<Body>(f.body);
    again::<Envelope>(f.envelope);
    again::<Seal>(f.body);
}

/// Decoding what was encoded gives the same value.
fn again<T: bincode::Decode<()> + bincode::Encode + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(value) = codec::decode::<T>(data) {
        assert_eq!(codec::decode::<T>(&codec::encode(&value)).expect("encoded here"), value);
    }
}

fn values(data: &[u8]) {
    again::<Body>(data);
    again::<Seal>(data);
    again::<Envelope>(data);
    again::<Change>(data);
    again::<Value>(data);
    again::<Current>(data);
    again::<Former>(data);
    again::<rows::Head>(data);
    again::<rows::TxnRow>(data);
    again::<ExtentPlace>(data);
    again::<Vec<String>>(data);
}

fn key(data: &[u8]) {
    if let Some(k) = Key::from_bytes(data) {
        assert_eq!(k.as_bytes(), data);
        let _ = format!("{k:?} {} {:?} {}", k.number(), k.rest(), k.ino());
        assert!(k.successor() > k || k.number() == u64::MAX);
    }
    let _ = rows::parse_history(data);
    let _ = rows::parse_current(data);
    let _ = rows::parse_change(data);
    let _ = rows::parse_txn(data);
    let (k, v) = data.split_at(data.len().min(20));
    let _ = rows::parse_place(k, v);
    let _ = rows::head_row(data);
}

fn with_files(files: Vec<(String, Vec<u8>)>) -> MemStorage {
    let content = |bytes: Vec<u8>| {
        let mut c = Content::zeros(bytes.len() as u64);
        c.write_at(&bytes, 0);
        Arc::new(c)
    };
    MemStorage::from_files(files.into_iter().map(|(path, bytes)| (path.into(), content(bytes))), [])
}

/// A tree's file under the name that its header gives it. The header's checksum is put right, so that what is behind it is met.
fn base_tree(data: &[u8]) {
    let mut data = data.to_vec();
    let mut name = Hash::default();
    if data.len() >= 96 {
        name.0.copy_from_slice(&data[48..80]);
        let crc = crc(&data[..92]);
        data[92..96].copy_from_slice(&crc.to_le_bytes());
    }
    let storage = with_files(vec![(format!("bases/{name}.tree"), data)]);
    if let Ok(tree) = BaseTree::open(&storage, name) {
        assert_eq!(tree.hash(), name);
        for ino in (1..=tree.inode_count()).map(InodeNo) {
            assert!(tree.inode(ino).is_some());
            assert!(tree.entries(ino, 0).all(|(name, _)| tree.lookup(ino, name).is_some()));
        }
    }
}

/// A body and its sidecar. The header's checksum is put right.
fn object(data: &[u8]) {
    let (mut sidecar, body) = (data.to_vec(), data.get(112..).unwrap_or_default().to_vec());
    let mut name = Hash::default();
    if sidecar.len() >= 80 {
        name.0.copy_from_slice(&sidecar[40..72]);
        let crc = crc(&sidecar[..76]);
        sidecar[76..80].copy_from_slice(&crc.to_le_bytes());
    }
    let path = ObjectStore::body_path(name);
    let sum = format!("{path}.sum");
    let store = ObjectStore::new(Arc::new(with_files(vec![(path, body), (sum, sidecar)])));
    if let Ok(object) = store.open(name) {
        let mut buf = vec![0; object.len().min(1 << 20) as usize];
        let _ = object.read_at(&mut buf, 0);
    }
    let _ = store.verify(name);
}

/// CRC32 as headers have it: that of a frame under incarnation 0.
fn crc(bytes: &[u8]) -> u32 {
    record::crc(0, bytes)
}

/// The value of an ACL attribute, set, inherited, and put under a chmod.
fn acl(data: &[u8]) {
    let mut world = World::create(Arc::new(MemStorage::new()), 1, small_options()).expect("a store in memory");
    let ve = create_ve(&world.open().expect("opening"), 1, u64::MAX, u64::MAX).expect("a VE");
    let run = |op: &Op| match ve.execute(op, Request::default()) {
        Ok(_) | Err(vefs::Error::Posix(_)) => {}
        Err(e) => panic!("{op:?}: {e}"),
    };
    let root = InodeNo::ROOT;
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        let (name, value) = (name.as_bytes().to_vec(), data.to_vec());
        run(&Op::Setxattr { ino: root, name, value, mode: XattrMode::Set });
    }
    for (name, kind) in [("f", mode::IFREG), ("d", mode::IFDIR)] {
        let owner = Owner { uid: 1, gid: 1, umask: 0o27 };
        run(&Op::Create { parent: root, name: name.into(), mode: kind | 0o777, rdev: 0, owner });
    }
    let set = SetAttr { mode: Some(0o750), ..SetAttr::default() };
    run(&Op::Setattr { ino: root, set });
    run(&Op::Setattr { ino: InodeNo::FIRST_PRIVATE, set });
}

/// A segment whose header is right and whose frames are the input, as it is.
fn segment_file(data: &[u8]) {
    let mut planted = hostile_ve::Planted::new();
    planted.raw(data);
    planted.open();
}

/// A journal of valid frames whose bodies say absurd things: recovery refuses or applies, and the VE goes on.
fn journal(data: &[u8]) {
    journal_opens(data);
}

/// As the target `journal`; whether the VE opened. Half of the inputs plant only records that each for itself may be applied, so that
/// their sum is met.
pub fn journal_opens(data: &[u8]) -> bool {
    let mut input = Input(data);
    let picky = input.byte() % 2 == 0;
    let mut planted = hostile_ve::Planted::new();
    while !input.0.is_empty() && planted.frames() < 64 {
        let records = 1 + input.byte() % 4;
        for _ in 0..records {
            let changes = (0..input.byte() % 6).map(|_| input.change()).collect();
            let (payload, inline, place) = input.payload();
            let purpose = if input.byte() % 8 == 0 { Purpose::Housekeeping } else { Purpose::Operation };
            let memo = (input.byte() % 4 == 0).then(|| Memo::Inode(InodeNo(input.number())));
            let envelope = Envelope { unique: u64::from(input.byte()), memo, place };
            let body = Body { purpose, changes, payload };
            if picky && (body.payload.is_some() || validate(&body, planted.txn()).is_err()) {
                continue;
            }
            planted.record(&body, &envelope, &inline);
        }
        if input.byte() % 8 != 0 {
            planted.seal(Timestamp { secs: if picky { 1 } else { i64::from(input.byte()) }, nanos: 0 });
        }
    }
    planted.open()
}

/// Metadata rows that say absurd things, under right and wrong keys.
fn metadata(data: &[u8]) {
    let mut input = Input(data);
    let mut batch = Batch::default();
    let ve = VeId(1);
    while !input.0.is_empty() && batch.rows.len() < 200 {
        let key = input.key();
        let (birth, death) = (TxnNo(input.number()), TxnNo(input.number()));
        match input.byte() % 6 {
            0 | 1 => {
                let row = Current { birth: TxnNo(birth.0 % 4), value: input.value(key.kind() as u8) };
                batch.put(Table::Current, rows::current(ve, key.as_bytes()), codec::encode(&row));
            }
            2 => {
                let row = Former { death, value: input.value(key.kind() as u8) };
                batch.put(Table::History, rows::history(ve, &key, birth), codec::encode(&row));
            }
            3 => {
                let id = PayloadId { txn: birth, offset: input.number() };
                batch.put(Table::Places, rows::place(ve, id), codec::encode(&input.place()));
            }
            4 => {
                let row = rows::Head { journal: 0, seq: 0, txn: birth, ..hostile_ve::head(input.number()) };
                batch.put(Table::System, rows::head(ve), codec::encode(&row));
            }
            _ => {
                let raw = input.bytes(40);
                let table = Table::ALL[usize::from(input.byte()) % 5];
                batch.put(table, rows::current(ve, key.as_bytes()), raw);
            }
        }
    }
    let planted = hostile_ve::Planted::new();
    planted.meta().write(batch).expect("memory");
    planted.open();
}

/// Bytes read as values, mostly near the limits where sums overflow.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let n = usize::from(self.byte()) % (max + 1);
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    fn number(&mut self) -> u64 {
        const SOME: [u64; 12] = [
            0,
            1,
            u64::MAX,
            i64::MAX as u64,
            1 << 62,
            (1 << 62) + 1,
            InodeNo::FIRST_PRIVATE.0,
            vefs::limits::FILE_SIZE_MAX,
            4096,
            1 << 40,
            16 << 20,
            65_536,
        ];
        let b = self.byte();
        match b {
            0..144 => SOME[usize::from(b) % 12].wrapping_add(u64::from(b / 12 % 4)),
            144..220 => u64::from(self.byte()),
            _ => self.bytes(8).into_iter().fold(0, |n, b| n << 8 | u64::from(b)),
        }
    }

    fn ino(&mut self) -> InodeNo {
        match self.byte() {
            b @ 0..200 => InodeNo(if b % 4 == 0 { 1 } else { InodeNo::FIRST_PRIVATE.0 + u64::from(b % 4) - 1 }),
            _ => InodeNo(self.number()),
        }
    }

    fn name(&mut self) -> Vec<u8> {
        match self.byte() {
            b @ 0..200 => vec![b'a' + b % 4],
            200..210 => vec![b'n'; 256 + 44],
            _ => self.bytes(40),
        }
    }

    fn time(&mut self) -> Timestamp {
        let b = self.byte();
        Timestamp { secs: if b < 250 { 1 } else { i64::MAX }, nanos: if b % 64 == 63 { u32::MAX } else { 5 } }
    }

    fn kind(&mut self) -> Kind {
        samples::KINDS[usize::from(self.byte()) % 7]
    }

    fn inode(&mut self) -> Inode {
        let kind = self.kind();
        let odd = self.byte();
        Inode {
            mode: if odd < 240 { kind.bits() | 0o755 } else { self.number() as u32 },
            uid: 0,
            gid: 0,
            nlink: if odd < 200 { u32::from(odd % 3) } else { self.number() as u32 },
            rdev: 0,
            size: self.number(),
            mapped: if odd < 200 { 0 } else { self.number() },
            atime: self.time(),
            mtime: self.time(),
            ctime: self.time(),
            btime: self.time(),
            parent: if odd < 220 { InodeNo::ROOT } else { self.ino() },
            next_cookie: if odd < 220 { 3 } else { self.number() },
            flags: if odd < 248 { u32::from(odd % 2) } else { self.number() as u32 },
        }
    }

    fn dentry(&mut self) -> Dentry {
        Dentry { ino: self.ino(), kind: self.kind(), cookie: self.number() }
    }

    fn extent(&mut self) -> Extent {
        let hash = Hash::default();
        let source = match self.byte() % 5 {
            0 | 1 => Source::Payload(PayloadId { txn: TxnNo(u64::from(self.byte() % 4)), offset: self.number() }),
            2 => Source::Object { hash, offset: self.number() },
            3 => Source::Base { hash, offset: self.number() },
            _ => Source::Unwritten,
        };
        Extent { len: self.number(), source }
    }

    fn hold(&mut self) -> (String, Hold) {
        let name = String::from_utf8_lossy(&self.name()).into_owned();
        let owner = if self.byte() < 240 { String::new() } else { "o".repeat(300) };
        (name, Hold { txn: TxnNo(self.number()), onwards: self.byte() % 2 == 0, owner, since: self.time() })
    }

    fn settings(&mut self) -> Settings {
        Settings { quota_bytes: self.number(), quota_inodes: self.number(), history_bytes: self.number() }
    }

    fn change(&mut self) -> Change {
        match self.byte() % 16 {
            0..3 => Change::PutInode(self.ino(), self.inode()),
            3 => Change::DropInode(self.ino()),
            4 | 5 => Change::PutDentry(self.ino(), self.name(), self.dentry()),
            6 => Change::DropDentry(self.ino(), self.name(), self.number()),
            7 => Change::PutTarget(self.ino(), self.bytes(20)),
            8 => Change::PutXattr(self.ino(), [b"user.".to_vec(), self.name()].concat(), self.bytes(20)),
            9 => Change::DropXattr(self.ino(), [b"user.".to_vec(), self.name()].concat()),
            10..13 => Change::Map(self.ino(), self.number(), self.extent()),
            13 => Change::Unmap(self.ino(), self.number(), self.number()),
            14 => Change::Usage(self.number() as i64, self.number() as i64),
            _ if self.byte() % 2 == 0 => Change::PutSettings(self.settings()),
            _ => {
                let (name, hold) = self.hold();
                if self.byte() % 3 == 0 { Change::DropHold(name) } else { Change::PutHold(name, hold) }
            }
        }
    }

    fn place(&mut self) -> ExtentPlace {
        let len = self.number();
        let crcs = if self.byte() % 8 == 0 { 3 } else { len.div_ceil(vefs::limits::CHUNK as u64).min(2000) };
        ExtentPlace { file: self.number(), offset: self.number(), len, crcs: vec![7; crcs as usize] }
    }

    fn payload(&mut self) -> (Option<PayloadRef>, Vec<u8>, Option<ExtentPlace>) {
        match self.byte() % 8 {
            0..4 => (None, vec![], None),
            4 | 5 => {
                let bytes = self.bytes(100);
                (Some(PayloadRef { len: bytes.len() as u64, hash: Some(Hash::of(&bytes)) }), bytes, None)
            }
            6 => {
                let place = self.place();
                (Some(PayloadRef { len: place.len, hash: None }), vec![], Some(place))
            }
            _ => (Some(PayloadRef { len: self.number(), hash: None }), self.bytes(10), None),
        }
    }

    fn key(&mut self) -> Key {
        let ino = self.ino();
        match self.byte() % 9 {
            0 | 1 => Key::inode(ino),
            2 => Key::dentry(ino, &self.name()),
            3 => Key::cookie(ino, self.number()),
            4 => Key::target(ino),
            5 => Key::xattr(ino, &self.name()),
            6 => Key::extent(ino, self.number()),
            7 => Key::orphan(ino),
            _ => Key::settings(),
        }
    }

    /// A value, mostly of the kind that the key has.
    fn value(&mut self, kind: u8) -> Value {
        let kind = if self.byte() < 230 { kind } else { self.byte() % 10 };
        match kind {
            1 => Value::Inode(self.inode()),
            2 => Value::Dentry(self.dentry()),
            3 => Value::Entry(Entry { name: self.name().into(), ino: self.ino(), kind: self.kind() }),
            4 | 5 => Value::Bytes(self.bytes(30).into()),
            6 => Value::Extent(self.extent()),
            7 => Value::Mark,
            8 => Value::Hold(self.hold().1),
            9 => Value::Settings(self.settings()),
            _ => Value::Whiteout,
        }
    }
}

/// Bytes to write, for whoever exercises a VE.
pub(crate) fn some_bytes() -> Bytes {
    Bytes::from_static(b"written after recovery")
}
