//! Hostile templates: labels, streams of events, tar archives (promise G29).

use std::sync::Arc;

use aspfs_tools::template::event::{Event, Meta, What};
use aspfs_tools::template::sink::Import;
use aspfs_tools::template::source::read_tar;
use vefs::Store;
use vefs::base::BaseTree;
use vefs::format::stack::Stack;
use vefs::format::template::Label;
use vefs::storage::memory::MemStorage;

use crate::harness::{World, small_options};

/// A label, and a stack.
pub fn label(data: &[u8]) {
    if let Ok(label) = Label::parse(data) {
        let bytes = label.to_bytes().expect("it was read");
        assert_eq!(Label::parse(&bytes), Ok(label));
    }
    if let Ok(stack) = Stack::parse(data) {
        let bytes = stack.to_bytes().expect("it was read");
        assert_eq!(Stack::parse(&bytes), Ok(stack));
    }
}

fn store() -> Arc<Store> {
    let mut world = World::create(Arc::new(MemStorage::new()), 1, small_options()).expect("a store in memory");
    world.open().expect("opening")
}

/// An import that ended well has made a tree that can be read.
fn finish(store: &Store, import: Import) {
    if let Ok(done) = import.finish() {
        let tree = BaseTree::open(&**store.storage(), done.hash).expect("the tree that was made");
        assert_eq!(tree.inode_count(), done.inodes);
    }
}

/// A stream of events, each behind its length in two bytes.
pub fn events(mut data: &[u8]) {
    let store = store();
    let mut import = Import::begin(&store).expect("a store with room");
    while let Some((len, rest)) = data.split_first_chunk::<2>() {
        let (bytes, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
        data = rest;
        let Ok(event) = Event::decode(bytes) else { continue };
        if import.event(event).is_err() {
            break;
        }
    }
    finish(&store, import);
}

/// A tar archive. The checksums of headers are put right, so that what is behind them is met.
pub fn tar(data: &[u8]) {
    let mut data = data.to_vec();
    for block in data.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        let mut header = tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
    let store = store();
    let mut import = Import::begin(&store).expect("a store with room");
    let done = read_tar("archive", &data[..], &mut |_| {}, &mut |event| {
        assert_eq!(Event::decode(&event.encode()).expect("made here"), event);
        Ok(import.event(event)?)
    });
    if done.is_ok() {
        finish(&store, import);
    }
}

/// What hostile inputs are made from: a stream of all kinds of events, and an archive.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let meta = Meta { mode: 0o755, uid: 1, gid: 2, ..Meta::default() };
    let node = |parent, name: &str, what| Event::Node { parent, name: name.into(), meta, what };
    let events = [
        Event::Meta { node: 0, meta },
        node(0, "d", What::Directory),
        Event::Xattr { name: b"user.x".to_vec(), value: b"v".to_vec() },
        node(1, "f", What::File { size: 70_000, sparse: true }),
        Event::Data { offset: 3, bytes: b"bytes".to_vec() },
        Event::Link { parent: 0, name: b"l".to_vec(), to: 2 },
        node(0, "s", What::Symlink(b"d/f".to_vec())),
        node(0, "c", What::CharDevice(0x103)),
        Event::Remove { parent: 0, name: b"l".to_vec() },
        Event::End,
    ];
    let framed = |event: &Event| {
        let bytes = event.encode();
        [&(bytes.len() as u16).to_le_bytes()[..], &bytes].concat()
    };
    vec![("events", events.iter().flat_map(framed).collect()), ("tar", archive())]
}

fn archive() -> Vec<u8> {
    let member = |name: &str, kind: u8, link: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(5);
        header.set_size(bytes.len() as u64);
        if kind == b'S' {
            let gnu = header.as_gnu_mut().expect("made so");
            gnu.set_real_size(1 << 20);
            gnu.sparse[0].set_offset(100_000);
            gnu.sparse[0].set_length(bytes.len() as u64);
        }
        header.as_mut_bytes()[156] = kind;
        header.set_cksum();
        let mut out = [header.as_bytes(), bytes].concat();
        out.resize(out.len().next_multiple_of(512), 0);
        out
    };
    let mut out = [
        member("./", b'5', "", b""),
        member("x", b'x', "", b"20 SCHILY.xattr.user.a=1\n11 mtime=1\n"),
        member("d/f", b'0', "", b"some bytes"),
        member("d/l", b'1', "d/f", b""),
        member("s", b'2', "d/f", b""),
        member("holes", b'S', "", b"behind a hole"),
        member("L", b'L', "", &[b'n'; 200]),
        member("short", b'6', "", b""),
    ]
    .concat();
    out.resize(out.len() + 1024, 0);
    out
}
