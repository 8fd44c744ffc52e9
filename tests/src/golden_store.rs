//! Golden stores: whole stores as a released program left them when its process was killed, and what they hold, in words.
//! Today's code must open each and read the same. The metadata store is left out, so that all is rebuilt from the journal.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vefs::base::{Attrs, BaseBuilder};
use vefs::change::Settings;
use vefs::ids::{Hash, InodeNo, TxnNo, VeId};
use vefs::object::ObjectStore;
use vefs::op::{FallocMode, Op, Owner, RenameFlags, Reply, SetAttr, XattrMode};
use vefs::storage::Storage;
use vefs::storage::memory::{Content, MemStorage};
use vefs::types::{Inode, Kind, mode};
use vefs::ve::Request;
use vefs::{Store, Ve};

use crate::golden::{self, Entries, hex};
use crate::harness::{World, small_options};

/// Files are kept as their blocks of this size that are not all zero.
const BLOCK: usize = 64;
const VE: VeId = VeId(0x2A);
const ROOT: InodeNo = InodeNo::ROOT;

/// The files of a storage as entries.
pub fn pack(storage: &MemStorage) -> Entries {
    let mut out = Entries::new();
    for (path, content) in storage.files() {
        let bytes = content.to_vec();
        out.insert(format!("{path}#length"), (bytes.len() as u64).to_le_bytes().to_vec());
        let blocks: Vec<&[u8]> = bytes.chunks(BLOCK).collect();
        let mut at = 0;
        while at < blocks.len() {
            let run = blocks[at..].iter().take_while(|b| b.iter().any(|x| *x != 0)).count();
            if run > 0 {
                out.insert(format!("{path}@{:08x}", at * BLOCK), blocks[at..at + run].concat());
            }
            at += run.max(1);
        }
    }
    out
}

/// The storage that [`pack`] packed.
pub fn unpack(entries: &Entries) -> MemStorage {
    let mut files: BTreeMap<Arc<str>, Arc<Content>> = BTreeMap::new();
    for (name, bytes) in entries {
        if let Some(path) = name.strip_suffix("#length") {
            let len = u64::from_le_bytes(bytes.as_slice().try_into().expect("8 bytes"));
            files.insert(path.into(), Arc::new(Content::zeros(len)));
        }
    }
    for (name, bytes) in entries {
        if let Some((path, at)) = name.split_once('@') {
            let at = u64::from_str_radix(at, 16).expect("an offset");
            let file = files.get_mut(path).expect("a file with a length");
            Arc::make_mut(file).write_at(bytes, at);
        }
    }
    MemStorage::from_files(files, [])
}

/// Opens golden store `number` and compares what it holds. With regeneration a store that is not there yet is made.
pub fn check(number: u32) {
    let (file, dump) = (format!("store-{number}.hex"), format!("store-{number}.txt"));
    if golden::regenerating() && !golden::path(&file).exists() {
        let storage = make();
        golden::write(&file, &pack(&storage));
        std::fs::write(golden::path(&dump), describe_storage(&storage)).expect("writing the description");
    }
    let storage = unpack(&golden::read(&file));
    let want = std::fs::read_to_string(golden::path(&dump)).expect("the description");
    let got = describe_storage(&storage);
    for (n, (want, got)) in want.lines().zip(got.lines()).enumerate() {
        assert_eq!(got, want, "golden store {number}, line {}: stores in the field are read differently", n + 1);
    }
    assert_eq!(got.len(), want.len(), "golden store {number}");
}

fn describe_storage(storage: &MemStorage) -> String {
    let mut world = World::attach(Arc::new(storage.snapshot()), 1, small_options());
    let store = world.open().expect("opening the golden store");
    describe(&store)
}

