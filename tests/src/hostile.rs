//! Hostile bytes against everything that decodes (promise G29): one function a decoder, used by the fuzz targets and, with
//! random and mutated golden bytes, by a plain test. None may panic, hang or take much memory; what is accepted must come
//! out again as it went in.

use std::sync::Arc;

use vefs::base::BaseTree;
use vefs::change::validate::validate;
use vefs::change::{Body, Change, Purpose, Seal};
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
use vefs::state::key::{Key, Value};
use vefs::storage::memory::{Content, MemStorage};
use vefs::types::mode;
use vefs::ve::{Envelope, Memo, Request};

use crate::harness::{World, create_ve, small_options};
use crate::hostile_input::Input;
use crate::{hostile_template, hostile_ve, samples};

/// A decoder that is given bytes.
pub type Target = fn(&[u8]);

/// Every decoder there is, by the name of its fuzz target.
pub const TARGETS: [(&str, Target); 16] = [
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
    ("template_events", hostile_template::events),
    ("template_label", hostile_template::label),
    ("template_tar", hostile_template::tar),
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
    let _ = (rows::parse_mounted(data), rows::mounted_row(data));
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
    let picky = input.byte().is_multiple_of(2);
    let mut planted = hostile_ve::Planted::new();
    while !input.0.is_empty() && planted.frames() < 64 {
        let records = 1 + input.byte() % 4;
        for _ in 0..records {
            let changes = (0..input.byte() % 6).map(|_| input.change()).collect();
            let (payload, inline, place) = input.payload();
            let purpose = if input.byte().is_multiple_of(8) { Purpose::Housekeeping } else { Purpose::Operation };
            let memo = (input.byte().is_multiple_of(4)).then(|| Memo::Inode(InodeNo(input.number())));
            let envelope = Envelope { unique: u64::from(input.byte()), memo, place };
            let body = Body { purpose, changes, payload };
            if picky && (body.payload.is_some() || validate(&body, planted.txn()).is_err()) {
                continue;
            }
            planted.record(&body, &envelope, &inline);
        }
        if !input.byte().is_multiple_of(8) {
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
