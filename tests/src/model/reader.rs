//! Reading: what the model and a real VE have in common, and the comparison of the two.

use std::fmt::Debug;

use vefs::errno::Errno;
use vefs::ids::{Hash, InodeNo};
use vefs::types::{Dentry, Inode, Kind};

use super::content::{Run, RunKind, normalize};
use super::{Body, Model, acl, xattr::check_xattr_name};

/// A name of a directory as readdir shows it: cookie, name, and where it points to.
pub type Entry = (u64, Vec<u8>, Dentry);

/// What can be asked of a file system. Errors that the semantics do not name (EIO, say) make a comparison fail.
pub trait Reader {
    /// Attributes; `None` when there is no such inode.
    fn inode(&self, ino: InodeNo) -> Result<Option<Inode>, Errno>;
    /// The entry of a name, with the errors that operations on names have.
    fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Dentry, Errno>;
    /// All entries of a directory in the order of their cookies, without `.` and `..`. Works on an orphan (none).
    fn entries(&self, dir: InodeNo) -> Result<Vec<Entry>, Errno>;
    /// Up to `len` bytes from `offset` on, cut at the size.
    fn read(&self, ino: InodeNo, offset: u64, len: u64) -> Result<Vec<u8>, Errno>;
    /// The mapped runs of a regular file, in any fragmentation.
    fn mapped_runs(&self, ino: InodeNo) -> Result<Vec<Run>, Errno>;
    /// `SEEK_DATA` of lseek(2).
    fn seek_data(&self, ino: InodeNo, offset: u64) -> Result<u64, Errno>;
    /// `SEEK_HOLE` of lseek(2).
    fn seek_hole(&self, ino: InodeNo, offset: u64) -> Result<u64, Errno>;
    /// What a symlink points to; EINVAL for other kinds.
    fn target(&self, ino: InodeNo) -> Result<Vec<u8>, Errno>;
    /// The value of an extended attribute; ENODATA where there is none.
    fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>, Errno>;
    /// Names of the extended attributes, in any order.
    fn xattr_names(&self, ino: InodeNo) -> Result<Vec<Vec<u8>>, Errno>;
    /// Bytes and inodes that count towards the quota.
    fn usage(&self) -> Result<(u64, u64), Errno>;
    /// Whether lseek(2) is asked, too. It answers from the extents, which are compared in any case.
    fn is_asked_to_seek(&self) -> bool {
        true
    }
    /// Every inode there is, in any order; `None` where it cannot be told.
    fn all_inodes(&self) -> Result<Option<Vec<InodeNo>>, Errno>;
}

impl Reader for Model {
    fn inode(&self, ino: InodeNo) -> Result<Option<Inode>, Errno> {
        Ok(self.nodes.get(&ino.0).map(|n| n.attr.clone()))
    }

    fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Dentry, Errno> {
        self.lookup_entry(dir, name)
    }

    fn entries(&self, dir: InodeNo) -> Result<Vec<Entry>, Errno> {
        let Body::Dir(names) = &self.node(dir)?.body else { return Err(Errno::ENOTDIR) };
        let mut all: Vec<Entry> = names.iter().map(|(name, d)| (d.cookie, name.clone(), *d)).collect();
        all.sort_by_key(|(cookie, ..)| *cookie);
        Ok(all)
    }

    fn read(&self, ino: InodeNo, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let node = self.file(ino)?;
        Ok(node.content().read(offset, offset.saturating_add(len).min(node.attr.size)))
    }

    fn mapped_runs(&self, ino: InodeNo) -> Result<Vec<Run>, Errno> {
        Ok(self.file(ino)?.content().runs())
    }

    fn seek_data(&self, ino: InodeNo, offset: u64) -> Result<u64, Errno> {
        let node = self.file(ino)?;
        if offset >= node.attr.size {
            return Err(Errno::ENXIO);
        }
        node.content().next_data(offset).ok_or(Errno::ENXIO)
    }