fn describe(store: &Store) -> String {
    let mut out = String::new();
    for id in store.list().expect("listing") {
        let ve = store.ve(id).expect("opening the VE");
        // What was answered and not sealed becomes the last transaction: its time is that of the opening.
        let p = ve.position();
        let _ = writeln!(out, "VE {id} lineage {} base {}", p.lineage, ve.identity().base);
        for v in ve.versions().expect("versions").iter().take(3) {
            let at = v.position;
            let _ = writeln!(out, "version {} at {}.{:09} chain {}", at.txn, v.time.secs, v.time.nanos, at.chain);
        }
        let s = ve.settings();
        let _ = writeln!(out, "settings {} {} {}", s.quota_bytes, s.quota_inodes, s.history_bytes);
        let _ = writeln!(out, "usage {:?} orphans {:?}", ve.usage(), ve.orphans().expect("orphans"));
        for (name, h) in ve.holds().expect("holds") {
            let _ = writeln!(out, "hold {name} {} {} {} {}", h.txn, h.onwards, h.owner, h.since.secs);
        }
        let _ = writeln!(out, "answered {:?} {:?}", ve.answered(77), ve.answered(78));
        tree(&ve, ROOT, "", &mut out);
        let past = ve.version(TxnNo(2)).expect("version 2");
        for (_, e) in past.entries(ROOT, 0, usize::MAX).expect("entries") {
            let _ = writeln!(out, "at 2: {} {}", hex(&e.name), e.ino);
        }
    }
    out
}

fn tree(ve: &Ve, dir: InodeNo, path: &str, out: &mut String) {
    line(ve, dir, path, out);
    for (cookie, e) in ve.entries(dir, 0, usize::MAX).expect("entries") {
        let path = format!("{path}/{}", String::from_utf8_lossy(&e.name));
        let _ = writeln!(out, "{path} cookie {cookie}");
        match e.kind {
            Kind::Directory => tree(ve, e.ino, &path, out),
            _ => line(ve, e.ino, &path, out),
        }
    }
}

fn line(ve: &Ve, ino: InodeNo, path: &str, out: &mut String) {
    let i: Inode = ve.inode(ino).expect("inode");
    let _ = writeln!(out, "{path} inode {ino} mode {:o} owner {}:{} nlink {}", i.mode, i.uid, i.gid, i.nlink);
    let _ = writeln!(out, "{path} rdev {} size {} mapped {} flags {}", i.rdev, i.size, i.mapped, i.flags);
    let _ = writeln!(out, "{path} parent {} next cookie {}", i.parent, i.next_cookie);
    let times = [i.atime, i.mtime, i.ctime, i.btime].map(|t| format!("{}.{:09}", t.secs, t.nanos));
    let _ = writeln!(out, "{path} times {}", times.join(" "));
    for name in ve.xattr_names(ino).expect("xattr names") {
        let value = ve.xattr(ino, &name).expect("xattr");
        let _ = writeln!(out, "{path} {} = {}", String::from_utf8_lossy(&name), hex(&value));
    }
    match i.kind() {
        Kind::Symlink => {
            let target = ve.readlink(ino).expect("target");
            let _ = writeln!(out, "{path} -> {}", String::from_utf8_lossy(&target));
        }
        Kind::Regular => {
            let bytes = ve.read(ino, 0, i.size as usize).expect("content");
            let _ = writeln!(out, "{path} content {}", Hash::of(&bytes));
        }
        _ => {}
    }
}

/// Makes the store of format 1: one VE over a template, with something of everything, killed in the middle of a transaction.
fn make() -> MemStorage {
    let storage = Arc::new(MemStorage::new());
    let mut world = World::create(storage.clone(), 1, small_options()).expect("creating");
    let base = template(storage.clone());
    let store = world.open().expect("opening");
    let settings = Settings { quota_bytes: 1 << 30, quota_inodes: 1000, history_bytes: 1 << 30 };
    let ve = store.create_ve(VE, base, settings).expect("creating the VE");
    world.clock.advance(Duration::from_millis(1500));
    first_day(&ve);
    ve.commit().expect("commit");
    world.clock.advance(Duration::from_millis(1500));
    second_day(&ve);
    ve.commit().expect("commit");
    drop((ve, store));
    // Killed and started again: another segment, another incarnation.
    world.lose_unpersisted();
    let store = world.open().expect("opening again");
    let ve = store.ve(VE).expect("the VE");
    ve.hold("nightly", TxnNo(2), true, "backup").expect("hold");
    world.clock.advance(Duration::from_millis(1500));
    last_day(&ve);
    storage.snapshot()
}

