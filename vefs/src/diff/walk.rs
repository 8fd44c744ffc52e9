//! The walk over both trees, in byte order of paths.
//!
//! A path may be a directory in both versions and yet not the same one: then each of the two is compared with where it is in the other version,
//! so that a directory that was renamed says nothing of what it holds. Two directories of which neither lives on are taken for one that was made
//! again.
//!
//! `/a-b` sorts before `/a/b`: a directory's entries wait until the names that sort before them were told.

use super::compare::Comparer;
use super::moved::Moved;
use super::names::Names;
use super::{Change, Event, Hear, PATH_MAX, Row, Sides, Summary, TELL};
use crate::error::{Error, Result};
use crate::ids::InodeNo;
use crate::state::view;
use crate::types::{Dentry, Kind};

/// Directories of a path that keep their entries at hand.
pub(super) const BUFFERED: usize = 32;

/// What a walk is for.
pub(super) enum Pass<'a> {
    /// Names of what may have moved are collected.
    Collect(&'a mut Moved),
    /// Rows are told.
    Tell(&'a Moved),
}

/// A directory of one version, and where it is in the other one.
#[derive(Clone, Copy)]
struct Dir {
    ino: InodeNo,
    there: Option<InodeNo>,
}

/// What is below one path.
#[derive(Clone, Copy)]
enum Place {
    /// Directories that are compared with each other.
    Pair(InodeNo, InodeNo),
    /// The older version's directory and the newer one's, each compared with where it is in the other version.
    Apart(Option<Dir>, Option<Dir>),
}

/// A directory that is being walked.
struct Frame<'a> {
    place: Place,
    /// Entries of the older version's; the newer one's in `to`. Of a pair with the same entries only these are read.
    from: Option<Names<'a>>,
    to: Option<Names<'a>>,
    /// Length of the path, with a slash.
    prefix: usize,
    /// Directories whose entries come later, the last one first: each name begins with the one before.
    waiting: Vec<(Box<[u8]>, Place)>,
}

/// The entry of one version at a path.
#[derive(Clone, Copy)]
struct Side {
    entry: Dentry,
    /// The other version has it in the same directory under the same name.
    kept: bool,
    /// The other version has the inode, under whatever name.
    lives: bool,
}

/// A walk.
pub(super) struct Walk<'a> {
    sides: &'a Sides<'a>,
    pass: Pass<'a>,
    comparer: Comparer<'a>,
    path: Vec<u8>,
    stack: Vec<Frame<'a>>,
    done: Summary,
}

