//! The receiving side takes no event on trust (promise G29).

use aspfs_tools::template::event::{DATA_MAX, Event, Meta, What};
use aspfs_tools::template::sink::{Import, ImportError};
use proptest::prelude::*;
use vefs::base::BaseTree;
use vefs::clock::Timestamp;

use crate::bed::{feed, look, store};

fn meta() -> Meta {
    Meta { mode: 0o644, ..Meta::default() }
}

fn node(parent: u32, name: &str, what: What) -> Event {
    Event::Node { parent, name: name.into(), meta: meta(), what }
}

fn file(name: &str, size: u64, sparse: bool) -> Event {
    node(0, name, What::File { size, sparse })
}

fn data(offset: u64, bytes: &[u8]) -> Event {
    Event::Data { offset, bytes: bytes.to_vec() }
}

fn xattr(name: &str, value: &[u8]) -> Event {
    Event::Xattr { name: name.into(), value: value.to_vec() }
}

fn refused(events: Vec<Event>) -> String {
    let store = store();
    let mut import = Import::begin(&store).unwrap();
    let mut events = events.into_iter().chain([Event::End]);
    let error = events.find_map(|event| import.event(event).err()).expect("an event to be refused").to_string();
    assert!(import.event(Event::End).is_err(), "{error}: it goes on");
    assert!(import.finish().is_err(), "{error}: it finishes");
    assert_eq!(store.storage().list("bases").unwrap(), Vec::<String>::new());
    error
}

#[test]
fn events_out_of_order_or_bounds_are_refused() {
    let dir = || node(0, "d", What::Directory);
    for (events, words) in [
        (vec![node(1, "x", What::Fifo)], "not named"),
        (vec![node(0, "..", What::Fifo)], "name is not valid"),
        (vec![node(0, "a/b", What::Fifo)], "name is not valid"),
        (vec![dir(), dir()], "has this name already"),
        (vec![node(0, "f", What::Fifo), node(1, "x", What::Fifo)], "not a directory"),
        (vec![data(0, b"x")], "no file"),
        (vec![dir(), data(0, b"x")], "no file"),
        (vec![file("f", 3, false)], "missing"),
        (vec![file("f", 3, false), data(0, b"xx")], "missing"),
        (vec![file("f", 3, false), data(0, b"xxxx")], "behind the end"),
        (vec![file("f", 3, false), data(1, b"xx")], "not in order"),
        (vec![file("f", 9, true), data(5, b"x"), data(5, b"x")], "not in order"),
        (vec![file("f", u64::MAX, true)], "limit of sizes"),
        (vec![node(0, "c", What::CharDevice(1 << 32))], "device number"),
        (vec![node(0, "b", What::BlockDevice(u64::MAX))], "device number"),
        (vec![file("f", 9, true), data(u64::MAX, b"x")], "behind the end"),
        (vec![file("f", 9, true), data(0, b"")], "empty or oversized"),
        (vec![file("f", 1 << 30, true), data(0, &vec![1; DATA_MAX + 1])], "empty or oversized"),
        (vec![file("f", 1, false), data(0, b"x"), dir(), data(0, b"x")], "no file"),
        (vec![dir(), Event::Link { parent: 0, name: b"l".to_vec(), to: 1 }], "directory cannot be linked"),
        (vec![Event::Link { parent: 0, name: b"l".to_vec(), to: 1 }], "not named"),
        (vec![Event::Remove { parent: 0, name: b"l".to_vec() }], "not there"),
        (vec![node(0, "f", What::Fifo), Event::Meta { node: 1, meta: meta() }], "no directory"),
        (vec![node(0, "l", What::Symlink(Vec::new()))], "link target"),
        (vec![dir(), xattr("security.selinux", b"x")], "not kept"),
        (vec![dir(), xattr("trusted.overlay.opaque", b"y")], "not kept"),
        (vec![dir(), xattr("user.", b"")], "user."),
        (vec![dir(), xattr("system.posix_acl_access", b"junk")], "posix_acl_access"),
        (vec![node(0, "l", What::Symlink(b"t".to_vec())), xattr("user.x", b"")], "user.x"),
        (vec![dir(), Event::Remove { parent: 0, name: b"d".to_vec() }, xattr("user.x", b"")], "of nothing"),
        (
            vec![Event::Node {
                parent: 0,
                name: b"x".to_vec(),
                meta: Meta { mode: 0o10000, ..meta() },
                what: What::Fifo,
            }],
            "bits",
        ),
        (
            vec![Event::Meta { node: 0, meta: Meta { mtime: Timestamp { secs: 0, nanos: 1_000_000_000 }, ..meta() } }],
            "times is not valid",
        ),
        (vec![Event::End, Event::End], "after the end"),
    ] {
        let error = refused(events.clone());
        assert!(error.contains(words), "{events:?}: {error}");
    }
}

