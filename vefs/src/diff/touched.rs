//! What the change index says between two versions of one state.

use std::collections::HashMap;

use foldhash::fast::RandomState;

pub(super) use crate::state::overlay::touched::{CONTENT, ENTRIES, XATTR};

use crate::error::Result;
use crate::ids::{InodeNo, TxnNo};
use crate::meta::{Scan, Table, rows};
use crate::ve::Snapshot;

/// Inodes that were changed, with what was, as bits of the change index.
pub(super) type Touched = HashMap<InodeNo, u8, RandomState>;

/// The inodes changed between two versions of one state; `None` when they are more than `max`. The index is whole from the older one on: it is
/// held, and collection keeps the index from the oldest kept version on.
pub(super) fn between(a: &Snapshot, b: &Snapshot, max: usize) -> Result<Option<Touched>> {
    let view = a.view();
    let (older, newer) = (a.txn().min(b.txn()), a.txn().max(b.txn()));
    let from = rows::change(view.ve, TxnNo(older.0 + 1), InodeNo(0));
    let to = rows::change(view.ve, TxnNo(newer.0 + 1), InodeNo(0));
    let mut touched = Touched::default();
    let mut bad = None;
    view.meta.scan(Table::Changes, &from, &to, &mut |k, v| match rows::parse_change(k) {
        Ok((_, ino)) => {
            *touched.entry(ino).or_insert(0) |= v.first().copied().unwrap_or(u8::MAX);
            if touched.len() > max { Scan::Stop } else { Scan::Next }
        }
        Err(e) => {
            bad = Some(e);
            Scan::Stop
        }
    })?;
    match bad {
        Some(e) => Err(e.into()),
        None => Ok((touched.len() <= max).then_some(touched)),
    }
}
