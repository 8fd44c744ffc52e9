//! A follower that has the same history and another state.

use std::collections::BTreeMap;

use aspfs_replica::runtime::Compared;
use vefs::change::AtWindow;
use vefs::codec;
use vefs::ids::{Hash, InodeNo};
use vefs::meta::{Batch, MetaStore, RocksMeta, Table, rows};
use vefs::state::key::{Key, Value};
use vefs::state::view::Scan;
use vefs::store::{Options, Store};

use crate::nodes::{Node, VE, file, nodes, replicated, same, wait};
use crate::pair::Pair;

/// Gives a file other permissions in the metadata of a node that is down, as no record ever did.
fn spoil(node: &Node, ino: InodeNo) {
    let path = node.dir.path().join("store");
    // What is still in the journal alone is published.
    let store = Store::open(&path, Options { reserve: 0, ..Options::default() }).unwrap();
    drop(store.ve(VE).unwrap());
    store.close().unwrap();
    drop(store);
    let meta = RocksMeta::open(&path.join("meta")).unwrap();
    let mut found = None;
    meta.scan(Table::Current, &[], &[0xFF; 8], &mut |row, value| {
        let key = rows::parse_current(row).unwrap();
        if key == Key::inode(ino) {
            found = Some((row.to_vec(), rows::current_row(&key, value).unwrap()));
        }
        Scan::Next
    })
    .unwrap();
    let (row, mut current) = found.expect("the file's row");
    let Value::Inode(inode) = &mut current.value else { panic!("no inode") };
    inode.mode ^= 0o022;
    let mut batch = Batch::default();
    batch.put(Table::Current, row, codec::encode(&current));
    meta.write(batch).unwrap();
    meta.persist().unwrap();
}

/// Nothing in a stream of records tells that a follower's state is not what its primary has: its own checksums are right, and so are the chain hashes.
/// A comparison does, and the follower gets the state anew (checks G13).
#[test]
fn a_copy_that_differs_is_found_and_replaced() {
    let [a, mut b] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Degrade);
    let ino = file(&ve, "spoilt", &[7; 150_000]).unwrap();
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    assert_eq!(b.runtime().compare(VE), Compared::Equal(b.ve().durable_position().txn));
    assert!(matches!(a.runtime().compare(VE), Compared::Not(_)), "it writes it");

    b.stop();
    spoil(&b, ino);
    b.start();
    file(&ve, "more", &[8; 1000]).unwrap();
    ve.commit().unwrap();
    wait("the replica again", || a.acked(b.id()));
    assert_ne!(b.ve().inode(ino).unwrap().mode, ve.inode(ino).unwrap().mode, "nothing tells");
    let found = b.runtime().compare(VE);
    assert!(matches!(found, Compared::Differs(_)), "{found:?}");
    wait("another state", || b.store().branch_names(VE).unwrap().len() == 1);
    file(&ve, "and more", &[9; 1000]).unwrap();
    ve.commit().unwrap();
    wait("the replica at last", || a.acked(b.id()));
    same(&a, &b);
    assert_eq!(b.ve().inode(ino).unwrap().mode, ve.inode(ino).unwrap().mode);
    let figures = b.runtime().figures(VE).unwrap().followed.unwrap();
    assert_eq!(figures.differences, 1);
    wait("them to be equal", || matches!(b.runtime().compare(VE), Compared::Equal(_)));
}

/// The logical root is what its document says, made here from all rows at once, over more inodes than one bucket has. It held every inode's hasher in memory,
/// two kilobytes each.
#[test]
fn a_root_is_what_its_document_says() {
    let mut pair = Pair::new(77);
    let ve = pair.primary.ve();
    for n in 0..9000 {
        file(&ve, &format!("file-{n}"), b"some bytes").unwrap();
    }
    pair.write(200);
    ve.commit().unwrap();
    ve.publish().unwrap();
    let version = ve.version(ve.position().txn).unwrap();
    let (mut inodes, mut after) = (BTreeMap::<InodeNo, Vec<u8>>::new(), None);
    loop {
        let page = version.page(after.as_ref(), None, 100_000).unwrap();
        for (key, value) in &page.rows {
            let bytes = inodes.entry(key.ino()).or_insert_with(|| b"aspfs logical root 1 inode".to_vec());
            bytes.extend((key.as_bytes().len() as u32).to_le_bytes());
            bytes.extend(key.as_bytes());
            match value {
                Value::Extent(extent) => {
                    bytes.extend(extent.len.to_le_bytes());
                    bytes.extend(Hash::of(&codec::encode(&extent.source)).0);
                }
                other => {
                    let value = codec::encode(other);
                    bytes.extend((value.len() as u32).to_le_bytes());
                    bytes.extend(value);
                }
            }
        }
        after = page.rows.last().map(|(key, _)| key.clone());
        if page.last {
            break;
        }
    }
    let mut buckets = BTreeMap::<u64, Vec<u8>>::new();
    for (ino, bytes) in inodes {
        let bucket = buckets.entry(ino.0 >> 12).or_insert_with(|| b"aspfs logical root 1 bucket".to_vec());
        bucket.extend(ino.0.to_le_bytes());
        bucket.extend(Hash::of(&bytes).0);
    }
    assert!(buckets.len() >= 3, "{} buckets", buckets.len());
    let mut root = b"aspfs logical root 1 root".to_vec();
    root.extend(ve.identity().base.0);
    for (number, bytes) in buckets {
        root.extend(number.to_le_bytes());
        root.extend(Hash::of(&bytes).0);
    }
    assert_eq!(version.logical_root().unwrap().root, Hash::of(&root));
}
