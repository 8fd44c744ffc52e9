//! A store's VEs as the machines see them: [`VeLog`] is a primary's history, [`VeFollower`] a replica's, [`LocalSource`] serves whole states and
//! [`LocalInstall`] takes them in.

mod install;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use vefs::Ve;
use vefs::content::InBody;
use vefs::ids::{Epoch, Hash, PayloadId, Position, TxnNo};
use vefs::ve::ReceiveError;

pub use install::LocalInstall;
pub use source::{HeldStates, LocalSource};

use crate::catchup::Page;
use crate::log::{At, FollowError, Follower, Log, LogError, LogRead, LogTxn, Payload};
use crate::wire::Chunk;

/// Rows as they travel and are compared.
fn wire_page(page: vefs::ve::Page) -> Page {
    Page {
        rows: page.rows.iter().map(|(k, v)| (k.as_bytes().to_vec(), vefs::codec::encode(v))).collect(),
        payloads: page.payloads,
        objects: page.objects,
        last: page.last,
    }
}

/// A VE that is written here.
#[derive(Clone)]
pub struct VeLog(pub Arc<Ve>);

fn unreadable(e: vefs::Error) -> LogError {
    LogError(e.to_string())
}

impl Log for VeLog {
    fn durable(&self) -> Position {
        self.0.durable_position()
    }

    fn epoch(&self) -> Epoch {
        self.0.epoch()
    }

    fn base(&self) -> Hash {
        self.0.identity().base
    }

    fn position_at(&self, txn: TxnNo) -> At {
        // What cannot be read cannot be compared: a copy of the whole state decides.
        self.0.position_at(txn).unwrap_or_else(|e| {
            tracing::error!(ve = %self.0.id(), %txn, error = %e, "looking a position up");
            At::Gone
        })
    }

    /// A transaction without its bulk is none that could be sent: the follower that needed it lost its hold, and a collection came in between, though
    /// the journal has the records still.
    fn read(&self, after: TxnNo) -> Result<LogRead, LogError> {
        let read = self.0.feed(after).map_err(unreadable)?;
        let LogRead::Txn(txn) = &read else { return Ok(read) };
        for record in &txn.records {
            if let Some(Payload::Bulk(id, len)) = &record.payload
                && !self.0.has_payload(*id, *len).map_err(unreadable)?
            {
                tracing::warn!(ve = %self.0.id(), txn = %txn.position.txn, "its bulk was collected: whoever needs it needs a whole state");
                return Ok(LogRead::Gone);
            }
        }
        Ok(read)
    }

    fn payload(&self, id: PayloadId, offset: u64, len: usize) -> Result<Bytes, LogError> {
        self.0.payload(id, offset, len).map_err(unreadable)
    }

    fn in_body(&self, id: PayloadId) -> Result<Option<InBody>, LogError> {
        self.0.in_body(id).map_err(unreadable)
    }

    fn alike(&self, txn: &LogTxn) -> Vec<Option<Hash>> {
        self.0.alike(txn)
    }
}

/// Most bytes that are held for a transaction to come.
const HELD_MAX: u64 = 16 << 20;

/// A VE that follows. Payloads that came in part are kept in memory, whole ones in the store; the [machine](crate::apply) bounds both.
pub struct VeFollower {
    ve: Arc<Ve>,
    parts: BTreeMap<PayloadId, Vec<u8>>,
    held: BTreeMap<Hash, Bytes>,
}

impl VeFollower {
    /// Of this VE.
    pub fn new(ve: Arc<Ve>) -> VeFollower {
        VeFollower { ve, parts: BTreeMap::new(), held: BTreeMap::new() }
    }

    /// The VE.
    pub fn ve(&self) -> &Arc<Ve> {
        &self.ve
    }
}

fn failed(e: &vefs::Error) -> FollowError {
    FollowError::Store(e.to_string())
}

impl Follower for VeFollower {
    fn base(&self) -> Hash {
        self.ve.identity().base
    }

    fn head(&self) -> Position {
        self.ve.position()
    }

    fn durable(&self) -> Position {
        self.ve.durable_position()
    }

    fn highest_epoch(&self) -> Epoch {
        self.ve.epoch()
    }

    fn note_epoch(&mut self, epoch: Epoch) -> Result<(), FollowError> {
        self.ve.note_epoch(epoch).map_err(|e| failed(&e))
    }

