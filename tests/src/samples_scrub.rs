//! Fixed values of what the scrub keeps and compares; see [`crate::samples`].

use vefs::clock::Timestamp;
use vefs::ids::{Hash, InodeNo, PayloadId, TxnNo, VeId};
use vefs::state::key::{Key, KeyKind, Value};
use vefs::state::root::{OwnKeys, logical_root, state_root};
use vefs::store::scrub::{Bad, Part, Reader, Scrub, Thing};
use vefs::types::{Extent, Source};

use crate::samples::{FILE, counting, dentry, inode};

fn at(secs: i64) -> Timestamp {
    Timestamp { secs, nanos: 987_654_321 }
}

/// The sample of the row `S`: a pass under way that has found one thing of each kind.
pub fn scrub() -> Scrub {
    let ve = VeId(0x2A);
    let things = [
        Thing::Tree(Hash(counting(0x81))),
        Thing::Object(Hash(counting(0x21))),
        Thing::Payload(ve, PayloadId { txn: TxnNo(5), offset: 4096 }),
        Thing::Journal(ve),
        Thing::Row("current".into(), vec![1, 2, 3]),
    ];
    let reader = Reader { ve, ino: FILE, path: Some(b"/a/file".to_vec()) };
    let bad = |(n, thing)| Bad {
        thing,
        detail: "what is wrong".into(),
        since: at(1_700_000_000),
        pass: 2 + n as u64,
        readers: vec![reader.clone(), Reader { path: None, ..reader.clone() }],
    };
    Scrub {
        pass: 7,
        begun: at(1_700_000_100),
        ended: Some(at(1_700_000_050)),
        part: Part::Rows,
        key: vec![0, 4, 5, 6],
        things: 300,
        bytes: 70_000,
        found: 5,
        damage: things.into_iter().enumerate().map(bad).collect(),
    }
}

/// Keys as they stand.
struct List<'a>(&'a [(Key, Value)]);

impl OwnKeys for List<'_> {
    fn next_inode(&self, from: InodeNo) -> vefs::Result<Option<InodeNo>> {
        Ok(self.0.iter().map(|(key, _)| key.ino()).filter(|ino| *ino >= from).min())
    }

    fn each(
        &self,
        kind: KeyKind,
        from: InodeNo,
        to: InodeNo,
        visit: &mut dyn FnMut(&Key, &Value) -> vefs::Result<()>,
    ) -> vefs::Result<()> {
        let mine = self.0.iter().filter(|(key, _)| key.kind() == kind && (from..to).contains(&key.ino()));
        mine.into_iter().try_for_each(|(key, value)| visit(key, value))
    }
}

/// The two roots of one small state.
pub fn roots() -> [(&'static str, Hash); 2] {
    let extent = |source| Value::Extent(Extent { len: 300, source });
    let keys = [
        (Key::inode(FILE), Value::Inode(inode())),
        (Key::dentry(InodeNo::ROOT, b"name"), Value::Dentry(dentry())),
        (Key::dentry(InodeNo::ROOT, b"gone"), Value::Whiteout),
        (Key::extent(FILE, 0), extent(Source::Payload(PayloadId { txn: TxnNo(5), offset: 4096 }))),
        (Key::extent(FILE, 300), extent(Source::Object { hash: Hash(counting(0x21)), offset: 250 })),
    ];
    let base = Hash(counting(0x81));
    let logical = logical_root(base, &List(&keys)).expect("nothing is read");
    let bytes = state_root(base, &List(&keys), &mut |_| Ok(Hash::of(&[7; 300]))).expect("nothing fails");
    [("state-root", bytes.root), ("logical-root", logical.root)]
}
