use std::io::IoSlice;

use super::*;
use crate::content::Location;
use crate::ids::{InodeNo, TxnNo};
use crate::meta::MemoryMeta;
use crate::storage::memory::MemStorage;
use crate::store::bed::{self, VE};

const OTHER: VeId = VeId(8);

/// Fills some journal segments.
fn fill(ve: &Ve, name: &str) {
    let ino = bed::create(ve, name);
    for n in 0..8 {
        bed::write(ve, ino, n * 60_000, vec![n as u8; 60_000]).unwrap();
        ve.commit().unwrap();
    }
}

fn read(ve: &Ve, name: &str) -> Vec<u8> {
    let ino = ve.lookup(InodeNo::ROOT, name.as_bytes()).unwrap().0.ino;
    ve.read(ino, 0, 1 << 20).unwrap()
}

fn oldest(ve: &Ve) -> u64 {
    ve.state.lock().journal.oldest()
}

/// The history of one VE was collected for minutes, and the tick of all VEs waited for it as soon as their journals had grown by what makes it publish: nothing
/// of anybody was sealed or flushed, and followed VEs came to their windows (checks G14).
#[test]
fn a_tick_waits_for_no_collection() {
    let store = Arc::new(bed::on(Arc::new(MemStorage::new()), Arc::new(MemoryMeta::default())));
    let (collected, other) = (bed::create_ve(&store, VE), bed::create_ve(&store, OTHER));
    fill(&collected, "much");
    let collecting = collected.begin_collecting();
    for checkpoint in [false, true] {
        fill(&other, if checkpoint { "second" } else { "first" });
        let before = oldest(&other);
        {
            let mut c = store.checkpoint_state.lock();
            c.since_persist = 1 << 40;
            c.since_checkpoint = if checkpoint { 1 << 40 } else { 0 };
        }
        let (done, ticked) = std::sync::mpsc::channel();
        let ticking = store.clone();
        std::thread::spawn(move || done.send(ticking.tick()));
        ticked.recv_timeout(std::time::Duration::from_secs(30)).expect("it waits for the collection").unwrap();
        assert!(!other.is_dirty() && oldest(&other) >= before);
    }
    assert!(oldest(&other) > 0, "its journal is given back");
    drop(collecting);
    assert_eq!(read(&collected, "much").len(), 8 * 60_000);
    // Somebody who only publishes is waited for: what is not published is replayed by a start.
    store.checkpoint_state.lock().since_persist = 1 << 40;
    let publishing = collected.publishing.lock();
    let ticking = store.clone();
    let ticked = std::thread::spawn(move || ticking.tick());
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!ticked.is_finished());
    drop(publishing);
    ticked.join().unwrap().unwrap();
    assert!(collected.state.lock().tables.active.is_empty());
}

/// What was frozen before a collection was published after it, with the floor of before: a start took versions that are gone for kept ones, and what differs
/// from them was answered by an index that no longer had it.
#[test]
fn what_was_frozen_before_a_collection_does_not_lower_its_floor() {
    let (disk, meta) = (Arc::new(MemStorage::new()), Arc::new(MemoryMeta::default()));
    let store = bed::on(disk.clone(), meta.clone());
    let ve = bed::create_ve(&store, VE);
    fill(&ve, "one");
    ve.publish().unwrap();
    fill(&ve, "two");
    {
        let mut s = ve.state.lock();
        assert!(s.freeze());
        s.head.floor = TxnNo(5);
    }
    ve.publish_pending().unwrap();
    drop((ve, store));
    let store = bed::again(disk, meta);
    assert_eq!(store.ve(VE).unwrap().state.lock().head.floor, TxnNo(5));
}