    fn seek_hole(&self, ino: InodeNo, offset: u64) -> Result<u64, Errno> {
        let node = self.file(ino)?;
        if offset >= node.attr.size { Err(Errno::ENXIO) } else { Ok(node.content().next_hole(offset)) }
    }

    fn target(&self, ino: InodeNo) -> Result<Vec<u8>, Errno> {
        match &self.node(ino)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>, Errno> {
        check_xattr_name(name)?;
        self.node(ino)?.xattrs.get(name).cloned().ok_or(Errno::ENODATA)
    }

    fn xattr_names(&self, ino: InodeNo) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(self.node(ino)?.xattrs.keys().cloned().collect())
    }

    fn usage(&self) -> Result<(u64, u64), Errno> {
        Ok((self.used_bytes, self.used_inodes))
    }

    fn all_inodes(&self) -> Result<Option<Vec<InodeNo>>, Errno> {
        Ok(Some(self.nodes.keys().map(|ino| InodeNo(*ino)).collect()))
    }
}

impl Model {
    /// A digest of the whole state, quotas excepted: equal states, equal digests, however the content is fragmented.
    pub fn digest(&self) -> Hash {
        let mut all = Vec::new();
        for (ino, node) in &self.nodes {
            let mut add = |part: &dyn Debug| all.extend_from_slice(format!("{part:?};").as_bytes());
            add(&(ino, &node.attr, &node.xattrs));
            match &node.body {
                Body::File(content) => {
                    for run in content.runs() {
                        add(&run);
                        if run.kind != RunKind::Reserved {
                            add(&Hash::of(&content.read(run.offset, run.offset + run.len)));
                        }
                    }
                }
                other => add(other),
            }
        }
        Hash::of(&all)
    }
}

/// The most bytes that are read at once in a comparison, and of a hole at each of its ends.
const READ_STEP: u64 = 1 << 20;

/// Walks the whole model and says where `real` first differs: usage, inodes, names, targets, attributes, content.
pub fn compare(model: &Model, real: &dyn Reader) -> Result<(), String> {
    same(|| "usage (bytes, inodes)".to_owned(), &model.usage(), &real.usage())?;
    if let Some(mut all) = real.all_inodes().map_err(|e| format!("list of all inodes: {e}"))? {
        all.sort();
        let missing = model.nodes.keys().find(|ino| all.binary_search(&InodeNo(**ino)).is_err());
        let extra = all.iter().find(|ino| !model.nodes.contains_key(&ino.0));
        if missing.is_some() || extra.is_some() {
            return Err(format!("list of all inodes: missing {missing:?}, too much {extra:?}"));
        }
    }
    for &ino in model.nodes.keys() {
        compare_inode(model, real, InodeNo(ino))?;
    }
    // An inode that went answers ENOENT for ever, and one that has not been made yet as well.
    for ino in (InodeNo::FIRST_PRIVATE.0..=model.next_ino).rev().filter(|i| !model.nodes.contains_key(i)).take(64) {
        same(|| format!("inode {ino}, which is gone"), &Ok(None), &real.inode(InodeNo(ino)))?;
    }
    Ok(())
}

/// Compares one inode: attributes, extended attributes, and names, content or target; or that it is gone on both sides.
pub fn compare_inode(model: &Model, real: &dyn Reader, ino: InodeNo) -> Result<(), String> {
    let Some(node) = model.nodes.get(&ino.0) else {
        return same(|| format!("inode {ino}, which is not there"), &Ok(None), &real.inode(ino));
    };
    let what = |part: &str| format!("inode {ino} ({}), {part}", describe(model, ino));
    let attr = real.inode(ino);
    if !matches!(&attr, Ok(Some(attr)) if *attr == node.attr) {
        compare_attr(&what("attributes"), &node.attr, attr)?;
    }
    compare_xattrs(model, real, ino, &what)?;
    match &node.body {
        Body::Dir(_) => compare_names(model, real, ino, &what),
        Body::File(_) => compare_content(model, real, ino, &what),
        Body::Symlink(_) => same(|| what("target"), &model.target(ino), &real.target(ino)),
        Body::Special => Ok(()),
    }
}

