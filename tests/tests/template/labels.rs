//! Names of templates, stacks of them, and their use by VEs; all of it after a restart as well.

use std::sync::Arc;

use aspfs_tests::harness::{World, small_options};
use aspfs_tools::template::event::{Event, Meta, What};
use vefs::Store;
use vefs::change::Settings;
use vefs::ids::{Hash, InodeNo, VeId};
use vefs::storage::Storage;
use vefs::storage::memory::MemStorage;

use crate::bed::{feed, look};

fn tree(store: &Arc<Store>, files: &[(&str, &str)]) -> vefs::object::Pin {
    let mut events = Vec::new();
    for (name, text) in files {
        let meta = Meta { mode: 0o644, ..Meta::default() };
        let what = What::File { size: text.len() as u64, sparse: false };
        events.push(Event::Node { parent: 0, name: (*name).into(), meta, what });
        events.push(Event::Data { offset: 0, bytes: text.as_bytes().to_vec() });
    }
    events.push(Event::End);
    feed(store, events).unwrap().pin
}

fn put(store: &Arc<Store>, name: &str, files: &[(&str, &str)]) -> Hash {
    store.template_put(name, tree(store, files).hash(), "made by hand").unwrap().root
}

fn names(store: &Store) -> Vec<String> {
    store.template_list().unwrap().into_iter().map(|t| t.name).collect()
}

#[test]
fn a_name_survives_a_restart_and_says_what_it_is() {
    let mut world = World::create(Arc::new(MemStorage::new()), 1, small_options()).unwrap();
    let store = world.open().unwrap();
    let root = put(&store, "debian-12", &[("f", "12345"), ("g", "12345")]);
    put(&store, "b.new", &[("f", "1")]);
    put(&store, "b", &[("f", "2")]);
    drop(store);
    let store = world.open().unwrap();
    assert_eq!(
        names(&store),
        ["b", "b.new", "debian-12"],
        "a name that looks like an unfinished file is one of its own"
    );
    let label = store.template_get("debian-12").unwrap();
    assert_eq!((label.root, label.inodes, label.bytes, &*label.source), (root, 3, 10, "made by hand"));
    assert_eq!(label.created.secs, 1_000_000_000);
    assert_eq!(look(&store, store.template_get("b.new").unwrap().root)[&b"f"[..]].bytes, b"1");
}

#[test]
fn a_name_stands_for_one_tree() {
    let store = crate::bed::store();
    let root = put(&store, "a", &[("f", "1")]);
    assert_eq!(store.template_put("a", root, "again").unwrap().source, "made by hand", "nothing changes");
    let other = tree(&store, &[("f", "2")]);
    let error = store.template_put("a", other.hash(), "other").unwrap_err().to_string();
    assert!(error.contains("template a is there already"), "{error}");
    assert_eq!(store.template_get("a").unwrap().root, root);
    for bad in ["", "A", "../x", "a/b", ".hidden", &"x".repeat(65)] {
        let error = store.template_put(bad, root, "").unwrap_err().to_string();
        assert!(error.contains("is no name for a template"), "{error}");
        assert!(
            store.template_get(bad).is_err() && store.template_remove(bad).is_err() && store.stack(&[bad]).is_err()
        );
    }
    assert!(store.template_put("b", Hash::of(b"absent"), "").unwrap_err().to_string().contains("is not there"));
    assert!(store.template_get("b").unwrap_err().to_string().contains("there is no template b"));
}

#[test]
fn a_template_in_use_stays() {
    let store = crate::bed::store();
    let (a, _) = (put(&store, "a", &[("f", "1")]), put(&store, "b", &[("g", "2")]));
    let stack = store.stack(&["a", "b"]).unwrap();
    for (id, base) in [(1, a), (0x2A, a), (3, stack.hash())] {
        store.create_ve(VeId(id), base, Settings::default()).unwrap();
    }
    let error = store.template_remove("a").unwrap_err().to_string();
    assert_eq!(error, "template a is in use by VE 00000001, 00000003, 0000002A");
    assert_eq!(store.template_remove("b").unwrap_err().to_string(), "template b is in use by VE 00000003");
    store.destroy_ve(VeId(3)).unwrap();
    store.template_remove("b").unwrap();
    assert_eq!(names(&store), ["a"]);
    [1, 0x2A].iter().for_each(|id| store.destroy_ve(VeId(*id)).unwrap());
    store.template_remove("a").unwrap();
    drop(stack);
    assert_eq!(store.collect_garbage(&Default::default()).unwrap().trees, 3);
    assert!(store.storage().list("stacks").unwrap().is_empty() && store.objects().list().unwrap().is_empty());
    assert!(store.create_ve(VeId(9), a, Settings::default()).is_err(), "the tree is gone, also from memory");
}