/// One VE with a damaged payload in its journal kept those of all others from being given back, and the node filled up (checks G33). A rebuild has both
/// all the same (checks G32).
#[test]
fn a_ve_that_cannot_be_published_holds_nobody_elses_journal() {
    let (disk, meta) = (Arc::new(MemStorage::new()), Arc::new(MemoryMeta::default()));
    let store = bed::on(disk.clone(), meta.clone());
    let (bad, good) = (bed::create_ve(&store, VE), bed::create_ve(&store, OTHER));
    fill(&bad, "before");
    store.checkpoint().unwrap();
    let published = oldest(&bad);
    assert!(published > 0);
    fill(&bad, "bad");
    let (segment, offset) = {
        let s = bad.state.lock();
        let inline = s.tables.active.places.values().find_map(|p| match &p.at {
            Location::Journal { segment, offset, .. } => Some((segment.clone(), *offset)),
            Location::Extent(_) => None,
        });
        inline.unwrap()
    };
    let mut right = [0; 10];
    segment.file.read_at(&mut right, offset).unwrap();
    segment.file.write_at(&[IoSlice::new(&[0xff; 10])], offset).unwrap();

    fill(&good, "good");
    assert!(store.publish_all().is_err());
    store.checkpoint_state.lock().since_checkpoint = 1 << 40;
    store.tick().unwrap();
    let first = oldest(&good);
    assert!(first > 0);
    fill(&good, "more");
    store.checkpoint_state.lock().since_persist = 1 << 40;
    store.tick().unwrap();
    assert_eq!(good.overlay_bytes(), 0);
    store.close().unwrap();
    assert!(bad.overlay_bytes() > 0);

    segment.file.write_at(&[IoSlice::new(&right)], offset).unwrap();
    let copy = Arc::new(meta.from_checkpoint(Path::new("/nonexistent-checkpoints/new")));
    let rebuilt = bed::again(Arc::new(disk.snapshot()), copy);
    for (id, name) in [(VE, "before"), (VE, "bad"), (OTHER, "good"), (OTHER, "more")] {
        let (old, new) = (store.ve(id).unwrap(), rebuilt.ve(id).unwrap());
        assert_eq!(read(&new, name), read(&old, name), "{name}");
    }
}

/// A whole state was put in the place of a follower's. Its journal counts from 0, but what the newest checkpoint said of the old one counted for it: what
/// a rebuild from that checkpoint would have needed was given back (checks G32).
#[test]
fn what_a_checkpoint_has_of_a_replaced_state_says_nothing_of_the_new_one() {
    let (_from, primary, _) = bed::in_memory();
    let (disk, meta) = (Arc::new(MemStorage::new()), Arc::new(MemoryMeta::default()));
    let store = Arc::new(bed::on(disk.clone(), meta.clone()));
    let old = bed::create_follower(&store, &primary);
    ["a", "b", "c"].iter().for_each(|name| fill(&primary, name));
    while bed::ship(&primary, &old).unwrap() {}
    old.sync().unwrap();

    let new = bed::pull(&store, &primary, None);
    assert_ne!(new.slot(), old.slot());

    fill(&primary, "d");
    while bed::ship(&primary, &new).unwrap() {}
    new.publish().unwrap();
    store.persist().unwrap();
    assert_eq!(oldest(&new), 0);
    let copy = Arc::new(meta.from_checkpoint(Path::new("/nonexistent-checkpoints/new")));
    let rebuilt = bed::again(Arc::new(disk.snapshot()), copy).ve(VE).unwrap();
    assert_eq!(rebuilt.position(), primary.position());
    ["a", "b", "c", "d"].iter().for_each(|name| assert_eq!(read(&rebuilt, name), read(&primary, name), "{name}"));
    // The next checkpoint has it.
    store.checkpoint().unwrap();
    assert!(oldest(&new) > 0);
}

/// A stray file among the checkpoints could not be removed as a folder is. The checkpoint counted for nothing then, its number came again and was taken, and
/// no journal was given back any more.
#[test]
fn a_stray_file_stops_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    Store::create(folder.path()).unwrap();
    let options = Options { segment_min: 64 << 10, segment_max: 64 << 10, reserve: 0, ..Options::default() };
    let store = Store::open(folder.path(), options).unwrap();
    let ve = bed::create_ve(&store, VE);
    store.checkpoint().unwrap();
    std::fs::write(folder.path().join("checkpoints/notes.txt"), "what is this?").unwrap();
    for n in 0..3 {
        fill(&ve, &format!("f{n}"));
        store.checkpoint().unwrap();
    }
    assert!(oldest(&ve) > 0);
    let newest = newest_checkpoint(&folder.path().join("checkpoints")).unwrap();
    assert_eq!(newest.unwrap().0, 4);
    assert_eq!(std::fs::read_dir(folder.path().join("checkpoints")).unwrap().count(), 2);
}