    fn stage(&mut self, chunk: &Chunk) -> Result<(), FollowError> {
        let Chunk { id, total, offset, within, bytes } = chunk;
        let (id, total, offset) = (*id, *total, *offset);
        if offset == 0 && bytes.len() as u64 == total {
            self.parts.remove(&id);
            return self.ve.stage(id, bytes, *within).map_err(|e| failed(&e));
        }
        let part = self.parts.entry(id).or_default();
        // What a former session sent behind this is sent again.
        part.truncate(offset as usize);
        if part.len() as u64 != offset {
            return Err(FollowError::Store(format!("bytes of a payload before {offset} are not here")));
        }
        part.extend_from_slice(bytes);
        if part.len() as u64 == total {
            let whole = self.parts.remove(&id).unwrap_or_default();
            return self.ve.stage(id, &whole, *within).map_err(|e| failed(&e));
        }
        Ok(())
    }

    fn forget_parts(&mut self) {
        self.parts.clear();
    }

    fn unstage_all(&mut self) {
        self.parts.clear();
        self.ve.unstage_all();
    }

    fn hold(&mut self, wanted: &[(Hash, u64)]) -> Vec<bool> {
        let mut bytes: u64 = self.held.values().map(|b| b.len() as u64).sum();
        let mut keep = |&(hash, len): &(Hash, u64)| {
            if let Some(held) = self.held.get(&hash) {
                return held.len() as u64 == len;
            }
            let found = if bytes + len <= HELD_MAX { self.ve.bytes_alike(hash, len) } else { None };
            bytes += found.as_ref().map_or(0, |b| b.len() as u64);
            found.map(|found| self.held.insert(hash, found)).is_some()
        };
        wanted.iter().map(&mut keep).collect()
    }

    fn release(&mut self) {
        self.held.clear();
    }

    fn held(&self, hash: Hash) -> Option<Bytes> {
        self.held.get(&hash).cloned()
    }

    fn receive(&mut self, txn: &LogTxn) -> Result<(), FollowError> {
        self.parts = self.parts.split_off(&PayloadId { txn: txn.position.txn.next(), offset: 0 });
        self.ve.receive(txn).map_err(|e| match e {
            ReceiveError::Corrupt { txn, detail } => FollowError::Corrupt { txn, detail },
            ReceiveError::Store(e) => failed(&e),
        })?;
        // What came may come once more, for another VE.
        self.ve.alike(txn);
        Ok(())
    }

    fn sync(&mut self) -> Result<Position, FollowError> {
        self.ve.sync().map_err(|e| failed(&e))?;
        Ok(self.ve.durable_position())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vefs::ids::InodeNo;
    use vefs::op::{Op, Owner, Reply};
    use vefs::ve::{Request, Retention};

    use super::*;
    use crate::runtime::bed;

    /// A follower that was away for long had lost its hold, and what no version named any more was collected, while the journal still had the records of
    /// it. When it was back it was sent these: the stream ended at the bulk that was nowhere, and began again, for ever (checks G14).
    #[test]
    fn a_transaction_whose_bulk_was_collected_is_gone() {
        let (store, clock) = bed::store();
        let ve = bed::writer(&store, 7);
        let log = VeLog(ve.clone());
        let does = |op: Op| ve.execute(&op, Request::default()).unwrap();
        let parent = InodeNo::ROOT;
        let create = Op::Create { parent, name: b"bulk".to_vec(), mode: 0o100_600, rdev: 0, owner: Owner::default() };
        let Reply::Inode(ino, _) = does(create) else { panic!("no inode") };
        does(Op::Write { ino, offset: 0, data: Bytes::from(vec![7; 100_000]), kill_priv: false });
        ve.commit().unwrap();
        let before = ve.position().txn.0 - 1;
        assert!(matches!(log.read(TxnNo(before)).unwrap(), LogRead::Txn(_)));
        // Its extent file gets nothing more: what may be written yet is not collected.
        does(Op::Write { ino, offset: 100_000, data: Bytes::from_static(b"x"), kill_priv: false });
        does(Op::Unlink { parent, name: b"bulk".to_vec() });
        ve.reap(&[ino]).unwrap();
        ve.commit().unwrap();
        ve.publish().unwrap();
        clock.advance(Duration::from_secs(30 * 86_400));
        // With a cursor it is held, without it goes; the journal has both transactions all the while.
        ve.set_cursor([2; 16], TxnNo(before)).unwrap();
        store.collect_garbage(&Retention::default()).unwrap();
        assert!(matches!(log.read(TxnNo(before)).unwrap(), LogRead::Txn(_)));
        ve.drop_cursor([2; 16]).unwrap();
        store.collect_garbage(&Retention::default()).unwrap();
        assert!(matches!(ve.feed(TxnNo(before)).unwrap(), LogRead::Txn(_)), "the journal has it");
        assert!(matches!(log.read(TxnNo(before)).unwrap(), LogRead::Gone));
        assert!(matches!(log.read(TxnNo(before + 1)).unwrap(), LogRead::Txn(_)));
    }
}
