//! Comparing versions: both are held while it goes on, and what differs is sent as it is found.
//!
//! Invariant: at most [`AT_ONCE`] comparisons go on, each of which takes what [`Limits`] says.

use rustix::fs::{major, minor};
use vefs::diff::{self, Change, Event, Limits, Row};
use vefs::ids::InodeNo;
use vefs::types::{Inode, Kind};
use vefs::ve::Snapshot;

use super::refuse::Answer;
use super::session::Session;
use super::versions::no_version;
use crate::control::diff::{self as said, Became, DiffEnd, DiffRow};
use crate::control::message::{Id, Progress, Refusal};
use crate::control::path::Path;
use crate::control::versions::Which;
use crate::units::show_time;

/// Most comparisons at a time.
pub const AT_ONCE: usize = 4;

/// Sends what differs between two versions: rows, then the figures.
pub fn diff(session: &mut Session<'_>, id: Id, from: Option<&Which>, to: Option<&Which>) -> Answer<()> {
    let daemon = session.daemon.clone();
    let _turn = daemon.comparing.take()?;
    let from = held(session, id, from)?;
    let to = held(session, id, to)?;
    let done = diff::compare::<Refusal>(&from, &to, &Limits::default(), &mut |event| {
        session.may_go_on()?;
        match event {
            Event::Row(row) => session.row(&shown(*row)),
            // A client that went away is noticed by this, where nothing differs.
            Event::Looked(done) => session.progress(&Progress { doing: "comparing".into(), done, of: None }),
        }
    })?;
    session.answer(&DiffEnd {
        added: done.added,
        removed: done.removed,
        changed: done.changed,
        renamed: done.renamed,
        forgotten: done.forgotten,
        too_deep: done.too_deep,
    })
}

/// A version, kept from collection while it is read.
fn held(session: &Session<'_>, id: Id, which: Option<&Which>) -> Answer<Snapshot> {
    let found = session.daemon.find(id, which)?;
    found.state.version(found.txn).map_err(|e| no_version(id, &found.label(), e))
}

fn shown(row: Row) -> DiffRow {
    let differs = row.differs.names().map(str::to_owned).collect();
    let (change, from, linked, replaced) = match row.change {
        Change::Added { linked } => (Became::Added, None, linked, false),
        Change::Removed { linked } => (Became::Removed, None, linked, false),
        Change::Changed => (Became::Changed, None, false, false),
        Change::Renamed { from, replaced } => (Became::Renamed, Some(Path::new(&from)), false, replaced),
    };
    let path = Path::new(&row.path);
    DiffRow {
        change,
        path,
        from,
        differs,
        linked,
        replaced,
        before: row.before.map(inode),
        after: row.after.map(inode),
    }
}

fn inode((ino, inode): (InodeNo, Inode)) -> said::Inode {
    let is_device = matches!(inode.kind(), Kind::CharDevice | Kind::BlockDevice);
    said::Inode {
        ino: ino.0,
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        size: inode.size,
        device: is_device.then(|| (major(inode.rdev), minor(inode.rdev))),
        mtime: show_time(inode.mtime),
    }
}
