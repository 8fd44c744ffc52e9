use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::Ve;
use crate::clock::ManualClock;
use crate::ids::TxnNo;
use crate::op::{Op, Owner, RenameFlags, Reply, SetAttr, XattrMode};
use crate::store::Store;
use crate::store::bed::in_memory;
use crate::types::mode;
use crate::ve::Request;

/// A VE over an empty tree, spoken to in paths.
struct Bed {
    store: Store,
    ve: Arc<Ve>,
    clock: Arc<ManualClock>,
}

impl Bed {
    fn new() -> Bed {
        let (store, ve, clock) = in_memory();
        Bed { store, ve, clock }
    }

    fn op(&self, op: Op) -> Reply {
        self.clock.advance(Duration::from_millis(10));
        self.ve.execute(&op, Request::default()).unwrap()
    }

    fn ino(&self, path: &str) -> InodeNo {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(InodeNo::ROOT, |dir, name| self.ve.lookup(dir, name.as_bytes()).unwrap().0.ino)
    }

    /// The directory and the name of a path.
    fn place(&self, path: &str) -> (InodeNo, Vec<u8>) {
        let (dir, name) = path.rsplit_once('/').unwrap();
        (self.ino(dir), name.into())
    }

    fn make(&self, path: &str, mode: u32) {
        let (parent, name) = self.place(path);
        self.op(Op::Create { parent, name, mode, rdev: 0, owner: Owner::default() });
    }

    fn dir(&self, path: &str) {
        self.make(path, mode::IFDIR | 0o755);
    }

    fn write(&self, path: &str, offset: u64, text: &str) {
        let op = Op::Write { ino: self.ino(path), offset, data: Bytes::from(text.to_owned()), kill_priv: false };
        self.op(op);
    }

    fn file(&self, path: &str, text: &str) {
        self.make(path, mode::IFREG | 0o644);
        self.write(path, 0, text);
    }

    fn remove(&self, path: &str) {
        let (parent, name) = self.place(path);
        self.op(Op::Unlink { parent, name });
    }

    fn link(&self, path: &str, to: &str) {
        let (ino, (parent, name)) = (self.ino(path), self.place(to));
        self.op(Op::Link { ino, parent, name });
    }

    fn rename(&self, from: &str, to: &str) {
        let ((parent, name), (new_parent, new_name)) = (self.place(from), self.place(to));
        self.op(Op::Rename { parent, name, new_parent, new_name, flags: RenameFlags::default() });
    }

    fn attr(&self, path: &str, set: SetAttr) {
        self.op(Op::Setattr { ino: self.ino(path), set });
    }

    /// The present state as a version.
    fn now(&self) -> TxnNo {
        self.ve.seal().unwrap();
        self.ve.position().txn
    }

    fn diff_with(&self, from: TxnNo, to: TxnNo, limits: &Limits) -> (Vec<String>, Summary) {
        let (from, to) = (self.ve.version(from).unwrap(), self.ve.version(to).unwrap());
        let mut rows = Vec::new();
        let summary = compare::<Error>(&from, &to, limits, &mut |event| {
            if let Event::Row(row) = event {
                rows.push(show(&row));
            }
            Ok(())
        });
        (rows, summary.unwrap())
    }

    /// The rows, with and without the change index.
    fn diff(&self, from: TxnNo, to: TxnNo) -> Vec<String> {
        let (rows, _) = self.diff_with(from, to, &Limits::default());
        assert_eq!(self.diff_with(from, to, &Limits { touched: 0, ..Limits::default() }).0, rows);
        rows
    }

    /// The rows since a version.
    fn since(&self, from: TxnNo) -> Vec<String> {
        self.diff(from, self.now())
    }
}

fn show(row: &Row) -> String {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let path = text(&row.path);
    let linked = |linked: bool| if linked { " linked" } else { "" };
    let differs = if row.differs.is_empty() { String::new() } else { format!(" {}", row.differs) };
    match &row.change {
        Change::Added { linked: l } => format!("A {path}{}", linked(*l)),
        Change::Removed { linked: l } => format!("D {path}{}", linked(*l)),
        Change::Changed => format!("M {path}{differs}"),
        Change::Renamed { from, replaced } => {
            format!("R {} -> {path}{differs}{}", text(from), if *replaced { " replaced" } else { "" })
        }
    }
}

