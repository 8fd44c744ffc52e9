//! Versions compared, against both trees read whole: what a comparison tells is true, and it tells everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aspfs_tests::harness::{World, small_options};
use aspfs_tests::model::{Model, sample_tree};
use aspfs_tests::opgen::{Rng, next_op};
use aspfs_tests::run::tree;
use vefs::change::Settings;
use vefs::diff::{Change, Differs, Event, Limits, Row, compare};
use vefs::ids::{InodeNo, TxnNo, VeId};
use vefs::storage::memory::MemStorage;
use vefs::types::{Inode, Kind, mode};
use vefs::ve::{Request, Retention, Snapshot};

/// An inode, read whole.
#[derive(PartialEq, Eq)]
struct Node {
    inode: Inode,
    content: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A version, read whole.
#[derive(Default)]
struct Whole {
    paths: BTreeMap<Vec<u8>, InodeNo>,
    nodes: BTreeMap<InodeNo, Node>,
}

/// Random operations make files of terabytes: only pages in which something was written are read, and those of zeros are not kept.
const PAGE: u64 = 4096;

fn node(version: &Snapshot, ino: InodeNo) -> Node {
    let inode = version.inode(ino).unwrap();
    let mut content = Vec::new();
    match inode.kind() {
        Kind::Regular => {
            let runs = vefs::state::view::extents(version.view(), ino, &inode, 0, inode.size).unwrap();
            let pages: BTreeSet<u64> =
                runs.iter().flat_map(|(at, run)| at / PAGE..(at + run.len).div_ceil(PAGE)).collect();
            for page in pages {
                let bytes = version.read(ino, page * PAGE, PAGE as usize).unwrap();
                if bytes.iter().any(|byte| *byte != 0) {
                    content.extend(page.to_be_bytes());
                    content.extend(bytes);
                }
            }
        }
        Kind::Symlink => content = version.readlink(ino).unwrap(),
        _ => {}
    }
    let names = version.xattr_names(ino).unwrap().into_iter();
    let xattrs = names.map(|name| (name.clone(), version.xattr(ino, &name).unwrap())).collect();
    Node { inode, content, xattrs }
}

fn whole(version: &Snapshot) -> Whole {
    let mut out = Whole::default();
    let mut todo = vec![(b"/".to_vec(), InodeNo::ROOT)];
    while let Some((path, ino)) = todo.pop() {
        let node = node(version, ino);
        if node.inode.is_dir() {
            for (_, entry) in version.entries(ino, 0, usize::MAX).unwrap() {
                let slash: &[u8] = if path == b"/" { b"" } else { b"/" };
                todo.push(([&path[..], slash, &entry.name].concat(), entry.ino));
            }
        }
        out.nodes.insert(ino, node);
        out.paths.insert(path, ino);
    }
    out
}

/// What differs, but for times.
fn differs(a: &Node, b: &Node) -> Differs {
    let (x, y) = (&a.inode, &b.inode);
    if x.kind() != y.kind() {
        return Differs::TYPE;
    }
    let size = x.is_file() && x.size != y.size;
    let all = [
        (Differs::CONTENT, size || a.content != b.content),
        (Differs::MODE, (x.mode ^ y.mode) & mode::PERM != 0),
        (Differs::OWNER, (x.uid, x.gid) != (y.uid, y.gid)),
        (Differs::XATTR, a.xattrs != b.xattrs),
        (Differs::DEVICE, x.rdev != y.rdev),
    ];
    Differs(all.into_iter().filter(|(_, differs)| *differs).map(|(bit, _)| bit.0).sum())
}

fn rows_of(from: &Snapshot, to: &Snapshot, limits: &Limits) -> Vec<Row> {
    let mut rows = Vec::new();
    let summary = compare::<vefs::Error>(from, to, limits, &mut |event| {
        if let Event::Row(row) = event {
            rows.push(*row);
        }
        Ok(())
    });
    let (summary, count) =
        (summary.unwrap(), |is: fn(&Change) -> bool| rows.iter().filter(|r| is(&r.change)).count() as u64);
    assert_eq!(summary.added, count(|c| matches!(c, Change::Added { .. })));
    assert_eq!(summary.removed, count(|c| matches!(c, Change::Removed { .. })));
    assert_eq!(summary.changed, count(|c| matches!(c, Change::Changed)));
    assert_eq!(summary.renamed, count(|c| matches!(c, Change::Renamed { .. })));
    rows
}

/// Whether a path lies below one of these.
fn is_below(path: &[u8], dirs: &BTreeSet<&[u8]>) -> bool {
    (1..path.len()).any(|at| path[at] == b'/' && dirs.contains(&path[..at]))
}

struct Check<'a> {
    from: &'a Whole,
    to: &'a Whole,
    rows: BTreeMap<&'a [u8], &'a Row>,
    moved_from: BTreeSet<&'a [u8]>,
    moved_to: BTreeSet<&'a [u8]>,
}

impl<'a> Check<'a> {
    fn new(from: &'a Whole, to: &'a Whole, rows: &'a [Row]) -> Check<'a> {
        assert!(rows.windows(2).all(|two| two[0].path < two[1].path), "in byte order, each once");
        let old = |row: &'a Row| match &row.change {
            Change::Renamed { from, .. } => Some((&from[..], &row.path[..])),
            _ => None,
        };
        let (moved_from, moved_to) = rows.iter().filter_map(old).unzip();
        Check { from, to, rows: rows.iter().map(|row| (&row.path[..], row)).collect(), moved_from, moved_to }
    }

