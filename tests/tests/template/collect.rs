//! Collections of garbage before, during and after imports take what nothing names, and nothing else (promise G26); a full disk in
//! the middle of an import leaves nothing else behind either (promise G4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aspfs_tests::harness::{World, small_options};
use aspfs_tools::template::event::{Event, Meta, What};
use aspfs_tools::template::sink::{Import, ImportError};
use vefs::Store;
use vefs::change::Settings;
use vefs::ids::{Hash, VeId};
use vefs::limits::RESERVE_BYTES;
use vefs::storage::Storage;
use vefs::storage::memory::MemStorage;
use vefs::store::{Options, Reclaimed};

use crate::bed::{feed, look, store};

fn collect(store: &Store) -> Reclaimed {
    store.collect_garbage(&Default::default()).unwrap()
}

/// Files of different sizes: some with objects of their own, the others in a pack.
fn tree(seed: u8, files: u8) -> Vec<Event> {
    let mut out = Vec::new();
    for i in 0..files {
        let bytes = [seed, i].repeat(if i % 3 == 0 { 50_000 } else { 500 });
        let meta = Meta { mode: 0o644, ..Meta::default() };
        let what = What::File { size: bytes.len() as u64, sparse: false };
        out.push(Event::Node { parent: 0, name: format!("f{i}").into(), meta, what });
        out.push(Event::Data { offset: 0, bytes });
    }
    out.push(Event::End);
    out
}

fn is_whole(store: &Store, root: Hash, seed: u8, files: u8) {
    let seen = look(store, root);
    assert_eq!(seen.len(), usize::from(files) + 1);
    for i in 0..files {
        assert!(seen[format!("f{i}").as_bytes()].bytes.starts_with(&[seed, i]));
    }
}

/// checks G26
#[test]
fn a_collection_in_the_middle_of_an_import_takes_nothing_of_it() {
    let store = store();
    let mut import = Import::begin(&store).unwrap();
    for event in tree(1, 200) {
        import.event(event).unwrap();
        if import.progress().0.is_multiple_of(20) {
            collect(&store);
        }
    }
    let done = import.finish().unwrap();
    assert_eq!(collect(&store).trees, 0, "it has no name yet, but is held");
    is_whole(&store, done.hash, 1, 200);
    let label = store.template_put("one", done.hash, "here").unwrap();
    drop(done);
    assert_eq!(collect(&store).trees, 0);
    is_whole(&store, label.root, 1, 200);
    assert!(store.template_verify("one", &mut |_, _| true).unwrap().damage.is_empty());
}

/// checks G26: threads that import, name, create VEs, remove and collect, all at once.
#[test]
fn collections_race_with_imports() {
    let store = store();
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                collect(&store);
                n += 1;
            }
            n
        });
        let importers: Vec<_> = (0..2u8)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..15u8 {
                        // Both threads import the same trees: what one lets go of, the other may just be about to use.
                        let done = feed(store, tree(round % 4, 40)).unwrap();
                        let name = format!("t{thread}");
                        store.template_put(&name, done.hash, "race").unwrap();
                        drop(done);
                        let pin = store.stack(&[&name]).unwrap();
                        let id = VeId(u32::from(thread) * 100 + u32::from(round) + 1);
                        store.create_ve(id, pin.hash(), Settings::default()).unwrap();
                        let root = pin.hash();
                        drop(pin);
                        is_whole(store, root, round % 4, 40);
                        assert!(store.template_remove(&name).is_err());
                        store.destroy_ve(id).unwrap();
                        match store.template_remove(&name) {
                            Ok(()) => {}
                            Err(e) => assert!(e.to_string().contains("in use by VE"), "{e}"),
                        }
                        while store.template_get(&name).is_ok() {
                            std::thread::yield_now();
                            let _ = store.template_remove(&name);
                        }
                    }
                })
            })
            .collect();
        importers.into_iter().for_each(|t| t.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        assert!(collector.join().unwrap() > 0);
    });
    collect(&store);
    assert_eq!(store.storage().list("bases").unwrap(), Vec::<String>::new());
    assert!(store.objects().list().unwrap().is_empty());
}

#[test]
fn what_an_abandoned_import_made_is_collected() {
    let store = store();
    let kept = feed(&store, tree(1, 30)).unwrap();
    store.template_put("kept", kept.hash, "here").unwrap();
    let before = store.objects().list().unwrap();
    let mut import = Import::begin(&store).unwrap();
    // The first half of what it brings is there already.
    let events = tree(1, 60);
    events.into_iter().take(110).for_each(|event| import.event(event).unwrap());
    drop(import);
    let second = feed(&store, tree(2, 30)).unwrap().hash;
    let done = collect(&store);
    assert_eq!(done.trees, 1, "{second} has no name");
    assert_eq!(store.objects().list().unwrap(), before);
    is_whole(&store, kept.hash, 1, 30);
}

