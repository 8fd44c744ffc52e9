//! A VE writes what the replica has of another VE, or in a template, as who installs a package once more.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use aspfs_replica::runtime::with_replica;
use aspfs_tests::harness::empty_tree;
use aspfs_tests::model::BaseEntry;
use aspfs_tests::run::tree;
use vefs::Ve;
use vefs::change::{Need, Policy, ReplicaOf, Settings};
use vefs::ids::{Hash, InodeNo, VeId};
use vefs::types::mode;
use vefs::ve::FeedPayload;

use super::nodes::{Node, file, nodes, wait};

const FILES: usize = 40;
const LEN: usize = 30_000;
const ALL: u64 = (FILES * LEN) as u64;

/// Bytes that no compression makes fewer.
pub fn noise(of: usize) -> Vec<u8> {
    (0u64..).flat_map(|n| Hash::of(&[of as u64, n].map(u64::to_le_bytes).concat()).0).take(LEN).collect()
}

fn create(a: &Node, b: &Node, id: u32, base: Hash) -> Arc<Ve> {
    let ve = a.store().create_ve(VeId(id), base, Settings::default()).unwrap();
    let replica = ReplicaOf { node: b.id().0, need: Need::Required, bandwidth: 0 };
    ve.set_policy(with_replica(&Policy::default(), replica)).unwrap();
    ve.commit().unwrap();
    a.runtime().refresh(&ve).unwrap();
    arrived(a, b, &ve);
    ve
}

/// Waits until the replica has everything; bytes sent to it so far.
fn arrived(a: &Node, b: &Node, ve: &Arc<Ve>) -> u64 {
    let mut sent = 0;
    wait("the replica", || {
        let (_, replicas) = a.runtime().figures(ve.id()).unwrap().led.unwrap();
        let Some(link) = replicas.iter().find(|r| r.status.node == b.id()).map(|r| &r.link) else { return false };
        sent = link.sent;
        !ve.is_dirty() && link.acked == Some(ve.durable_position())
    });
    sent
}

/// Writes files; how many bytes went to the replica, where they are the same.
fn write(a: &Node, b: &Node, ve: &Arc<Ve>, round: &str, of: std::ops::Range<usize>) -> u64 {
    let before = arrived(a, b, ve);
    let files: Vec<(usize, InodeNo)> = of.map(|n| (n, file(ve, &format!("{round}-{n}"), &noise(n)).unwrap())).collect();
    ve.commit().unwrap();
    let sent = arrived(a, b, ve) - before;
    let there = b.store().ve(ve.id()).unwrap();
    for (n, ino) in files {
        assert!(there.read(ino, 0, LEN).unwrap() == noise(n), "{round}: file {n}");
    }
    sent
}

/// Makes a byte wrong wherever these lie in the files below a folder; how often that is.
fn damage(dir: &Path, bytes: &[u8]) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found += damage(&entry.path(), bytes);
            continue;
        }
        let content = std::fs::read(entry.path()).unwrap();
        let file = OpenOptions::new().write(true).open(entry.path()).unwrap();
        for at in (0..content.len().saturating_sub(bytes.len())).filter(|at| content[*at..].starts_with(bytes)) {
            file.write_all_at(&[!content[at + 7]], at as u64 + 7).unwrap();
            found += 1;
        }
    }
    found
}

/// What one VE has written travels once more as hashes; what the replica has no more, does not know or has damaged travels as ever (checks G9, G24).
#[test]
fn what_another_ve_wrote_does_not_travel() {
    let [a, mut b] = nodes();
    let first = create(&a, &b, 0x2A, empty_tree());
    let second = create(&a, &b, 0x2B, empty_tree());
    let bytes = write(&a, &b, &first, "new", 0..FILES);
    assert!(bytes > ALL, "{bytes} bytes for {ALL} new ones");
    let bytes = write(&a, &b, &second, "again", 0..FILES);
    assert!(bytes < ALL / 20, "{bytes} bytes for hashes of {ALL}");
    let bytes = write(&a, &b, &first, "half", FILES / 2..FILES + FILES / 2);
    assert!(bytes > ALL / 2 && bytes < ALL * 6 / 10, "{bytes} bytes for half of {ALL}");

    // A daemon begins with no knowledge.
    b.stop();
    b.start();
    let bytes = write(&a, &b, &second, "unknown", 0..FILES);
    assert!(bytes > ALL, "{bytes} bytes for {ALL} after a start");
    let bytes = write(&a, &b, &first, "known", 0..FILES);
    assert!(bytes < ALL / 20, "{bytes} bytes for hashes of {ALL}");

    // Where the replica has them a byte is wrong.
    let bytes = write(&a, &b, &second, "of the second", 100..100 + FILES);
    assert!(bytes > ALL, "{bytes} bytes for {ALL} new ones");
    let wrong = damage(&b.dir.path().join("store/ves"), &noise(103)[..64]);
    assert!(wrong > 0, "the replica has it nowhere");
    let bytes = write(&a, &b, &first, "damaged", 100..100 + FILES);
    let one = LEN as u64;
    assert!(bytes > one && bytes < one + ALL / 20, "{bytes} bytes for one of {one} that is damaged");
}

/// Small files of a template share objects, so that none of them is an object by itself: they are known all the same.
#[test]
fn what_a_template_has_does_not_travel() {
    let [a, b] = nodes();
    let plain = |n: usize| BaseEntry {
        path: format!("file-{n}").into_bytes(),
        mode: mode::IFREG | 0o644,
        content: noise(n),
        ..BaseEntry::default()
    };
    let entries: Vec<BaseEntry> = (0..50 * 10).map(plain).collect();
    let base = tree::build(a.store().objects(), &entries).unwrap();
    let ve = create(&a, &b, 0x2A, base);
    // Both nodes read the template's files when the first payload comes, beside the streams.
    let mut round = 0;
    let known = (0..50).any(|n| {
        round = n;
        std::thread::sleep(std::time::Duration::from_millis(50));
        write(&a, &b, &ve, "again", 10 * n..10 * n + 10) < (10 * LEN) as u64 / 10
    });
    assert!(known, "nothing of the template is known");
    assert!(round > 0, "the first payload found a template that nobody had read");
    let payloads = |ve: &Arc<Ve>| {
        let txn = ve.durable_position().txn;
        let vefs::ve::Feed::Txn(txn) = ve.feed(vefs::ids::TxnNo(txn.0 - 1)).unwrap() else { panic!("no transaction") };
        txn.records.into_iter().filter(|r| matches!(r.payload, Some(FeedPayload::Inline(_)))).count()
    };
    let there = b.store().ve(ve.id()).unwrap();
    assert_eq!(payloads(&there), payloads(&ve), "the replica's journal has the bytes");
}