fn template(storage: Arc<dyn Storage>) -> Hash {
    let mut b = BaseBuilder::new(ObjectStore::new(storage));
    let attrs = Attrs { mode: mode::IFREG | 0o644, ..Attrs::default() };
    let dir = Attrs { mode: mode::IFDIR | 0o755, ..Attrs::default() };
    let link = Attrs { mode: mode::IFLNK | 0o777, ..Attrs::default() };
    let root = BaseBuilder::ROOT;
    let etc = b.add_dir(root, b"etc", &dir).expect("etc");
    let content = b.add_content(&mut &b"template content\n"[..], false, false).expect("content");
    b.add_file(etc, b"hosts", &attrs, content).expect("hosts");
    let content = b.add_content(&mut &b"another\n"[..], false, false).expect("content");
    b.add_file(etc, b"motd", &attrs, content).expect("motd");
    b.add_symlink(root, b"link", &link, b"etc/hosts").expect("link");
    b.finish().expect("template")
}

fn run(ve: &Ve, op: Op) -> InodeNo {
    match ve.execute(&op, Request::default()).expect("operation") {
        Reply::Inode(ino, _) => ino,
        _ => ROOT,
    }
}

fn create(ve: &Ve, parent: InodeNo, name: &str, mode: u32) -> InodeNo {
    let owner = Owner { uid: 1000, gid: 100, umask: 0o022 };
    run(ve, Op::Create { parent, name: name.into(), mode, rdev: 0x103, owner })
}

fn write(ve: &Ve, ino: InodeNo, offset: u64, data: Vec<u8>) {
    run(ve, Op::Write { ino, offset, data: Bytes::from(data), kill_priv: false });
}

fn first_day(ve: &Ve) {
    let small = create(ve, ROOT, "small", mode::IFREG | 0o644);
    write(ve, small, 0, b"hello, world\n".to_vec());
    let bulk = create(ve, ROOT, "bulk", mode::IFREG | 0o755);
    let mut data = vec![0; 100_000];
    data.iter_mut().step_by(997).for_each(|b| *b = 0x5A);
    write(ve, bulk, 4096, data);
    let dir = create(ve, ROOT, "dir", mode::IFDIR | 0o2755);
    create(ve, dir, "fifo", mode::IFIFO | 0o600);
    create(ve, dir, "null", mode::IFCHR | 0o666);
    run(ve, Op::Link { ino: small, parent: dir, name: b"hard".into() });
    run(ve, Op::Symlink { parent: dir, name: b"soft".into(), target: b"../small".into(), owner: Owner::default() });
    let value = b"a value".to_vec();
    run(ve, Op::Setxattr { ino: small, name: b"user.note".into(), value, mode: XattrMode::Set });
    let (hosts, _) = ve.lookup(ve.lookup(ROOT, b"etc").expect("etc").0.ino, b"hosts").expect("hosts");
    write(ve, hosts.ino, 9, b"CONTENT".to_vec());
}

fn second_day(ve: &Ve) {
    let small = ve.lookup(ROOT, b"small").expect("small").0.ino;
    let bulk = ve.lookup(ROOT, b"bulk").expect("bulk").0.ino;
    let dir = ve.lookup(ROOT, b"dir").expect("dir").0.ino;
    let etc = ve.lookup(ROOT, b"etc").expect("etc").0.ino;
    run(ve, Op::Fallocate { ino: bulk, mode: FallocMode::PunchHole, offset: 20_000, len: 10_000 });
    run(ve, Op::Fallocate { ino: bulk, mode: FallocMode::Allocate { keep_size: true }, offset: 200_000, len: 5000 });
    run(ve, Op::CopyRange { src: bulk, src_offset: 5000, dst: small, dst_offset: 100, len: 300 });
    run(ve, Op::Setattr { ino: bulk, set: SetAttr { size: Some(90_001), ..SetAttr::default() } });
    let flags = RenameFlags::default();
    let (name, new_name) = (b"null".to_vec(), b"zero".to_vec());
    run(ve, Op::Rename { parent: dir, name, new_parent: ROOT, new_name, flags });
    run(ve, Op::Unlink { parent: etc, name: b"motd".into() });
    let gone = create(ve, ROOT, "gone", mode::IFREG | 0o600);
    write(ve, gone, 0, b"an orphan".to_vec());
    run(ve, Op::Unlink { parent: ROOT, name: b"gone".into() });
}

fn last_day(ve: &Ve) {
    let small = ve.lookup(ROOT, b"small").expect("small").0.ino;
    let set = SetAttr { mode: Some(0o640), uid: Some(5), ..SetAttr::default() };
    ve.execute(&Op::Setattr { ino: small, set }, Request::numbered(77)).expect("chmod");
    write(ve, small, 400, b"not sealed".to_vec());
}