#[test]
fn every_kind_of_change_is_told_and_nothing_else() {
    let bed = Bed::new();
    bed.dir("/d");
    for name in ["/d/content", "/d/grown", "/d/mode", "/d/owner", "/d/xattr", "/d/touched", "/d/gone", "/d/same"] {
        bed.file(name, "before");
    }
    let first = bed.now();
    assert!(bed.diff(first, first).is_empty());
    bed.write("/d/content", 0, "behind");
    bed.write("/d/grown", 6, " and after");
    bed.attr("/d/mode", SetAttr { mode: Some(0o600), ..SetAttr::default() });
    bed.attr("/d/owner", SetAttr { uid: Some(5), gid: Some(6), ..SetAttr::default() });
    let (ino, name, value) = (bed.ino("/d/xattr"), b"user.a".to_vec(), b"x".to_vec());
    bed.op(Op::Setxattr { ino, name, value, mode: XattrMode::Set });
    let mtime = Some(crate::clock::Timestamp { secs: 1, nanos: 0 });
    bed.attr("/d/touched", SetAttr { mtime, ..SetAttr::default() });
    bed.remove("/d/gone");
    bed.file("/d/new", "new");
    let told = [
        "M /d/content content",
        "D /d/gone",
        "M /d/grown content",
        "M /d/mode mode",
        "A /d/new",
        "M /d/owner owner",
        "M /d/touched mtime",
        "M /d/xattr xattr",
    ];
    assert_eq!(bed.since(first), told);
    let back = told.iter().map(|row| match row.split_once(' ') {
        Some(("A", path)) => format!("D {path}"),
        Some(("D", path)) => format!("A {path}"),
        _ => (*row).to_owned(),
    });
    assert_eq!(bed.diff(bed.now(), first), back.collect::<Vec<_>>());
}

#[test]
fn a_directory_that_was_renamed_is_one_row() {
    let bed = Bed::new();
    bed.dir("/old");
    bed.dir("/old/deep");
    for n in 0..300 {
        bed.file(&format!("/old/f{n}"), "x");
        bed.file(&format!("/old/deep/g{n}"), "x");
    }
    let first = bed.now();
    bed.rename("/old", "/new");
    assert_eq!(bed.since(first), ["R /old -> /new"]);
    // What changes below it, changes under its new name; what goes had the old one.
    bed.write("/new/deep/g7", 0, "y");
    bed.remove("/new/f3");
    bed.file("/new/deep/more", "");
    bed.rename("/new/f4", "/f4");
    let told = ["R /old/f4 -> /f4", "R /old -> /new", "M /new/deep/g7 content", "A /new/deep/more", "D /old/f3"];
    assert_eq!(bed.since(first), told);
    // Another one is made in its place.
    bed.dir("/old");
    bed.file("/old/f3", "z");
    assert_eq!(bed.since(first), [&told[..4], &["A /old", "M /old/f3 content"]].concat());
}

/// Nothing is renamed to what it was called before, whatever became of the directories.
#[test]
fn what_keeps_its_path_while_its_directory_moves_is_not_renamed() {
    let bed = Bed::new();
    bed.dir("/a");
    bed.dir("/a/d");
    bed.file("/a/f", "x");
    bed.file("/a/d/g", "x");
    bed.file("/a/stays", "x");
    let first = bed.now();
    bed.rename("/a", "/b");
    bed.dir("/a");
    bed.rename("/b/f", "/a/f");
    bed.rename("/b/d", "/a/d");
    bed.write("/a/d/g", 0, "y");
    assert_eq!(bed.since(first), ["A /a", "M /a/d/g content", "R /a -> /b"]);
}

#[test]
fn names_of_one_inode_are_paired_or_told_apart() {
    let bed = Bed::new();
    for name in ["/a", "/b", "/log", "/conf", "/conf.new", "/two"] {
        bed.file(name, name);
    }
    bed.link("/two", "/too");
    let first = bed.now();
    bed.link("/a", "/a2");
    bed.remove("/too");
    bed.rename("/log", "/log.1");
    bed.file("/log", "fresh");
    bed.rename("/conf.new", "/conf");
    bed.remove("/b");
    bed.file("/b", "/b");
    bed.attr("/a", SetAttr { mode: Some(0o600), ..SetAttr::default() });
    let told = [
        "M /a mode",
        "A /a2 linked",
        "M /b mtime",
        "R /conf.new -> /conf replaced",
        "A /log",
        "R /log -> /log.1",
        "D /too linked",
    ];
    assert_eq!(bed.since(first), told);
}

