use super::*;
use crate::change::{Policy, Seal};
use crate::ids::TxnNo;
use crate::store::bed::{self, create, in_memory};
use crate::ve::feed::Feed;

fn write(ve: &Ve, ino: InodeNo, offset: u64, len: usize) {
    bed::write(ve, ino, offset, vec![7; len]).unwrap();
}

/// A file whose first 64 KiB went to a body is appended to byte by byte: each byte lies behind them, beside the journal, and its hash in the seal. With
/// all of them in one transaction the seal was larger than a replica takes in; it closed the connection, and the same transaction came again half a
/// second later, for ever (checks G14, G29).
#[test]
fn a_seal_has_so_many_hashes_and_no_more() {
    let (_store, ve, _) = in_memory();
    let ino = create(&ve, "log");
    write(&ve, ino, 0, limits::INLINE_MAX);
    let more = limits::TXN_BESIDE_MAX + 500;
    (0..more).for_each(|n| write(&ve, ino, (limits::INLINE_MAX + n) as u64, 1));
    ve.commit().unwrap();
    let (mut after, mut hashes) = (TxnNo(0), 0);
    while let Feed::Txn(txn) = ve.feed(after).unwrap() {
        let seal: Seal = codec::decode(&txn.seal).unwrap();
        assert!(seal.payloads.len() <= limits::TXN_BESIDE_MAX, "{} in {}", seal.payloads.len(), txn.position.txn);
        hashes += seal.payloads.len();
        after = txn.position.txn;
    }
    assert_eq!(hashes, 1 + more);
}

/// Who fills a transaction seals it when the lock is free again; whoever comes in between must not put one more record into it.
#[test]
fn a_full_transaction_gets_no_record_more() {
    let (_store, ve, _) = in_memory();
    let ino = create(&ve, "file");
    let changes: [&dyn Fn(); 6] = [
        &|| write(&ve, ino, 0, 1),
        &|| ve.set_policy(Policy { weight: 9, ..Policy::default() }).unwrap(),
        &|| ve.set_settings(Settings::default()).unwrap(),
        &|| _ = create(&ve, "another"),
        &|| ve.hold("kept", TxnNo(1), false, "").unwrap(),
        &|| ve.release("kept").unwrap(),
    ];
    for (n, change) in changes.iter().enumerate() {
        if ve.state.lock().open.records == 0 {
            write(&ve, ino, 0, 1);
        }
        let txn = {
            let mut s = ve.state.lock();
            s.open.payload += limits::TXN_PAYLOAD_MAX;
            s.open.txn
        };
        change();
        let s = ve.state.lock();
        assert!(s.head.txn >= txn && s.open.records <= 1 && !s.open.is_full(), "change {n}");
    }
}
