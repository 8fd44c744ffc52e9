//! What is stored today is read by every later program: golden bytes of each structure, a whole golden store, and formats of
//! a program to come, which are refused by their number (promise G28).

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::sync::Arc;

use aspfs_tests::golden::{Entries, check, read};
use aspfs_tests::harness::{World, create_ve, small_options};
use aspfs_tests::{samples, samples_scrub};
use bincode::{Decode, Encode};
use bytes::Bytes;
use vefs::change::{Body, Change, Seal};
use vefs::codec;
use vefs::content::ExtentPlace;
use vefs::format::extent::ExtentHeader;
use vefs::format::identity::Identity;
use vefs::format::note::Note;
use vefs::format::record::{self, FrameKind};
use vefs::format::segment::SegmentHeader;
use vefs::format::stack::Stack;
use vefs::format::superblock::Superblock;
use vefs::format::template::Label;
use vefs::ids::{Epoch, Hash, InodeNo, PayloadId, TxnNo, VeId};
use vefs::journal::Scanner;
use vefs::meta::rows::{self, Current, Former, Head, TxnRow};
use vefs::op::{Op, Owner};
use vefs::state::key::{Key, Value};
use vefs::storage::memory::MemStorage;
use vefs::store::scrub::Scrub;
use vefs::types::{Kind, mode};
use vefs::ve::{Envelope, Memo, Request};

const FILES: [&str; 7] = ["headers", "frames", "changes", "keys", "values", "rows", "roots"];

fn of_file(file: &str) -> Entries {
    samples::encoded().into_iter().filter(|(f, ..)| *f == file).map(|(_, name, bytes)| (name, bytes)).collect()
}

/// What today's code writes is what was written when the format was released.
#[test]
fn todays_bytes_are_the_golden_ones() {
    for file in FILES {
        check(&format!("{file}.hex"), &of_file(file));
    }
}

fn golden(file: &str, name: &str) -> Vec<u8> {
    read(&format!("{file}.hex")).remove(name).unwrap_or_else(|| panic!("{file}: no {name}"))
}

fn same<T: Decode<()> + Encode + PartialEq + Debug>(file: &str, name: &str, want: &T) {
    let got: T = codec::decode(&golden(file, name)).unwrap_or_else(|e| panic!("{file}: {name}: {e}"));
    assert_eq!(&got, want, "{file}: {name}");
}

#[test]
fn golden_headers_are_read() {
    assert_eq!(Superblock::parse(&golden("headers", "superblock")), Ok(samples::superblock()));
    assert_eq!(Note::parse(&golden("headers", "note")), Ok(samples::note()));
    assert_eq!(Identity::parse(&golden("headers", "identity")), Ok(samples::identity()));
    assert_eq!(SegmentHeader::parse(&golden("headers", "segment")), Ok(samples::segment()));
    assert_eq!(ExtentHeader::parse(&golden("headers", "extent-file")), Ok(samples::extent_header()));
    assert_eq!(Label::parse(&golden("headers", "template")), Ok(samples::label()));
    assert_eq!(Stack::parse(&golden("headers", "stack")), Ok(samples::stack()));
}

#[test]
fn golden_frames_are_read() {
    let (inline, payload) = samples::inline_body();
    for (name, kind) in [("inline", FrameKind::Body), ("bulk", FrameKind::Body), ("seal", FrameKind::Seal)] {
        let bytes = golden("frames", name);
        let frame = record::parse(&bytes, samples::INCARNATION).unwrap_or_else(|e| panic!("{name}: {e}"));
        let h = frame.header;
        assert_eq!((h.kind, h.txn, h.seq, h.epoch), (kind, TxnNo(5), 78, Epoch(7)), "{name}");
        assert_eq!((h.synced_upto, h.frame_len()), ((1 << 33) + 8, bytes.len() as u64), "{name}");
        match name {
            "seal" => assert_eq!(codec::decode::<Seal>(frame.body).unwrap(), samples::seal()),
            "bulk" => {
                assert_eq!(codec::decode::<Body>(frame.body).unwrap(), samples::bulk_body());
                assert_eq!(codec::decode::<Envelope>(frame.envelope).unwrap(), samples::envelope());
                assert_eq!(frame.payload, b"");
            }
            _ => {
                let envelope = Envelope { place: None, ..samples::envelope() };
                assert_eq!(codec::decode::<Body>(frame.body).unwrap(), inline);
                assert_eq!(codec::decode::<Envelope>(frame.envelope).unwrap(), envelope);
                assert_eq!(frame.payload, payload);
            }
        }
    }
}