#[test]
fn stacks_are_composed_once_and_in_their_order() {
    let mut world = World::create(Arc::new(MemStorage::new()), 1, small_options()).unwrap();
    let store = world.open().unwrap();
    let a = put(&store, "a", &[("f", "1"), ("x", "a")]);
    put(&store, "b", &[("g", "2"), ("x", "b")]);
    let (ab, ba) = (store.stack(&["a", "b"]).unwrap(), store.stack(&["b", "a"]).unwrap());
    let text = |root: Hash, name: &str| look(&store, root)[name.as_bytes()].bytes.clone();
    assert_eq!(
        (text(ab.hash(), "x"), text(ba.hash(), "x"), text(ab.hash(), "f")),
        (b"b".to_vec(), b"a".to_vec(), b"1".to_vec())
    );
    assert_eq!(store.stack(&["a"]).unwrap().hash(), a);
    assert_eq!(store.storage().list("stacks").unwrap().len(), 2);
    let trees = store.storage().list("bases").unwrap().len();
    assert_eq!(store.stack(&["a", "b"]).unwrap().hash(), ab.hash());
    assert_eq!(store.storage().list("bases").unwrap().len(), trees);
    assert!(store.stack(&[]).is_err() && store.stack(&["a", "c"]).is_err());
    let ve = store.create_ve(VeId(1), ab.hash(), Settings::default()).unwrap();
    let (dentry, inode) = ve.lookup(InodeNo::ROOT, b"x").unwrap();
    assert_eq!((ve.read(dentry.ino, 0, 10).unwrap(), inode.size), (b"b".to_vec(), 1));
    drop((ab, ba, ve));
    // What nobody uses is collected, and composed again when it is wanted.
    assert_eq!(store.collect_garbage(&Default::default()).unwrap().trees, 1);
    assert_eq!(store.storage().list("stacks").unwrap().len(), 1);
    drop(store);
    let store = world.open().unwrap();
    assert_eq!(store.template_users("b").unwrap(), [VeId(1)]);
    assert_eq!(look(&store, store.stack(&["b", "a"]).unwrap().hash())[&b"x"[..]].bytes, b"a");
}

/// A verification went on to its end when its client had gone or the daemon was to stop, which then waited for every byte of a template.
#[test]
fn verifying_ends_when_it_is_told_to() {
    let store = crate::bed::store();
    put(&store, "a", &[("big", &"x".repeat(200_000)), ("other", &"y".repeat(100_000))]);
    let found = store.template_verify("a", &mut |done, _| done < 1).unwrap();
    assert_eq!(found.objects, 1);
}

#[test]
fn verifying_reads_everything_and_finds_damage() {
    let disk = Arc::new(MemStorage::new());
    let mut world = World::create(disk.clone(), 1, small_options()).unwrap();
    let store = world.open().unwrap();
    let big = "x".repeat(200_000);
    put(&store, "a", &[("big", &big), ("small", "small")]);
    let mut steps = Vec::new();
    let found = store
        .template_verify("a", &mut |done, of| {
            steps.push((done, of));
            true
        })
        .unwrap();
    assert_eq!((found.inodes, found.objects, found.bytes, found.damaged), (3, 2, 200_005, 0));
    assert_eq!(steps, [(0, 2), (1, 2), (2, 2)]);
    let object = Hash::of(big.as_bytes());
    let path = vefs::object::ObjectStore::body_path(object);
    let flip = |path: &str, at: u64| {
        let file = disk.open(path).unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, at).unwrap();
        byte[0] ^= 1;
        file.write_at(&[std::io::IoSlice::new(&byte)], at).unwrap();
    };
    flip(&path, 100_000);
    let found = store.template_verify("a", &mut |_, _| true).unwrap();
    assert!(
        found.damaged == 1 && found.damage[0].contains("damaged") && found.damage[0].contains("chunk 1"),
        "{found:?}"
    );
    flip(&path, 100_000);
    disk.remove(&path).unwrap();
    let found = store.template_verify("a", &mut |_, _| true).unwrap();
    assert!(found.damaged == 1 && found.damage[0].contains("is not there"), "{found:?}");
    let tree = vefs::base::BaseTree::path(store.template_get("a").unwrap().root);
    flip(&tree, 120);
    let found = store.template_verify("a", &mut |_, _| true).unwrap();
    assert!(found.damaged == 1 && found.damage[0].contains("base tree"), "{found:?}");
    assert!(store.template_verify("b", &mut |_, _| true).is_err());
}

/// A damaged label is told of, and keeps every tree from removal: nobody knows which one it names. VEs are collected all the same.
#[test]
fn a_damaged_label_keeps_every_tree() {
    let disk = Arc::new(MemStorage::new());
    let mut world = World::create(disk.clone(), 1, small_options()).unwrap();
    let store = world.open().unwrap();
    let root = put(&store, "a", &[("f", "1")]);
    let file = disk.open("templates/a.label").unwrap();
    file.write_at(&[std::io::IoSlice::new(b"?")], 40).unwrap();
    let done = store.collect_garbage(&Default::default()).unwrap();
    assert_eq!((done.trees, done.skipped), (0, 1));
    assert_eq!(look(&store, root).len(), 2);
}