impl<'a> Walk<'a> {
    pub fn new(sides: &'a Sides<'a>, pass: Pass<'a>) -> Walk<'a> {
        let comparer = Comparer::new(sides);
        Walk { sides, pass, comparer, path: b"/".to_vec(), stack: Vec::new(), done: Summary::default() }
    }

    /// Walks both trees from their roots.
    pub fn run<E: From<Error>>(mut self, hear: &mut Hear<'_, E>) -> std::result::Result<Summary, E> {
        let root = Dentry { ino: InodeNo::ROOT, kind: Kind::Directory, cookie: 0 };
        if let Some(row) = self.changed(root, root, true)? {
            self.tell(row, hear)?;
        }
        self.enter(Place::Pair(InodeNo::ROOT, InodeNo::ROOT));
        while let Some(frame) = self.stack.last_mut() {
            self.path.truncate(frame.prefix);
            let Some((name, from, to)) = frame.next(self.sides)? else {
                match frame.waiting.pop() {
                    Some((name, place)) => self.descend(&name, place),
                    None => drop(self.stack.pop()),
                }
                continue;
            };
            self.done.looked += 1;
            if self.done.looked.is_multiple_of(TELL) {
                self.check()?;
                hear(Event::Looked(self.done.looked))?;
            }
            self.path.extend_from_slice(&name);
            if let Some(row) = self.at_path(from, to)? {
                self.tell(row, hear)?;
            }
            if let Some(place) = below(from, to)
                && let Some(frame) = self.stack.last_mut()
            {
                frame.waiting.push((name, place));
            }
        }
        self.check()?;
        Ok(self.done)
    }

    fn descend(&mut self, name: &[u8], place: Place) {
        self.path.extend_from_slice(name);
        self.path.push(b'/');
        if self.path.len() > PATH_MAX {
            self.done.too_deep += 1;
            return;
        }
        if let Some(far) = self.stack.len().checked_sub(BUFFERED)
            && let Some(frame) = self.stack.get_mut(far)
        {
            frame.let_go();
        }
        self.enter(place);
    }

    fn enter(&mut self, place: Place) {
        let old = |dir| Names::new(self.sides.from.view(), dir);
        let new = |dir| Names::new(self.sides.to.view(), dir);
        let (from, to) = match place {
            Place::Pair(from, to) if from == to && self.sides.same_names(from) => (Some(old(from)), None),
            Place::Pair(from, to) => (Some(old(from)), Some(new(to))),
            Place::Apart(from, to) => (from.map(|d| old(d.ino)), to.map(|d| new(d.ino))),
        };
        self.stack.push(Frame { place, from, to, prefix: self.path.len(), waiting: Vec::new() });
    }

    /// What is to be told of the present path.
    fn at_path(&mut self, from: Option<Side>, to: Option<Side>) -> Result<Option<Row>> {
        let moved = match &mut self.pass {
            Pass::Collect(moved) => {
                for (side, is_new) in [(from, false), (to, true)] {
                    if let Some(side) = side.filter(|side| side.lives && !side.kept) {
                        moved.note(side.entry.ino, &self.path, is_new);
                    }
                }
                return Ok(None);
            }
            Pass::Tell(moved) => *moved,
        };
        let left = |s: Side| s.kept || moved.new_name(s.entry.ino, &self.path).is_some();
        // What was here and has gone, and not elsewhere.
        let gone = from.filter(|s| !left(*s));
        match (gone, to) {
            (None, Some(to)) if to.kept => self.changed(to.entry, to.entry, true),
            // A directory was moved to where another one was, which lost this name, and brought one of its own.
            (Some(gone), Some(to)) if to.kept => self.changed(gone.entry, to.entry, false),
            (gone, Some(to)) => match moved.old_name(to.entry.ino, &self.path) {
                Some(old) => self.renamed(to.entry, old.to_vec(), gone.is_some()),
                None => match gone {
                    Some(gone) => self.changed(gone.entry, to.entry, false),
                    None => self.added(to),
                },
            },
            (Some(gone), None) => {
                let before = Some((gone.entry.ino, self.sides.need(self.sides.from, gone.entry.ino)?));
                let change = Change::Removed { linked: gone.lives };
                Ok(Some(Row { path: self.path.clone(), change, differs: Default::default(), before, after: None }))
            }
            (None, None) => Ok(None),
        }
    }

    fn added(&self, to: Side) -> Result<Option<Row>> {
        let after = Some((to.entry.ino, self.sides.need(self.sides.to, to.entry.ino)?));
        let change = Change::Added { linked: to.lives };
        Ok(Some(Row { path: self.path.clone(), change, differs: Default::default(), before: None, after }))
    }

    fn renamed(&mut self, entry: Dentry, from: Vec<u8>, replaced: bool) -> Result<Option<Row>> {
        let compared = self.comparer.compare(entry.ino, entry.ino, true)?;
        Ok(Some(Row {
            path: self.path.clone(),
            change: Change::Renamed { from, replaced },
            differs: compared.differs,
            before: Some((entry.ino, compared.before)),
            after: Some((entry.ino, compared.after)),
        }))
    }

    /// Two inodes at one path, or one; nothing where they are alike.
    fn changed(&mut self, from: Dentry, to: Dentry, same: bool) -> Result<Option<Row>> {
        if matches!(self.pass, Pass::Collect(_)) || (same && self.sides.untouched(to.ino)) {
            return Ok(None);
        }
        let compared = self.comparer.compare(from.ino, to.ino, same)?;
        Ok((!compared.differs.is_empty()).then(|| Row {
            path: self.path.clone(),
            change: Change::Changed,
            differs: compared.differs,
            before: Some((from.ino, compared.before)),
            after: Some((to.ino, compared.after)),
        }))
    }

    fn tell<E: From<Error>>(&mut self, row: Row, hear: &mut Hear<'_, E>) -> std::result::Result<(), E> {
        self.check()?;
        *match row.change {
            Change::Added { .. } => &mut self.done.added,
            Change::Removed { .. } => &mut self.done.removed,
            Change::Changed => &mut self.done.changed,
            Change::Renamed { .. } => &mut self.done.renamed,
        } += 1;
        hear(Event::Row(Box::new(row)))
    }

    fn check(&self) -> Result<()> {
        self.sides.from.still_there()?;
        self.sides.to.still_there()
    }
}

/// What is below a path of which the versions have these entries.
fn below(from: Option<Side>, to: Option<Side>) -> Option<Place> {
    let dir = |side: &Side| side.entry.kind == Kind::Directory;
    let (from, to) = (from.filter(dir), to.filter(dir));
    match (from, to) {
        (None, None) => None,
        (Some(f), Some(t)) if (!f.lives && !t.lives) || (f.kept && t.kept && f.entry.ino == t.entry.ino) => {
            Some(Place::Pair(f.entry.ino, t.entry.ino))
        }
        _ => {
            let dir = |side: Side| Dir { ino: side.entry.ino, there: side.lives.then_some(side.entry.ino) };
            Some(Place::Apart(from.map(dir), to.map(dir)))
        }
    }
}

type Next = Option<(Box<[u8]>, Option<Side>, Option<Side>)>;

impl Frame<'_> {
    /// The next name and its entries; `None` when the directories that wait are next, or nothing.
    fn next(&mut self, sides: &Sides<'_>) -> Result<Next> {
        let name = {
            let from = self.from.as_mut().map(Names::peek).transpose()?.flatten().map(|(name, _)| name);
            let to = self.to.as_mut().map(Names::peek).transpose()?.flatten().map(|(name, _)| name);
            match (from, to) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        };
        let Some(name) = name.filter(|name| self.waiting.last().is_none_or(|(dir, _)| !is_behind(name, dir))) else {
            return Ok(None);
        };
        let name = name.clone();
        let from = self.from.as_mut().map(|names| names.next_if(&name)).transpose()?.flatten();
        let to = self.to.as_mut().map(|names| names.next_if(&name)).transpose()?.flatten();
        let (from, to) = match self.place {
            Place::Pair(..) if self.to.is_none() => {
                let kept = |entry| Side { entry, kept: true, lives: true };
                (from.map(kept), from.map(kept))
            }
            Place::Pair(..) => {
                let kept = match (&from, &to) {
                    (Some(from), Some(to)) => sides.same_inode(from, to)?,
                    _ => false,
                };
                (side(sides, from, kept, true)?, side(sides, to, kept, false)?)
            }
            Place::Apart(old, new) => {
                let mut from_kept = kept_there(sides, old, &name, from.as_ref(), true)?;
                let mut to_kept = kept_there(sides, new, &name, to.as_ref(), false)?;
                // What left its directory for the one that took that one's path has the path that it had.
                if !from_kept
                    && let (Some(from), Some(to)) = (&from, &to)
                    && sides.same_inode(from, to)?
                {
                    (from_kept, to_kept) = (true, true);
                }
                (side(sides, from, from_kept, true)?, side(sides, to, to_kept, false)?)
            }
        };
        Ok(Some((name, from, to)))
    }

