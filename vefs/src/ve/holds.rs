//! Versions: listing them, and what keeps them from garbage collection: readers (volatile) and holds (records, so that they
//! survive a crash and travel with the history).

use std::sync::Arc;

use super::Ve;
use super::envelope::Envelope;
use crate::change::{Change, Hold, Purpose};
use crate::clock::Timestamp;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::ids::{Position, TxnNo};
use crate::limits;
use crate::meta::{Scan, Table, prefix_end, rows};
use crate::state::key::{Key, Value};
use crate::state::view::View;

/// A version that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRow {
    /// Its position.
    pub position: Position,
    /// When it was sealed: a label.
    pub time: Timestamp,
}

/// Somebody reads a version: it is not collected while this lives.
pub(crate) struct Reading {
    pub ve: Arc<Ve>,
    txn: TxnNo,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut readers = self.ve.readers.lock();
        if let Some(n) = readers.get_mut(&self.txn) {
            *n -= 1;
            if *n == 0 {
                readers.remove(&self.txn);
            }
        }
    }
}

impl Ve {
    /// Begins to read a published version; ENOENT when it was withdrawn. The check and the mark are one step for whoever withdraws.
    pub(crate) fn begin_reading(self: &Arc<Self>, txn: TxnNo) -> Result<Reading> {
        let mut readers = self.readers.lock();
        if !self.is_kept(txn)? {
            return Err(Error::Posix(Errno::ENOENT));
        }
        *readers.entry(txn).or_insert(0) += 1;
        Ok(Reading { ve: self.clone(), txn })
    }

    /// Whether a published version is still kept: its row is there.
    pub(crate) fn is_kept(&self, txn: TxnNo) -> Result<bool> {
        if txn == TxnNo(0) {
            return Ok(self.state.lock().head.floor == TxnNo(0));
        }
        Ok(self.shared.meta.get(Table::System, &rows::txn(self.slot, txn))?.is_some())
    }

    /// The versions that can be read, oldest first. Ends the open transaction.
    pub fn versions(&self) -> Result<Vec<VersionRow>> {
        self.publish()?;
        let lineage = self.identity.lineage;
        let mut out = Vec::new();
        self.txn_rows(&mut |txn, row| {
            let position = Position { lineage, epoch: row.epoch, txn, chain: row.chain };
            out.push(VersionRow { position, time: row.time });
        })?;
        Ok(out)
    }

    /// Visits the rows of kept transactions, oldest first.
    pub(crate) fn txn_rows(&self, visit: &mut dyn FnMut(TxnNo, rows::TxnRow)) -> Result<()> {
        let from = rows::txn(self.slot, TxnNo(0));
        let to = prefix_end(&from[..5]).unwrap_or_else(|| vec![b'U']);
        let mut bad: Option<Error> = None;
        self.shared.meta.scan(Table::System, &from, &to, &mut |k, v| match rows::parse_txn(k)
            .and_then(|t| Ok((t, rows::decode("system", v)?)))
        {
            Ok((txn, row)) => {
                visit(txn, row);
                Scan::Next
            }
            Err(e) => {
                bad = Some(e.into());
                Scan::Stop
            }
        })?;
        bad.map_or(Ok(()), Err)
    }

    /// Keeps a version (and with `onwards` every later one) from garbage collection, under a name (promise G25). EEXIST when the name
    /// is taken, ENOENT when the version is gone or not there yet, EINVAL for a bad name, EDQUOT beyond the most holds.
    pub fn hold(&self, name: &str, txn: TxnNo, onwards: bool, owner: &str) -> Result<()> {
        if name.is_empty() || name.len() > limits::LABEL_MAX || owner.len() > limits::LABEL_MAX || name.contains('\0') {
            return Err(Errno::EINVAL.into());
        }
        self.publish()?;
        let _no_collection = self.publishing.lock();
        if !self.is_kept(txn)? {
            return Err(Errno::ENOENT.into());
        }
        let since = self.shared.clock.wall();
        let mut s = self.recording()?;
        let holds = holds(&s.tables)?;
        if holds.iter().any(|(n, _)| n == name) {
            return Err(Errno::EEXIST.into());
        }
        if holds.len() >= limits::HOLDS_MAX {
            return Err(Errno::EDQUOT.into());
        }
        let hold = Hold { txn, onwards, owner: owner.to_owned(), since };
        let change = Change::PutHold(name.to_owned(), hold);
        s.record(&self.shared, Purpose::Operation, vec![change], None, Envelope::default())?;
        drop(s);
        // A hold that is answered is one that survives.
        self.sync()
    }

    /// Releases a hold; ENOENT when there is none of this name.
    pub fn release(&self, name: &str) -> Result<()> {
        let mut s = self.recording()?;
        if s.tables.get(&Key::hold(name))?.is_none() {
            return Err(Errno::ENOENT.into());
        }
        let change = Change::DropHold(name.to_owned());
        s.record(&self.shared, Purpose::Operation, vec![change], None, Envelope::default())
    }

    /// All holds with their names.
    pub fn holds(&self) -> Result<Vec<(String, Hold)>> {
        holds(&self.state.lock().tables)
    }
}

fn holds(view: &impl View) -> Result<Vec<(String, Hold)>> {
    let mut out = Vec::new();
    view.scan(&Key::hold(""), &Key::holds_end(), &mut |key, value| {
        if let Value::Hold(h) = value {
            out.push((String::from_utf8_lossy(key.rest()).into_owned(), h.clone()));
        }
        Scan::Next
    })?;
    Ok(out)
}
