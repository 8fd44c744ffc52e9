use super::*;
use crate::ids::TxnNo;
use crate::meta::MemoryMeta;
use crate::state::key::Entry;
use crate::types::Kind;

pub(crate) const DIR: InodeNo = InodeNo(1 << 33);

fn entry(n: u64) -> Value {
    Value::Entry(Entry { name: format!("{n}").into_bytes().into(), ino: InodeNo(n), kind: Kind::Regular })
}

pub(crate) fn tables(frozen: Overlay, active: Overlay) -> Tables {
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
