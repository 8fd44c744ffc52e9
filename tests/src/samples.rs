//! One fixed value of everything that is stored, with its bytes: what the golden files hold, and what hostile inputs are
//! made from.

use vefs::change::{AtWindow, Body, Change, Hold, Need, PayloadRef, Policy, Purpose, ReplicaOf, Seal, Settings};
use vefs::clock::Timestamp;
use vefs::codec;
use vefs::content::ExtentPlace;
use vefs::format::extent::ExtentHeader;
use vefs::format::identity::Identity;
use vefs::format::note::{self, Note};
use vefs::format::record::{self, FrameKind, Parts};
use vefs::format::role::{Fork, Role, RoleKind};
use vefs::format::segment::SegmentHeader;
use vefs::format::stack::{Part, Stack};
use vefs::format::superblock::Superblock;
use vefs::format::template::Label;
use vefs::ids::{Epoch, Hash, InodeNo, Lineage, PayloadId, TxnNo, VeId};
use vefs::meta::rows::{self, Current, Former, Head, TxnRow};
use vefs::state::key::{Entry, Key, Value};
use vefs::types::{Dentry, Extent, Inode, Kind, Source, mode};
use vefs::ve::{Envelope, Memo};

/// The incarnation under which the sample frames are written.
pub const INCARNATION: u64 = 0x0123_4567_89AB_CDEF;

/// Bytes 1, 2, 3 … so that a field in the wrong place or order shows.
pub fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|i| first.wrapping_add(i as u8))
}

fn time(secs: i64) -> Timestamp {
    Timestamp { secs, nanos: 987_654_321 }
}

/// The first private inode.
pub const FILE: InodeNo = InodeNo(InodeNo::FIRST_PRIVATE.0);

/// The sample superblock.
pub fn superblock() -> Superblock {
    Superblock { store: counting(1), created: Timestamp { secs: 1_700_000_000, nanos: 0 } }
}

/// The sample identity.
pub fn identity() -> Identity {
    let lineage = Lineage(counting(0x41));
    Identity {
        store: counting(1),
        ve: VeId(0x2A),
        lineage,
        base: Hash(counting(0x81)),
        epoch: Epoch(7),
        slot: VeId(0x2A),
    }
}

/// The sample segment header.
pub fn segment() -> SegmentHeader {
    SegmentHeader {
        store: counting(1),
        ve: VeId(0x2A),
        incarnation: INCARNATION,
        order: 3,
        base: 1 << 33,
        first_seq: 77,
        capacity: 1 << 20,
    }
}

/// The sample header of an extent file.
pub fn extent_header() -> ExtentHeader {
    ExtentHeader { store: counting(1), ve: VeId(0x2A), number: 0x1234 }
}

/// The sample label of a template.
pub fn label() -> Label {
    Label {
        store: counting(1),
        name: "debian-12".into(),
        root: Hash(counting(0x81)),
        created: Timestamp { secs: 1_700_000_000, nanos: 0 },
        inodes: 0x1234,
        bytes: 1 << 33,
        source: "directory /srv/debian".into(),
    }
}

/// The sample stack.
pub fn stack() -> Stack {
    let part = |name: &str, first| Part { name: name.into(), root: Hash(counting(first)) };
    Stack { store: counting(1), root: Hash(counting(0x81)), parts: vec![part("debian-12", 0x21), part("web", 0x61)] }
}

/// The sample inode: a file with all fields different.
pub fn inode() -> Inode {
    Inode {
        mode: mode::IFREG | 0o4755,
        uid: 1000,
        gid: 100_000,
        nlink: 2,
        rdev: 0,
        size: 1 << 40,
        mapped: 65_536,
        atime: time(-1),
        mtime: time(1_700_000_001),
        ctime: time(1_700_000_002),
        btime: time(250),
        parent: InodeNo(0),
        next_cookie: 0,
        flags: Inode::PRIVATE_MAP,
    }
}