#[test]
fn golden_changes_and_values_are_read() {
    for (name, change) in samples::changes() {
        same::<Change>("changes", &name, &change);
    }
    for (name, memo) in samples::memos() {
        same::<Memo>("changes", &format!("memo-{name}"), &memo);
    }
    for kind in samples::KINDS {
        same::<Kind>("changes", &format!("kind-{kind:?}").to_lowercase(), &kind);
    }
    for (name, value) in samples::values() {
        same::<Value>("values", &name, &value);
    }
    for (name, key) in samples::keys() {
        assert_eq!(Key::from_bytes(&golden("keys", name)), Some(key), "{name}");
    }
}

#[test]
fn golden_rows_are_read() {
    let row = |name| golden("rows", name);
    let (txn, value) = (TxnNo(5), Value::Inode(samples::inode()));
    let key = rows::parse_current(&row("current-key")).unwrap();
    assert_eq!(key, Key::inode(samples::FILE));
    let current = Current { birth: txn, value: value.clone() };
    assert_eq!(rows::current_row(&key, &row("current")).unwrap(), current);
    let former = Former { death: TxnNo(6), value };
    assert_eq!(rows::former_row(&key, txn, &row("history")).unwrap(), former);
    let dentry = Key::dentry(InodeNo::ROOT, b"name");
    assert_eq!(rows::parse_history(&row("history-key")).unwrap(), (dentry, txn));
    assert_eq!(rows::parse_change(&row("change-key")).unwrap(), (txn, samples::FILE));
    let id = PayloadId { txn, offset: 4096 };
    assert_eq!(rows::parse_place(&row("place-key"), &row("place")).unwrap(), (id, samples::place()));
    assert_eq!(rows::head_row(&row("head")).unwrap(), samples::head());
    assert_eq!(rows::parse_txn(&row("txn-key")).unwrap(), txn);
    assert_eq!(rows::parse_mounted(&row("mounted-key")).unwrap(), (VeId(0x2A), "epoch-1.0:5".into()));
    assert_eq!(rows::mounted_row(&row("mounted")).unwrap(), samples::mounted());
    same::<Head>("rows", "head", &samples::head());
    same::<Scrub>("rows", "scrub", &samples_scrub::scrub());
    same::<TxnRow>("rows", "txn", &samples::txn_row());
    same::<(u64, u64)>("rows", "clean", &samples::CLEAN);
    same::<Vec<(u64, Memo)>>("rows", "answers", &samples::answers());
    same::<ExtentPlace>("rows", "place", &samples::place());
}

/// The chain hash is what `docs/format/record.md` says, computed here from that page alone.
#[test]
fn chain_hash_is_what_the_document_says() {
    let storage = Arc::new(MemStorage::new());
    let mut world = World::create(storage.clone(), 3, small_options()).unwrap();
    let ve = create_ve(&world.open().unwrap(), 1, u64::MAX, u64::MAX).unwrap();
    let create =
        Op::Create { parent: InodeNo::ROOT, name: b"f".into(), mode: mode::IFREG, rdev: 0, owner: Owner::default() };
    ve.execute(&create, Request::default()).unwrap();
    for (offset, data) in [(0, vec![1; 100]), (1 << 20, vec![2; 100_000])] {
        let op = Op::Write { ino: InodeNo::FIRST_PRIVATE, offset, data: Bytes::from(data), kill_priv: false };
        ve.execute(&op, Request::numbered(9)).unwrap();
    }
    ve.commit().unwrap();
    let store = ve.identity().store;
    let mut scanner = Scanner::open(storage, store, VeId(1), 0, 0, 0, None).unwrap();
    let begin = |chain: Hash| [&b"aspfs chain 1"[..], &chain.0].concat();
    let (mut input, mut chain, mut bulk) = (begin(Hash::default()), Hash::default(), 0);
    while let Some(r) = scanner.next_frame().unwrap() {
        let (h, body) = (r.frame.header, r.frame.body);
        if h.kind == FrameKind::Body {
            input.extend_from_slice(&(body.len() as u64).to_le_bytes());
            input.extend_from_slice(body);
            continue;
        }
        let seal: Seal = codec::decode(body).unwrap();
        bulk += seal.payloads.len();
        input.extend_from_slice(b"seal");
        input.extend_from_slice(&h.txn.0.to_le_bytes());
        input.extend_from_slice(&h.epoch.0.to_le_bytes());
        input.extend_from_slice(&seal.time.secs.to_le_bytes());
        input.extend_from_slice(&seal.time.nanos.to_le_bytes());
        seal.payloads.iter().for_each(|p| input.extend_from_slice(&p.0));
        chain = Hash::of(&input);
        assert_eq!(seal.chain, chain);
        input = begin(chain);
    }
    assert_eq!((chain, bulk), (ve.position().chain, 1));
}

/// The golden VE's chain hashes were made once and never change.
#[test]
fn a_golden_store_is_opened_and_read() {
    aspfs_tests::golden_store::check(1);
}
