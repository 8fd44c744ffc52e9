//! A VE's history for those who follow it: its durable transactions as the journal has them, the bytes of their payloads, and cursors that hold
//! both until they have been taken.
//!
//! Only what is sealed and durable is handed out (promise G12). A cursor holds journal segments and payload bytes behind its transaction, up to a
//! cap of bytes; beyond it the cursor loses its hold and says so (promise G33).

pub(super) mod cancelled;
mod cursors;
mod past;
mod record;

use std::collections::VecDeque;

use bytes::Bytes;

use super::{State, Ve};
use crate::content::read::{self, payload_pieces};
use crate::content::{InBody, Location, Place};
use crate::error::{Error, Result};
use crate::format::record::FrameKind;
use crate::ids::{Epoch, Hash, Lineage, PayloadId, Position, TxnNo};
use crate::meta::{Table, rows};

pub use cursors::Cursor;
pub(crate) use cursors::load_cursors;
pub use record::{FeedPayload, FeedRecord};

/// Sealed transactions whose place in the journal is remembered.
const INDEX_MAX: usize = 1 << 16;

/// A sealed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedTxn {
    /// The position after it.
    pub position: Position,
    /// Chain hash before it.
    pub previous: Hash,
    /// In order.
    pub records: Vec<FeedRecord>,
    /// The encoded seal.
    pub seal: Bytes,
}

/// What lies behind a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The next one.
    Txn(FeedTxn),
    /// Nothing that is durable.
    AtEnd,
    /// The journal does not reach back so far.
    Gone,
}

/// Whether a history has a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// With this position after it.
    Here(Position),
    /// It has not come so far, durably.
    Beyond,
    /// It is too long ago to be known.
    Gone,
}

/// Where a sealed transaction lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    pub txn: TxnNo,
    pub epoch: Epoch,
    pub chain: Hash,
    pub previous: Hash,
    /// Journal positions of its first frame and after its seal.
    pub begin: u64,
    pub end: u64,
    /// Bytes of frames and payloads of everything up to here that was sealed or looked at in this run.
    pub volume: u64,
}

/// The sealed transactions that the journal still has, as far as they were looked at.
#[derive(Default)]
pub(crate) struct Index {
    seals: VecDeque<Sealed>,
    volume: u64,
    /// Where this run began.
    first: Position,
    /// The journal before the first of them was looked through.
    scanned: bool,
}

impl Index {
    pub fn new(first: Position) -> Index {
        Index { first, ..Index::default() }
    }

    /// Takes the transaction that was sealed last.
    pub fn push(&mut self, mut sealed: Sealed, payload: u64) {
        self.volume += sealed.end.saturating_sub(sealed.begin) + payload;
        sealed.volume = self.volume;
        if self.seals.len() >= INDEX_MAX {
            self.seals.pop_front();
            self.scanned = false;
        }
        self.seals.push_back(sealed);
    }

    /// Keeps the newest `keep` only: the others are found in the journal again if somebody needs them.
    pub fn shrink(&mut self, keep: usize) {
        if let Some(old) = self.seals.len().checked_sub(keep).filter(|old| *old > 0) {
            self.seals.drain(..old);
            self.scanned = false;
        }
        self.seals.shrink_to_fit();
    }

    fn get(&self, txn: TxnNo) -> Option<&Sealed> {
        let first = self.seals.front()?.txn.0;
        self.seals.get(usize::try_from(txn.0.checked_sub(first)?).ok()?)
    }

    /// The last one that ends at or before a journal position.
    fn durable(&self, upto: u64) -> Option<&Sealed> {
        self.seals.partition_point(|s| s.end <= upto).checked_sub(1).map(|i| &self.seals[i])
    }

    /// Bytes behind a transaction.
    fn behind(&self, txn: TxnNo) -> u64 {
        let before = self.get(txn).map(|s| s.volume);
        let none = self.seals.front().is_none_or(|f| f.txn > txn.next());
        self.volume - before.unwrap_or(if none { 0 } else { self.volume }).min(self.volume)
    }
}

impl State {
    fn at(&self, lineage: Lineage, s: &Sealed) -> Position {
        Position { lineage, epoch: s.epoch, txn: s.txn, chain: s.chain }
    }

    fn durable_position(&self) -> Position {
        let (lineage, upto) = (self.head.lineage, self.journal.durable());
        if self.head.journal <= upto {
            return Position { lineage, epoch: self.head.epoch, txn: self.head.txn, chain: self.head.chain };
        }
        self.index.durable(upto).map_or(self.index.first, |s| self.at(lineage, s))
    }
}