fn directory() -> Inode {
    Inode {
        mode: mode::IFDIR | 0o755,
        nlink: 2,
        size: 4096,
        mapped: 0,
        parent: InodeNo::ROOT,
        next_cookie: 300,
        flags: 0,
        ..inode()
    }
}

/// The sample entry.
pub fn dentry() -> Dentry {
    Dentry { ino: FILE, kind: Kind::Regular, cookie: 3 }
}

fn extent(source: Source) -> Extent {
    Extent { len: 5000, source }
}

fn sources() -> [(&'static str, Source); 4] {
    let hash = Hash(counting(0xA0));
    [
        ("payload", Source::Payload(PayloadId { txn: TxnNo(5), offset: 4096 })),
        ("object", Source::Object { hash, offset: 65_536 }),
        ("base", Source::Base { hash, offset: 300 }),
        ("unwritten", Source::Unwritten),
    ]
}

fn hold() -> Hold {
    Hold { txn: TxnNo(4), onwards: true, owner: "backup".into(), since: time(1_700_000_003) }
}

fn settings() -> Settings {
    Settings { quota_bytes: 10 << 30, quota_inodes: 250, history_bytes: u64::MAX }
}

fn policy() -> Policy {
    let replica = ReplicaOf { node: counting(0x51), need: Need::Required, bandwidth: 1 << 20 };
    let (replicas, writer) = (vec![replica], counting(0x71));
    Policy { window_ms: 2000, at_window: AtWindow::Stall, weight: 7, recorded: true, replicas, writer }
}

/// The sample note.
pub fn note() -> Note {
    let body = (1..=60).collect();
    Note { store: [7; 16], lineage: Lineage([3; 16]), kind: note::Kind::Promises, body }
}

/// The sample role.
pub fn role() -> Role {
    let fork = Fork { txn: TxnNo(5), epoch: Epoch(7), chain: Hash(counting(0x60)) };
    Role {
        store: counting(1),
        ve: VeId(0x2A),
        lineage: Lineage(counting(0x41)),
        kind: RoleKind::Replica,
        epoch: Epoch(2 << 32),
        fork,
    }
}

/// The sample place: three chunks, the last one short.
pub fn place() -> ExtentPlace {
    ExtentPlace { file: 2, offset: 4096, len: 40_000, crcs: vec![1, 0x0102_0304, u32::MAX] }
}

/// One of each kind of change.
pub fn changes() -> Vec<(String, Change)> {
    let mut out = vec![
        ("put-inode", Change::PutInode(FILE, inode())),
        ("put-inode-directory", Change::PutInode(InodeNo(251), directory())),
        ("drop-inode", Change::DropInode(FILE)),
        ("put-dentry", Change::PutDentry(InodeNo::ROOT, b"name".to_vec(), dentry())),
        ("drop-dentry", Change::DropDentry(InodeNo::ROOT, b"name".to_vec(), 3)),
        ("put-target", Change::PutTarget(FILE, b"../target".to_vec())),
        ("put-xattr", Change::PutXattr(FILE, b"user.k".to_vec(), b"value".to_vec())),
        ("drop-xattr", Change::DropXattr(FILE, b"user.k".to_vec())),
        ("unmap", Change::Unmap(FILE, 70_000, 1 << 33)),
        ("usage", Change::Usage(-5000, 1)),
        ("put-settings", Change::PutSettings(settings())),
        ("put-policy", Change::PutPolicy(policy())),
        ("put-hold", Change::PutHold("nightly".into(), hold())),
        ("drop-hold", Change::DropHold("nightly".into())),
        ("wrote", Change::Wrote(InodeNo(1 << 32), 4096, 4000, Timestamp { secs: 1_700_000_000, nanos: 5 })),
    ]
    .into_iter()
    .map(|(n, c)| (n.to_owned(), c))
    .collect::<Vec<_>>();
    out.extend(sources().map(|(n, s)| (format!("map-{n}"), Change::Map(FILE, 250, extent(s)))));
    out
}

/// One of each kind of value.
pub fn values() -> Vec<(String, Value)> {
    let mut out = vec![
        ("whiteout", Value::Whiteout),
        ("inode", Value::Inode(inode())),
        ("dentry", Value::Dentry(dentry())),
        ("entry", Value::Entry(Entry { name: b"name"[..].into(), ino: FILE, kind: Kind::Symlink })),
        ("bytes", Value::Bytes(b"bytes"[..].into())),
        ("mark", Value::Mark),
        ("hold", Value::Hold(hold())),
        ("settings", Value::Settings(settings())),
        ("policy", Value::Policy(policy())),
    ]
    .into_iter()
    .map(|(n, v)| (n.to_owned(), v))
    .collect::<Vec<_>>();
    out.extend(sources().map(|(n, s)| (format!("extent-{n}"), Value::Extent(extent(s)))));
    out
}

/// One of each kind of key.
pub fn keys() -> [(&'static str, Key); 10] {
    [
        ("inode", Key::inode(FILE)),
        ("dentry", Key::dentry(InodeNo::ROOT, b"name")),
        ("cookie", Key::cookie(InodeNo::ROOT, 300)),
        ("target", Key::target(FILE)),
        ("xattr", Key::xattr(FILE, b"user.k")),
        ("extent", Key::extent(FILE, 250)),
        ("orphan", Key::orphan(FILE)),
        ("hold", Key::hold("nightly")),
        ("settings", Key::settings()),
        ("policy", Key::policy()),
    ]
}

/// The kinds of files, each once, in the order of their numbers.
pub const KINDS: [Kind; 7] =
    [Kind::Regular, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice];

/// A body with an inline payload, and the payload.
pub fn inline_body() -> (Body, &'static [u8]) {
    let payload = b"the payload";
    let changes = vec![Change::DropInode(FILE), Change::Usage(0, -1)];
    let payload_ref = PayloadRef { len: payload.len() as u64, hash: Some(Hash::of(payload)) };
    (Body { purpose: Purpose::Operation, changes, payload: Some(payload_ref) }, payload)
}

/// A body whose payload lies elsewhere.
pub fn bulk_body() -> Body {
    let payload = PayloadRef { len: place().len, hash: None };
    Body { purpose: Purpose::Housekeeping, changes: vec![], payload: Some(payload) }
}

/// An envelope with everything.
pub fn envelope() -> Envelope {
    Envelope { unique: 0x1_0000_0002, memo: Some(Memo::Inode(FILE)), place: Some(place()) }
}

/// The memos, each once.
pub fn memos() -> [(&'static str, Memo); 3] {
    [("inode", Memo::Inode(FILE)), ("written", Memo::Written(300)), ("done", Memo::Done)]
}

/// The sample seal.
pub fn seal() -> Seal {
    Seal { records: 2, time: time(1_700_000_004), payloads: vec![Hash(counting(0x20))], chain: Hash(counting(0x60)) }
}

/// The sample head.
pub fn head() -> Head {
    Head {
        lineage: Lineage(counting(0x41)),
        epoch: Epoch(7),
        txn: TxnNo(5),
        chain: Hash(counting(0x60)),
        time: time(1_700_000_004),
        journal: 1 << 33,
        seq: 77,
        bytes: 5000,
        inodes: 3,
        next_ino: InodeNo(FILE.0 + 3),
        floor: TxnNo(2),
        history: 100_000,
    }
}

/// A version that is mounted.
pub fn mounted() -> rows::Mounted {
    rows::Mounted { ve: VeId(0x2B), txn: TxnNo(5), since: txn_row().time }
}

/// The sample row of a transaction.
pub fn txn_row() -> TxnRow {
    TxnRow { time: time(1_700_000_004), chain: Hash(counting(0x60)), epoch: Epoch(7) }
}

/// The sample row of a clean stop.
pub const CLEAN: (u64, u64) = (1 << 33, 4);

/// The sample row of answers.
pub fn answers() -> Vec<(u64, Memo)> {
    memos().into_iter().zip(300..).map(|((_, memo), unique)| (unique, memo)).collect()
}

/// A whole frame, padding included.
pub fn frame(kind: FrameKind, body: &[u8], envelope: &[u8], payload: &[u8]) -> Vec<u8> {
    let parts =
        Parts { kind, txn: TxnNo(5), seq: 78, epoch: Epoch(7), synced_upto: (1 << 33) + 8, body, envelope, payload };
    let mut out = parts.header(INCARNATION, record::crc(INCARNATION, payload)).to_vec();
    for part in [body, envelope, payload] {
        out.extend_from_slice(part);
    }
    out.resize(parts.frame_len() as usize, 0);
    out
}

/// (file, name, bytes) of every sample.
pub fn encoded() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut out: Vec<(&'static str, String, Vec<u8>)> = Vec::new();
    let mut add = |file, name: &str, bytes: Vec<u8>| out.push((file, name.to_owned(), bytes));
    add("headers", "superblock", superblock().to_bytes().to_vec());
    add("headers", "identity", identity().to_bytes().to_vec());
    add("headers", "role", role().to_bytes().to_vec());
    add("headers", "note", note().to_bytes().expect("a short body").to_vec());
    add("headers", "segment", segment().to_bytes().to_vec());
    add("headers", "extent-file", extent_header().to_bytes().to_vec());
    add("headers", "template", label().to_bytes().expect("a valid label").to_vec());
    add("headers", "stack", stack().to_bytes().expect("a valid stack").to_vec());
    let (body, payload) = inline_body();
    let inline = Envelope { place: None, ..envelope() };
    add("frames", "inline", frame(FrameKind::Body, &codec::encode(&body), &codec::encode(&inline), payload));
    add("frames", "bulk", frame(FrameKind::Body, &codec::encode(&bulk_body()), &codec::encode(&envelope()), &[]));
    add("frames", "seal", frame(FrameKind::Seal, &codec::encode(&seal()), &[], &[]));
    for (name, change) in changes() {
        add("changes", &name, codec::encode(&change));
    }
    for (name, memo) in memos() {
        add("changes", &format!("memo-{name}"), codec::encode(&memo));
    }
    for kind in KINDS {
        add("changes", &format!("kind-{kind:?}").to_lowercase(), codec::encode(&kind));
    }
    for (name, key) in keys() {
        add("keys", name, key.as_bytes().to_vec());
    }
    for (name, value) in values() {
        add("values", &name, codec::encode(&value));
    }
    let (ve, txn) = (VeId(0x2A), TxnNo(5));
    let id = PayloadId { txn, offset: 4096 };
    let value = Value::Inode(inode());
    add("rows", "current-key", rows::current(ve, Key::inode(FILE).as_bytes()));
    add("rows", "current", codec::encode(&Current { birth: txn, value: value.clone() }));
    add("rows", "history-key", rows::history(ve, &Key::dentry(InodeNo::ROOT, b"name"), txn));
    add("rows", "history", codec::encode(&Former { death: TxnNo(6), value }));
    add("rows", "change-key", rows::change(ve, txn, FILE));
    add("rows", "place-key", rows::place(ve, id));
    add("rows", "place", codec::encode(&place()));
    add("rows", "head-key", rows::head(ve));
    add("rows", "head", codec::encode(&head()));
    add("rows", "clean-key", rows::clean(ve));
    add("rows", "clean", codec::encode(&CLEAN));
    add("rows", "answers-key", rows::answers(ve));
    add("rows", "answers", codec::encode(&answers()));
    add("rows", "txn-key", rows::txn(ve, txn));
    add("rows", "txn", codec::encode(&txn_row()));
    add("rows", "mounted-key", rows::mounted(ve, "epoch-1.0:5"));
    add("rows", "mounted", codec::encode(&mounted()));
    add("rows", "scrub-key", rows::scrub());
    add("rows", "scrub", codec::encode(&crate::samples_scrub::scrub()));
    for (name, hash) in crate::samples_scrub::roots() {
        add("roots", name, hash.0.to_vec());
    }
    out
}
