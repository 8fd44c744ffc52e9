//! A follower that has the same history and another state.

use aspfs_replica::runtime::Compared;
use vefs::change::AtWindow;
use vefs::codec;
use vefs::ids::InodeNo;
use vefs::meta::{Batch, MetaStore, RocksMeta, Table, rows};
use vefs::state::key::{Key, Value};
use vefs::state::view::Scan;
use vefs::store::{Options, Store};

use crate::nodes::{Node, VE, file, nodes, replicated, same, wait};

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