impl Ve {
    /// The position of the last transaction that is sealed and durable.
    pub fn durable_position(&self) -> Position {
        self.state.lock().durable_position()
    }

    /// The position after a transaction.
    pub fn position_at(&self, txn: TxnNo) -> Result<Known> {
        let lineage = self.identity.lineage;
        if txn == TxnNo(0) {
            let epoch = self.identity.epoch;
            return Ok(Known::Here(Position { lineage, epoch, txn, chain: Hash([0; 32]) }));
        }
        {
            let s = self.state.lock();
            let durable = s.durable_position();
            match (txn.cmp(&durable.txn), s.index.get(txn)) {
                (std::cmp::Ordering::Greater, _) => return Ok(Known::Beyond),
                (std::cmp::Ordering::Equal, _) => return Ok(Known::Here(durable)),
                (_, Some(sealed)) => return Ok(Known::Here(s.at(lineage, sealed))),
                _ => {}
            }
            if let Some((epoch, chain)) = s.followed(txn) {
                return Ok(Known::Here(Position { lineage, epoch, txn, chain }));
            }
        }
        if let Some(row) = self.shared.meta.get(Table::System, &rows::txn(self.slot, txn))? {
            let row: rows::TxnRow = rows::decode("system", &row)?;
            return Ok(Known::Here(Position { lineage, epoch: row.epoch, txn, chain: row.chain }));
        }
        Ok(self
            .find(txn)?
            .map_or(Known::Gone, |s| Known::Here(Position { lineage, epoch: s.epoch, txn, chain: s.chain })))
    }

    /// The transaction after `after`.
    pub fn feed(&self, after: TxnNo) -> Result<Feed> {
        let txn = after.next();
        if txn > self.durable_position().txn {
            return Ok(Feed::AtEnd);
        }
        let Some(sealed) = self.find(txn)? else { return Ok(Feed::Gone) };
        let Some(span) = self.state.lock().journal.span(sealed.begin, sealed.end) else { return Ok(Feed::Gone) };
        let (mut records, mut seal, mut offset) = (Vec::new(), Bytes::new(), 0);
        let mut tracker = cancelled::Tracker::new(txn);
        span.each(&mut |at, frame| {
            if frame.header.txn != txn {
                let place = format!("position {at}");
                let detail = format!("a frame of transaction {} in {txn}", frame.header.txn);
                return Err(Error::Damage { what: "journal", place, detail });
            }
            match frame.header.kind {
                FrameKind::Seal => seal = Bytes::copy_from_slice(frame.body),
                FrameKind::Body => records.push(record::read(&frame, txn, &mut offset, at, &mut tracker)?),
            }
            Ok(())
        })?;
        let cancelled = records.iter_mut().zip(tracker.cancelled()).filter(|(_, cancelled)| *cancelled);
        cancelled.for_each(|(record, _)| record.cancel());
        let lineage = self.identity.lineage;
        let position = Position { lineage, epoch: sealed.epoch, txn, chain: sealed.chain };
        Ok(Feed::Txn(FeedTxn { position, previous: sealed.previous, records, seal }))
    }

    /// Bytes of a payload that lies beside the journal.
    pub fn payload(&self, id: PayloadId, offset: u64, len: usize) -> Result<Bytes> {
        let mut pieces = Vec::new();
        {
            let mut s = self.state.lock();
            let State { tables, files, .. } = &mut *s;
            payload_pieces(&|id| tables.place(id), files, id.plus(offset), 0, len as u64, &mut pieces)?;
        }
        let mut bytes = vec![0; len];
        read::read(&pieces, &self.shared.objects, &mut bytes)?;
        Ok(Bytes::from(bytes))
    }

    /// Whether the bytes of a payload that lies beside the journal are still there: of what no version names any more they stay as long as some
    /// follower's cursor holds them.
    pub fn has_payload(&self, id: PayloadId, len: u64) -> Result<bool> {
        let s = self.state.lock();
        let mut done = 0;
        // It is forgotten in pieces: what is alive of it may have moved.
        while done < len {
            let at = id.plus(done);
            let Some((begin, place)) = s.tables.place(at)? else { return Ok(false) };
            done += (place.len - (at.offset - begin.offset)).max(1);
        }
        Ok(true)
    }

    /// Where in a file's body a payload lies, if that body has an extent file of its own.
    pub fn in_body(&self, id: PayloadId) -> Result<Option<InBody>> {
        let s = self.state.lock();
        Ok(match s.tables.place(id)? {
            Some((begin, Place { at: Location::Extent(place), .. })) if s.files.is_body(place.file) => {
                Some(InBody { body: place.file, offset: place.offset + (id.offset - begin.offset) })
            }
            _ => None,
        })
    }
}