    fn let_go(&mut self) {
        let (from, to) = match self.place {
            Place::Pair(from, to) => (Some(from), Some(to)),
            Place::Apart(from, to) => (from.map(|d| d.ino), to.map(|d| d.ino)),
        };
        for (names, dir) in [(&mut self.from, from), (&mut self.to, to)] {
            if let (Some(names), Some(dir)) = (names, dir) {
                names.let_go(dir);
            }
        }
    }
}

/// Whether a name sorts behind everything in a directory of a name before it.
fn is_behind(name: &[u8], dir: &[u8]) -> bool {
    match name.strip_prefix(dir) {
        Some(rest) => rest.first().is_some_and(|byte| *byte > b'/'),
        None => true,
    }
}

fn side(sides: &Sides<'_>, entry: Option<Dentry>, kept: bool, in_to: bool) -> Result<Option<Side>> {
    let Some(entry) = entry else { return Ok(None) };
    Ok(Some(Side { entry, kept, lives: kept || sides.lives(&entry, in_to)? }))
}

/// Whether a directory has an entry under the same name also where it is in the other version.
fn kept_there(sides: &Sides<'_>, dir: Option<Dir>, name: &[u8], entry: Option<&Dentry>, in_to: bool) -> Result<bool> {
    let (Some(Dir { ino, there: Some(there) }), Some(entry)) = (dir, entry) else { return Ok(false) };
    if ino == there && sides.same_names(ino) {
        return Ok(true);
    }
    let view = if in_to { sides.to.view() } else { sides.from.view() };
    let Some(other) = view::dentry(view, there, name)? else { return Ok(false) };
    if in_to { sides.same_inode(entry, &other) } else { sides.same_inode(&other, entry) }
}