    fn left(&self, path: &[u8]) -> bool {
        self.moved_from.contains(path) || is_below(path, &self.moved_from)
    }

    /// Every row is true.
    fn truth(&self) {
        for (path, row) in &self.rows {
            let (old, new) = (self.from.paths.get(*path), self.to.paths.get(*path));
            match &row.change {
                Change::Added { linked } => {
                    assert!(old.is_none() || self.left(path));
                    assert_eq!(*linked, self.from.nodes.contains_key(new.unwrap()));
                }
                Change::Removed { linked } => {
                    assert!(new.is_none());
                    assert_eq!(*linked, self.to.nodes.contains_key(old.unwrap()));
                }
                Change::Changed => assert!(!row.differs.is_empty() && new.is_some()),
                Change::Renamed { from, .. } => {
                    assert!(from != path && self.from.paths[from] == *new.unwrap());
                    assert!(self.to.paths.get(from) != new && (old != new || self.left(path)));
                }
            }
            let (Some((a, before)), Some((b, after))) = (&row.before, &row.after) else { continue };
            let (a, b) = (&self.from.nodes[a], &self.to.nodes[b]);
            assert!(a.inode == *before && b.inode == *after);
            let told = Differs(row.differs.0 & !Differs::MTIME.0);
            assert_eq!(told, differs(a, b), "{}", String::from_utf8_lossy(path));
            assert!(!row.differs.has(Differs::MTIME) || before.mtime != after.mtime);
        }
    }

    /// Everything is told.
    fn everything(&self) {
        for (path, ino) in &self.to.paths {
            let (row, shown) = (self.rows.get(&path[..]), String::from_utf8_lossy(path));
            let node = &self.to.nodes[ino];
            match (self.from.nodes.get(ino), self.from.paths.get(path)) {
                // Of an inode that was there, what changed is told under each of its names.
                (Some(before), _) if !differs(before, node).is_empty() => assert!(row.is_some(), "{shown}"),
                (Some(_), Some(old)) if old == ino => {}
                (Some(_), _) => {
                    assert!(row.is_some() || is_below(path, &self.moved_to) || self.unlike(path), "{shown}")
                }
                (None, None) => assert!(matches!(row.unwrap().change, Change::Added { .. }), "{shown}"),
                (None, Some(old)) => {
                    let alike = differs(&self.from.nodes[old], node).is_empty() && !self.left(path);
                    assert!(row.is_some() || alike, "{shown}");
                }
            }
        }
        for (path, ino) in self.from.paths.iter().filter(|(path, _)| !self.to.paths.contains_key(*path)) {
            let removed = self.rows.get(&path[..]).is_some_and(|row| matches!(row.change, Change::Removed { .. }));
            let shown = String::from_utf8_lossy(path);
            assert!(removed || (self.left(path) && self.to.nodes.contains_key(ino)), "{shown}");
        }
    }

    /// Whether another inode was here that is like the one that is here now: a hard link was made in the place of an equal file.
    fn unlike(&self, path: &[u8]) -> bool {
        let (Some(old), Some(new)) = (self.from.paths.get(path), self.to.paths.get(path)) else { return false };
        differs(&self.from.nodes[old], &self.to.nodes[new]).is_empty()
    }
}

fn check(from: &Snapshot, to: &Snapshot) {
    let rows = rows_of(from, to, &Limits::default());
    assert!(
        rows == rows_of(from, to, &Limits { touched: 0, ..Limits::default() }),
        "with and without the change index"
    );
    let (old, new) = (whole(from), whole(to));
    let check = Check::new(&old, &new, &rows);
    check.truth();
    check.everything();
}

fn run(seed: u64) {
    let mut world = World::create(Arc::new(MemStorage::new()), seed, small_options()).unwrap();
    let store = world.open().unwrap();
    let quota = (8 << 20, 400);
    let base = tree::build(store.objects(), &sample_tree()).unwrap();
    let settings = Settings { quota_bytes: quota.0, quota_inodes: quota.1, ..Settings::default() };
    let ve = store.create_ve(VeId(1), base, settings).unwrap();
    let mut model = Model::with_tree(quota.0, quota.1, &sample_tree());
    let mut rng = Rng::new(seed);
    let mut versions = vec![TxnNo(0)];
    for _ in 0..8 {
        for _ in 0..1 + rng.below(80) {
            world.clock.advance(Duration::from_millis(7));
            let op = next_op(&mut rng, &model);
            let now = world.now();
            drop((model.apply(&op, now), ve.execute(&op, Request::default())));
            if rng.below(40) == 0 {
                let ino = InodeNo(InodeNo::FIRST_PRIVATE.0 + rng.below(200));
                ve.seal_file(ino).unwrap();
                ve.coalesce(ino).unwrap();
            }
        }
        store.tick().unwrap();
        versions.push(ve.position().txn);
    }
    // Two are held, the others may go.
    let (a, b) = (rng.pick(&versions), rng.pick(&versions));
    let (from, to) = (ve.version(a).unwrap(), ve.version(b).unwrap());
    check(&from, &to);
    ve.collect(&Retention { steps: vec![] }).unwrap();
    check(&from, &to);
    check(&from, &ve.version(ve.position().txn).unwrap());
}

#[test]
fn versions_are_compared_as_both_trees_read_whole() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("ASPFS_SEED") {
        return run(seed);
    }
    let nightly = if std::env::var_os("ASPFS_NIGHTLY").is_some() { 20 } else { 1 };
    for seed in 0..number("ASPFS_SEEDS").unwrap_or(60 * nightly) {
        eprintln!("ASPFS_SEED={seed}");
        run(seed);
    }
}
