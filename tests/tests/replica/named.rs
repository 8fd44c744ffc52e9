//! A VE writes files whose bytes both nodes have as objects, as who installs a package that another VE has.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vefs::Ve;
use vefs::change::AtWindow;
use vefs::ids::{Hash, InodeNo};
use vefs::object::{ObjectStore, Pin};

use super::nodes::{Node, file, nodes, replicated, same, wait};

const FILES: usize = 40;
const LEN: usize = 30_000;

/// Bytes that no compression makes fewer.
fn noise(of: usize) -> Vec<u8> {
    (0u64..).flat_map(|n| Hash::of(&[of as u64, n].map(u64::to_le_bytes).concat()).0).take(LEN).collect()
}

fn put(node: &Node, of: impl Iterator<Item = usize>) -> Vec<Pin> {
    let objects = node.store().objects();
    of.map(|n| objects.pin(objects.put(&noise(n)).unwrap())).collect()
}

fn sent(a: &Node) -> u64 {
    let (_, replicas) = a.runtime().figures(super::nodes::VE).unwrap().led.unwrap();
    replicas[0].link.sent
}

/// Writes files, and says how many bytes went to the replica.
fn write(ve: &Arc<Ve>, a: &Node, b: &Node, round: &str, of: impl Iterator<Item = usize>) -> (u64, Vec<InodeNo>) {
    let before = sent(a);
    let files = of.map(|n| file(ve, &format!("{round}-{n}"), &noise(n)).unwrap()).collect();
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    same(a, b);
    (sent(a) - before, files)
}

/// Nothing of them travels but names; what the replica lacks, or what turns out to be damaged there, travels as ever (checks G9, G13, G24).
#[test]
fn files_that_both_nodes_have_do_not_travel() {
    let [a, mut b] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Stall);
    wait("the replica", || a.acked(b.id()));
    let _kept = put(&a, 0..2 * FILES);
    let kept = put(&b, 0..FILES);
    let all = (FILES * LEN) as u64;

    let (bytes, files) = write(&ve, &a, &b, "there", 0..FILES);
    assert!(bytes < all / 20, "{bytes} bytes for names of {all}");
    let (bytes, _) = write(&ve, &a, &b, "half", FILES / 2..FILES + FILES / 2);
    assert!(bytes > all / 2 && bytes < all * 6 / 10, "{bytes} bytes for half of {all}");
    let (bytes, _) = write(&ve, &a, &b, "new", 3 * FILES..4 * FILES);
    assert!(bytes > all, "{bytes} bytes for {all} new ones");
    for (n, ino) in files.into_iter().enumerate() {
        assert!(b.ve().read(ino, 0, LEN).unwrap() == noise(n), "file {n}");
    }

    // Read anew from the disk, and one of them is wrong there.
    drop(kept);
    b.stop();
    let path = b.dir.path().join("store").join(ObjectStore::body_path(Hash::of(&noise(7))));
    let body = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    body.write_all_at(b"wrong", 1000).unwrap();
    b.start();
    wait("the replica again", || a.acked(b.id()));
    let (_, files) = write(&ve, &a, &b, "damaged", 5..10);
    for (n, ino) in (5..).zip(files) {
        assert!(b.ve().read(ino, 0, LEN).unwrap() == noise(n), "file {n}");
    }
    let (bytes, _) = write(&ve, &a, &b, "once more", 20..30);
    assert!(bytes < all / 20, "names travel again: {bytes} bytes");
}
