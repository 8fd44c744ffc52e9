use super::super::overlay::Overlay;
use super::super::tables::tests::{DIR, tables};
use super::*;
use crate::ids::{PayloadId, TxnNo, VeId};
use crate::meta::{Batch, Table, rows};
use crate::types::Source;

fn files(n: u64) -> InodeNo {
    InodeNo(DIR.0 + n)
}

/// Removing a folder's files looked each one's extents up by itself, with the VE locked: most of 14 µs a file.
#[test]
fn maps_of_neighbours_are_read_together_and_are_whole() {
    let extent = |n: u64| Extent { len: n + 1, source: Source::Payload(PayloadId { txn: TxnNo(1), offset: n << 20 }) };
    let (mut frozen, mut active) = (Overlay::default(), Overlay::default());
    let mut rows = Batch::default();
    // Of forty files the 34th has more extents than are read at a time, and every fifth none; one far away.
    let count = |n: u64| if n == 33 { EXTENTS_AT_ONCE as u64 } else { n % 5 };
    for n in (0..40).chain([1000]) {
        for i in 0..count(n) {
            let key = Key::extent(files(n), i << 20);
            let row = rows::Current { birth: TxnNo(1), value: Value::Extent(extent(i)) };
            rows.put(Table::Current, rows::current(VeId(1), key.as_bytes()), crate::codec::encode(&row));
        }
    }
    frozen.set(Key::extent(files(1), 0), None, TxnNo(2));
    frozen.set(Key::extent(files(5), 7 << 20), Some(Value::Extent(extent(7))), TxnNo(2));
    active.set(Key::extent(files(2), 1 << 20), Some(Value::Extent(extent(9))), TxnNo(3));
    let mut t = tables(frozen, active);
    t.fresh_from = InodeNo(u64::MAX);
    t.meta.write(rows).unwrap();
    let all = |t: &Tables, ino: InodeNo| {
        let mut all = Vec::new();
        t.scan_layers(&Key::extent(ino, 0), &Key::extent(InodeNo(ino.0 + 1), 0), &mut |key, value| {
            all.push((key.number(), value.clone()));
            Scan::Next
        })
        .unwrap();
        all
    };
    // One that is not asked for lies between them.
    let asked: BTreeSet<InodeNo> = (0..40).filter(|n| *n != 3).chain([1000]).map(files).collect();
    t.know_maps(&asked).unwrap();
    for n in (0..40).chain([1000]) {
        let known =
            match t.maps.ask(files(n), |map| map.iter().map(|(o, e)| (*o, Value::Extent(*e))).collect::<Vec<_>>()) {
                Known::Map(known) => Some(known),
                Known::Unknown | Known::TooLarge => None,
            };
        let read = n < 33 && n != 3;
        assert_eq!(known, read.then(|| all(&t, files(n))), "file {n}");
    }
}