#[test]
fn a_stream_without_its_end_makes_no_tree() {
    let error = feed(&store(), vec![node(0, "d", What::Directory)]).unwrap_err();
    assert!(matches!(error, ImportError::Event("it was cut off")), "{error}");
}

#[test]
fn what_is_removed_may_come_again_and_links_keep_what_they_name() {
    let store = store();
    let remove = |name: &str| Event::Remove { parent: 0, name: name.into() };
    let link = Event::Link { parent: 0, name: b"l".to_vec(), to: 1 };
    let events = vec![
        file("f", 1, false),
        data(0, b"1"),
        link,
        remove("f"),
        node(0, "f", What::Directory),
        node(2, "x", What::Fifo),
        Event::End,
    ];
    let seen = look(&store, feed(&store, events).unwrap().hash);
    let paths: Vec<_> = seen.keys().map(|p| String::from_utf8_lossy(p).into_owned()).collect();
    assert_eq!(paths, ["", "f", "f/x", "l"]);
    assert_eq!((seen[&b"l"[..]].nlink, &*seen[&b"l"[..]].bytes), (1, &b"1"[..]));
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let name = || prop::sample::select(vec!["a", "b", "c", "..", ""]).prop_map(|n| n.as_bytes().to_vec());
    let what = prop_oneof![
        4 => Just(What::Directory),
        4 => (0u64..200_000, any::<bool>()).prop_map(|(size, sparse)| What::File { size, sparse }),
        1 => Just(What::File { size: u64::MAX / 4, sparse: true }),
        1 => Just(What::Symlink(b"t".to_vec())),
        1 => any::<u32>().prop_map(|number| What::CharDevice(number.into())),
        1 => any::<u64>().prop_map(What::BlockDevice),
        1 => Just(What::Socket),
    ];
    let meta = (0u32..0o10000, any::<u32>()).prop_map(|(mode, uid)| Meta { mode, uid, ..Meta::default() });
    let event = prop_oneof![
        8 => (0u32..6, name(), meta.clone(), what).prop_map(|(parent, name, meta, what)| Event::Node { parent, name, meta, what }),
        8 => (0u64..200_000, 1usize..100_000).prop_map(|(at, len)| Event::Data { offset: at / 70_000 * 70_000, bytes: vec![(at % 3) as u8; len] }),
        2 => (0u32..6, meta).prop_map(|(node, meta)| Event::Meta { node, meta }),
        2 => (0u32..6, name(), 0u32..6).prop_map(|(parent, name, to)| Event::Link { parent, name, to }),
        2 => (0u32..6, name()).prop_map(|(parent, name)| Event::Remove { parent, name }),
        1 => Just(xattr("user.x", b"v")),
    ];
    prop::collection::vec(event, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever comes is refused, or skipped by a sender that knows better; what is left makes a tree that can be read.
    #[test]
    fn any_stream_is_refused_or_makes_a_tree(events in events()) {
        let store = store();
        let mut taken = Vec::new();
        for event in events {
            let mut next = taken.clone();
            next.push(event);
            let mut import = Import::begin(&store).unwrap();
            if next.iter().cloned().all(|event| import.event(event).is_ok()) {
                taken = next;
            }
        }
        let all = taken.into_iter().chain([Event::End]).collect();
        if let Ok(done) = feed(&store, all) {
            prop_assert_eq!(BaseTree::open(&**store.storage(), done.hash).unwrap().inode_count(), done.inodes);
            look(&store, done.hash);
        }
    }
}