#[test]
fn paths_come_in_byte_order_and_kinds_change() {
    let bed = Bed::new();
    let first = bed.now();
    for dir in ["/a", "/a-", "/a-/a", "/a-b", "/a0"] {
        bed.dir(dir);
    }
    for file in ["/a/x", "/a-/y", "/a-/a/z", "/a-b/x", "/a.txt", "/a0/x", "/b"] {
        bed.file(file, "");
    }
    let paths = ["/a", "/a-", "/a-/a", "/a-/a/z", "/a-/y", "/a-b", "/a-b/x", "/a.txt", "/a/x", "/a0", "/a0/x", "/b"];
    assert_eq!(bed.since(first), paths.map(|path| format!("A {path}")));
    let second = bed.now();
    bed.remove("/a0/x");
    let (parent, name) = bed.place("/a0");
    bed.op(Op::Rmdir { parent, name });
    bed.file("/a0", "a file");
    bed.remove("/b");
    bed.dir("/b");
    bed.file("/b/in", "");
    assert_eq!(bed.since(second), ["M /a0 type", "D /a0/x", "M /b type", "A /b/in"]);
}

#[test]
fn housekeeping_and_bytes_written_again_are_no_content() {
    let bed = Bed::new();
    let body = "0123456789abcdef".repeat(8 << 10);
    bed.file("/large", &body);
    bed.file("/pieces", "");
    for n in 0..64 {
        bed.write("/pieces", n * 7, "seven..");
        bed.now();
    }
    bed.file("/rewritten", &body);
    let first = bed.now();
    bed.clock.advance(Duration::from_secs(60));
    for path in ["/large", "/rewritten"] {
        assert!(bed.ve.seal_file(bed.ino(path)).unwrap());
    }
    assert!(bed.store.housekeep(Duration::from_secs(10)).unwrap() > 0, "the pieces are one");
    let sealed = bed.now();
    assert!(bed.diff(first, sealed).is_empty());
    bed.write("/rewritten", 0, &body);
    assert_eq!(bed.since(first), ["M /rewritten mtime"]);
    bed.write("/rewritten", 100_000, "!");
    assert_eq!(bed.since(first), ["M /rewritten content"]);
    bed.attr("/large", SetAttr { size: Some(10), ..SetAttr::default() });
    bed.attr("/large", SetAttr { size: Some(body.len() as u64), ..SetAttr::default() });
    assert_eq!(bed.since(first), ["M /large content", "M /rewritten content"]);
}

#[test]
fn what_moved_beyond_the_limit_is_said_to_be_so() {
    let bed = Bed::new();
    bed.dir("/a");
    bed.dir("/a/d");
    bed.dir("/b");
    for n in 0..4 {
        bed.file(&format!("/a/f{n}"), "x");
    }
    let first = bed.now();
    for name in ["d", "f0", "f1", "f2", "f3"] {
        bed.rename(&format!("/a/{name}"), &format!("/b/{name}"));
    }
    let few = Limits { moved: 6, ..Limits::default() };
    let (rows, summary) = bed.diff_with(first, bed.now(), &few);
    assert!(summary.forgotten);
    assert_eq!((summary.added, summary.removed, summary.renamed), (4, 4, 1));
    assert_eq!(rows.iter().filter(|row| row.ends_with(" linked")).count(), 8, "{rows:?}");
    let (rows, summary) = bed.diff_with(first, bed.now(), &Limits::default());
    assert!(!summary.forgotten && rows.len() == 5 && summary.renamed == 5, "{rows:?}");
}

/// Directories deep enough that those above let go what they had at hand, with enough entries that it matters.
#[test]
fn deep_trees_are_walked_whole() {
    let bed = Bed::new();
    let first = bed.now();
    let mut dir = String::new();
    let mut expected = Vec::new();
    for _ in 0..2 * walk::BUFFERED {
        dir += "/m";
        bed.dir(&dir);
        expected.push(format!("A {dir}"));
        for n in 0..20 {
            let path = format!("{dir}/{}{n}", if n % 2 == 0 { "a" } else { "z" });
            bed.file(&path, "");
            expected.push(format!("A {path}"));
        }
    }
    expected.sort();
    assert_eq!(bed.since(first), expected);
}
