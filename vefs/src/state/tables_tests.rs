use super::*;
use crate::ids::TxnNo;
use crate::meta::MemoryMeta;
use crate::state::key::Entry;
use crate::types::Kind;

const DIR: InodeNo = InodeNo(1 << 33);

fn entry(n: u64) -> Value {
    Value::Entry(Entry { name: format!("{n}").into_bytes().into(), ino: InodeNo(n), kind: Kind::Regular })
}

fn tables(frozen: Overlay, active: Overlay) -> Tables {
    Tables {
        ve: VeId(1),
        active,
        frozen: Some(Arc::new(frozen)),
        spare: Overlay::default(),
        meta: Arc::new(MemoryMeta::default()),
        base: BaseTree::empty(),
        fresh_from: InodeNo::FIRST_PRIVATE,
        usage: Usage { bytes: 0, inodes: 0, next_ino: DIR },
        found: Found::default(),
        maps: Maps::default(),
        places: Places::default(),
    }
}

/// A scan used to copy all that the overlays had of a directory, the marks of entries long gone included, for each page of
/// readdir. It goes on in windows now; where they meet, nothing is lost, doubled, or shown although it is gone.
#[test]
fn a_scan_of_many_windows_is_the_layers_laid_over_each_other() {
    let (mut frozen, mut active) = (Overlay::default(), Overlay::default());
    let mut want = BTreeMap::new();
    for n in 0..5000u64 {
        if n % 3 != 1 {
            frozen.set(Key::cookie(DIR, n), Some(entry(n)), TxnNo(1));
            want.insert(n, entry(n));
        }
        if n % 7 == 2 || (1000..2500).contains(&n) {
            active.set(Key::cookie(DIR, n), None, TxnNo(2));
            want.remove(&n);
        } else if n % 2 == 0 {
            active.set(Key::cookie(DIR, n), Some(entry(n + 10_000)), TxnNo(2));
            want.insert(n, entry(n + 10_000));
        }
    }
    let t = tables(frozen, active);
    for (from, to) in [(0, 5000), (1, 4999), (900, 2600), (255, 257), (4999, 5000), (1200, 1300)] {
        let mut got = Vec::new();
        t.scan(&Key::cookie(DIR, from), &Key::cookie(DIR, to), &mut |k, v| {
            got.push((k.number(), v.clone()));
            Scan::Next
        })
        .unwrap();
        let want: Vec<_> = want.range(from..to).map(|(n, v)| (*n, v.clone())).collect();
        assert_eq!(got, want, "{from}..{to}");
    }
}

/// What was found below is forgotten when something is published there.
#[test]
fn found_keys_are_remembered_until_cleared() {
    let mut t = tables(Overlay::default(), Overlay::default());
    t.fresh_from = InodeNo(u64::MAX);
    let key = Key::cookie(DIR, 1);
    assert_eq!(t.get(&key).unwrap(), None);
    let row = rows::Current { birth: TxnNo(1), value: entry(1) };
    let mut batch = crate::meta::Batch::default();
    batch.put(Table::Current, rows::current(VeId(1), key.as_bytes()), crate::codec::encode(&row));
    t.meta.write(batch).unwrap();
    assert_eq!(t.get(&key).unwrap(), None, "asked again below");
    t.found.clear();
    assert_eq!(t.get(&key).unwrap(), Some(entry(1)));
}

/// SQLite's log is written from its start again and again, in pieces of 24 and of 4096 bytes: each write cut what was there, and left a mark
/// where the rest of it had begun. Whoever then looked for an extent went along all marks before it, one by one.
#[test]
fn writing_over_a_new_file_leaves_no_marks() {
    use crate::change::{Change, Purpose};
    use crate::types::Source;

    let mut t = tables(Overlay::default(), Overlay::default());
    let ino = InodeNo(DIR.0 + 1);
    let mut payload = 0;
    for round in 1..4 {
        let mut at = 0;
        for len in (0..200).flat_map(|_| [24, 4096]) {
            let source = Source::Payload(PayloadId { txn: TxnNo(round), offset: payload });
            let map = Change::Map(ino, at, Extent { len, source });
            crate::state::apply::apply(&mut t, TxnNo(round), Purpose::Operation, &[map]).unwrap();
            (at, payload) = (at + len, payload + len);
        }
        let marks = t.active.slots().filter(|(_, slot)| slot.value.is_none()).count();
        assert_eq!((marks, t.active.len()), (0, 1), "round {round}");
        assert_eq!(t.extent_floor(ino, at).unwrap().map(|(start, e)| (start, e.len)), Some((0, at)));
    }
}

/// Removing a folder's files looked each one's extents up by itself: 17 µs a file, with the VE locked.
#[test]
fn maps_of_neighbours_are_read_together_and_are_whole() {
    use crate::types::Source;

    let files = |n: u64| InodeNo(DIR.0 + n);
    let extent = |n: u64| Extent { len: n + 1, source: Source::Payload(PayloadId { txn: TxnNo(1), offset: n << 20 }) };
    let (mut frozen, mut active) = (Overlay::default(), Overlay::default());
    let mut rows = crate::meta::Batch::default();
    // Of forty files the 34th has more extents than are read at a time, and every fifth none; one far away.
    let count = |n: u64| if n == 33 { EXTENTS_AT_ONCE as u64 } else { n % 5 };
    for n in (0..40).chain([1000]) {
        for i in 0..count(n) {
            let (key, row) =
                (Key::extent(files(n), i << 20), rows::Current { birth: TxnNo(1), value: Value::Extent(extent(i)) });
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