/// checks G4
#[test]
fn a_full_disk_in_the_middle_leaves_only_what_a_collection_removes() {
    const RESERVE: u64 = 1 << 20;
    let options = Options { reserve: RESERVE, ..small_options() };
    let disk = Arc::new(MemStorage::new());
    let mut world = World::create(disk.clone(), 1, options).unwrap();
    let store = world.open().unwrap();
    let small = feed(&store, tree(1, 30)).unwrap();
    store.template_put("small", small.hash, "here").unwrap();
    let before = (store.objects().list().unwrap(), disk.used());
    let mut refused = 0;
    for room in [0, 100 << 10, 1 << 20, 3 << 20, 5 << 20] {
        disk.set_capacity(Some(before.1 + RESERVE + room));
        store.tick().unwrap();
        match feed(&store, tree(2, 250)) {
            Ok(_) => {}
            Err(ImportError::Store(vefs::Error::NoSpace { .. })) => refused += 1,
            Err(e) => panic!("{e}"),
        }
        store.tick().unwrap();
        collect(&store);
        assert_eq!((store.objects().list().unwrap(), disk.used() <= before.1 + (64 << 10)), (before.0.clone(), true));
    }
    assert!(refused >= 3, "{refused}");
    disk.set_capacity(None);
    store.tick().unwrap();
    let big = feed(&store, tree(2, 250)).unwrap();
    is_whole(&store, big.hash, 2, 250);
}

/// A store with room for so many bytes above the reserve.
fn nearly_full(room: u64) -> (Arc<Store>, Arc<MemStorage>) {
    let options = Options { reserve: RESERVE_BYTES, ..small_options() };
    let disk = Arc::new(MemStorage::new());
    let store = World::create(disk.clone(), 1, options).unwrap().open().unwrap();
    disk.set_capacity(Some(disk.used() + RESERVE_BYTES + room));
    store.tick().unwrap();
    (store, disk)
}

fn file(name: String, size: u64, sparse: bool) -> Event {
    let meta = Meta { mode: 0o644, ..Meta::default() };
    Event::Node { parent: 0, name: name.into(), meta, what: What::File { size, sparse } }
}

/// checks G4: only the bytes that were sent counted as written. Of a file with holes a chunk of 64 KiB is written for one byte, so that a few
/// kilobytes of events filled the disk through the reserve to its end.
#[test]
fn a_chunk_counts_whole_however_few_bytes_of_it_come() {
    const STRIDE: u64 = 128 << 10;
    let (store, disk) = nearly_full(16 << 20);
    let mut import = Import::begin(&store).unwrap();
    import.event(file("f".into(), 4000 * STRIDE, true)).unwrap();
    let mut bytes = (0..4000).map(|i| Event::Data { offset: i * STRIDE, bytes: vec![1] });
    let error = bytes.find_map(|event| import.event(event).err()).expect("a full disk");
    assert!(matches!(error, ImportError::Store(vefs::Error::NoSpace { .. })), "{error}");
    let free = disk.free_bytes().unwrap();
    assert!(free >= RESERVE_BYTES - (4 << 20), "the import left {free} bytes");
    drop(import);
    store.tick().unwrap();
    feed(&store, tree(1, 10)).unwrap();
}

/// checks G4: small contents wait in a file and are written once more at the end, as packs, and nobody had looked for room for these: the end
/// of an import took it from the reserve.
#[test]
fn the_end_of_an_import_needs_room_for_its_packs() {
    for (room, fits) in [(12 << 20, false), (24 << 20, true)] {
        let (store, disk) = nearly_full(room);
        let mut import = Import::begin(&store).unwrap();
        for i in 0..200u32 {
            import.event(file(format!("f{i}"), 40_000, false)).unwrap();
            import.event(Event::Data { offset: 0, bytes: i.to_le_bytes().repeat(10_000) }).unwrap();
        }
        import.event(Event::End).unwrap();
        match import.finish() {
            Ok(_) => assert!(fits, "{room}"),
            Err(ImportError::Store(vefs::Error::NoSpace { .. })) => assert!(!fits, "{room}"),
            Err(e) => panic!("{e}"),
        }
        assert!(disk.free_bytes().unwrap() >= RESERVE_BYTES, "{room}");
    }
}