/// `what` is asked only for the message of a difference: most comparisons of a run over millions of states find none.
fn same<T: PartialEq + Debug>(what: impl FnOnce() -> String, model: &T, real: &T) -> Result<(), String> {
    if model == real { Ok(()) } else { Err(format!("{}: model {}, real {}", what(), short(model), short(real))) }
}

fn short(value: &dyn Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(2000) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// A path for the message; the first of several, or that there is none.
fn describe(model: &Model, ino: InodeNo) -> String {
    let mut at = ino;
    let mut path = String::new();
    while at != InodeNo::ROOT {
        let named = model.nodes.iter().find_map(|(dir, n)| match &n.body {
            Body::Dir(names) => names.iter().find(|(_, d)| d.ino == at).map(|(name, _)| (InodeNo(*dir), name)),
            _ => None,
        });
        let Some((dir, name)) = named else { return format!("without a name{path}") };
        path = format!("/{}{path}", String::from_utf8_lossy(name));
        at = dir;
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

fn compare_attr(what: &str, model: &Inode, real: Result<Option<Inode>, Errno>) -> Result<(), String> {
    match real {
        Ok(Some(real)) if real == *model => Ok(()),
        Ok(Some(real)) => {
            let (m, r) = (format!("{model:#?}"), format!("{real:#?}"));
            let lines = m.lines().zip(r.lines()).filter(|(a, b)| a != b);
            let parts: Vec<String> = lines.map(|(a, b)| format!("model {} real {}", a.trim(), b.trim())).collect();
            Err(format!("{what} (mode {:o} and {:o}): {}", model.mode, real.mode, parts.join("; ")))
        }
        other => Err(format!("{what}: model has the inode, real says {other:?}")),
    }
}

fn compare_names(model: &Model, real: &dyn Reader, dir: InodeNo, what: &dyn Fn(&str) -> String) -> Result<(), String> {
    let (ours, theirs) = (model.entries(dir), real.entries(dir));
    if let (Ok(ours), Ok(theirs)) = (&ours, &theirs) {
        for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
            same(|| what(&format!("entry {i}")), a, b)?;
        }
        for (_, name, entry) in ours {
            let found = real.lookup(dir, name);
            if Ok(*entry) != found && model.lookup(dir, name) != found {
                return Err(format!(
                    "{}: model {entry:?}, real {found:?}",
                    what(&format!("lookup of {:?}", String::from_utf8_lossy(name)))
                ));
            }
        }
    }
    same(|| what("entries"), &ours, &theirs)?;
    let nobody = b"a name that nobody made".as_slice();
    same(|| what("lookup of a missing name"), &model.lookup(dir, nobody), &real.lookup(dir, nobody))
}

fn compare_xattrs(model: &Model, real: &dyn Reader, ino: InodeNo, what: &dyn Fn(&str) -> String) -> Result<(), String> {
    let sorted = |names: Result<Vec<Vec<u8>>, Errno>| {
        names.map(|mut n| {
            n.sort();
            n
        })
    };
    let names = sorted(model.xattr_names(ino));
    same(|| what("names of extended attributes"), &names, &sorted(real.xattr_names(ino)))?;
    let missing = [acl::ACCESS, b"user.nobody made this"].map(<[u8]>::to_vec);
    for name in names.into_iter().flatten().chain(missing) {
        let label = || what(&format!("extended attribute {}", String::from_utf8_lossy(&name)));
        same(label, &model.xattr(ino, &name), &real.xattr(ino, &name))?;
    }
    Ok(())
}

fn compare_content(
    model: &Model,
    real: &dyn Reader,
    ino: InodeNo,
    what: &dyn Fn(&str) -> String,
) -> Result<(), String> {
    let runs = model.mapped_runs(ino);
    same(|| what("mapped runs"), &runs, &real.mapped_runs(ino).map(normalize))?;
    let size = model.nodes[&ino.0].attr.size;
    let runs: Vec<Run> = runs.into_iter().flatten().collect();
    let mut edges = vec![0, size];
    edges.extend(runs.iter().flat_map(|r| [r.offset, r.offset + r.len]));
    edges.sort_unstable();
    edges.dedup();
    for &edge in edges.iter().filter(|_| real.is_asked_to_seek()) {
        for at in [edge.saturating_sub(1), edge] {
            same(|| what(&format!("SEEK_DATA from {at}")), &model.seek_data(ino, at), &real.seek_data(ino, at))?;
            same(|| what(&format!("SEEK_HOLE from {at}")), &model.seek_hole(ino, at), &real.seek_hole(ino, at))?;
        }
    }
    for pair in edges.windows(2).filter(|p| p[0] < size) {
        compare_bytes(model, real, ino, (pair[0], pair[1].min(size)), what)?;
    }
    same(|| what("read at the end"), &model.read(ino, size, 10), &real.read(ino, size, 10))
}

/// The bytes of a range between two edges: all where there is data, both ends where there are only zeros.
fn compare_bytes(
    model: &Model,
    real: &dyn Reader,
    ino: InodeNo,
    (start, end): (u64, u64),
    what: &dyn Fn(&str) -> String,
) -> Result<(), String> {
    let has_data = model.seek_data(ino, start) == Ok(start);
    let mut at = start;
    while at < end {
        let (a, b) = (model.read(ino, at, READ_STEP.min(end - at)), real.read(ino, at, READ_STEP.min(end - at)));
        if a != b {
            let (Ok(a), Ok(b)) = (&a, &b) else {
                return Err(format!("{}: {}", what(&format!("read at {at}")), short(&b.map(|b| b.len()))));
            };
            let first = a.iter().zip(b).take_while(|(x, y)| x == y).count();
            let part = |v: &[u8]| v[first.min(v.len())..v.len().min(first + 16)].to_vec();
            let place = what(&format!("byte {}", at + first as u64));
            return Err(format!("{place}: model {:?} of {}, real {:?} of {}", part(a), a.len(), part(b), b.len()));
        }
        at = if has_data { at + READ_STEP } else { (at + READ_STEP).max(end.saturating_sub(READ_STEP)) };
    }
    Ok(())
}

/// What generators of operations need to find their way.
impl Model {
    /// How many inodes there are, orphans included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is always the root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The first inode from the `start`-th on (wrapping) that `wanted` takes, among the next `tries`.
    pub fn find(&self, start: usize, tries: usize, wanted: impl Fn(Kind, &Inode) -> bool) -> Option<InodeNo> {
        let start = start % self.nodes.len();
        let around = self.nodes.iter().skip(start).chain(self.nodes.iter().take(start));
        around.take(tries).find(|(_, n)| wanted(n.attr.kind(), &n.attr)).map(|(ino, _)| InodeNo(*ino))
    }

    /// The `n`-th name (wrapping, in byte order) of a directory; `None` without names or for another kind.
    pub fn nth_name(&self, dir: InodeNo, n: usize) -> Option<(&[u8], Dentry)> {
        let Body::Dir(names) = &self.nodes.get(&dir.0)?.body else { return None };
        let n = n.checked_rem(names.len())?;
        names.iter().nth(n).map(|(name, d)| (name.as_slice(), *d))
    }

    /// The inodes without a name that nobody has reaped, in order.
    pub fn orphans(&self) -> Vec<InodeNo> {
        self.nodes.iter().filter(|(_, n)| n.attr.nlink == 0).map(|(ino, _)| InodeNo(*ino)).collect()
    }

    /// The number that the next new inode gets.
    pub fn next_ino(&self) -> InodeNo {
        InodeNo(self.next_ino)
    }
}
