//! A VE's history for those who follow it: its durable transactions as the journal has them, the bytes of their payloads, and cursors that hold
//! both until they have been taken.
//!
//! Only what is sealed and durable is handed out (promise G12). A cursor holds journal segments and payload bytes behind its transaction, up to a
//! cap of bytes; beyond it the cursor loses its hold and says so (promise G33).

pub(super) mod cancelled;
mod past;
mod record;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{State, Ve};
use crate::codec;
use crate::content::read::{self, payload_pieces};
use crate::content::{InBody, Location, Place};
use crate::error::{Error, Result};
use crate::format::record::FrameKind;
use crate::ids::{Epoch, Hash, Lineage, PayloadId, Position, TxnNo};
use crate::meta::{Batch, Scan, Table, prefix_end, rows};

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

/// A follower's place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// It has everything up to here.
    pub txn: TxnNo,
    /// Epoch and chain hash of that, which the journal may not tell any more.
    pub at: Option<(Epoch, Hash)>,
    /// Journal position behind that.
    pub journal: u64,
    /// It lost its hold: what it needs may be gone.
    pub lost: bool,
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

    /// Cursors that hold more than `cap` bytes lose their hold.
    pub fn limit_cursors(&mut self, cap: u64) {
        let behind: BTreeMap<[u8; 16], u64> =
            self.cursors.iter().map(|(n, c)| (*n, self.index.behind(c.txn))).collect();
        let (ve, position) = (self.role.ve, self.journal.position());
        for (node, cursor) in self.cursors.iter_mut().filter(|(_, c)| !c.lost) {
            let held = behind[node].max(position.saturating_sub(cursor.journal));
            if held > cap {
                cursor.lost = true;
                tracing::warn!(%ve, txn = %cursor.txn, held, "a replica is too far behind: its journal is held no longer");
            }
        }
    }

    /// The nodes whose cursors hold the journal.
    pub fn holding(&self) -> impl Iterator<Item = [u8; 16]> {
        self.cursors.iter().filter(|(_, c)| !c.lost).map(|(node, _)| *node)
    }

    /// Epoch and chain hash of a transaction at which a follower stands.
    fn followed(&self, txn: TxnNo) -> Option<(Epoch, Hash)> {
        self.cursors.values().find(|c| c.txn == txn).and_then(|c| c.at)
    }

    /// Payloads of transactions after this one are held for followers.
    pub fn unshipped_after(&self) -> Option<TxnNo> {
        self.cursors.values().filter(|c| !c.lost).map(|c| c.txn).min()
    }

    /// The rows of the cursors.
    pub fn cursor_rows(&self, batch: &mut Batch) {
        for (node, c) in &self.cursors {
            let (epoch, chain) = c.at.unwrap_or_default();
            let row = (c.txn, c.journal, c.lost, epoch, chain);
            batch.put(Table::System, rows::cursor(self.tables.ve, *node), codec::encode(&row));
        }
    }
}

/// A cursor's row: transaction, journal position, whether it is lost, epoch and chain hash (zeros where they were not known).
type Row = (TxnNo, u64, bool, Epoch, Hash);

/// Stores of before have rows without the last two.
fn cursor_row(row: &[u8]) -> std::result::Result<Row, crate::meta::MetaError> {
    rows::decode::<Row>("system", row).or_else(|e| {
        let old = rows::decode::<(TxnNo, u64, bool)>("system", row).map_err(|_| e)?;
        Ok((old.0, old.1, old.2, Epoch(0), Hash::default()))
    })
}

/// The cursors that are stored.
pub(crate) fn load_cursors(
    meta: &dyn crate::meta::MetaStore,
    slot: crate::ids::VeId,
) -> Result<BTreeMap<[u8; 16], Cursor>> {
    let (mut out, mut bad) = (BTreeMap::new(), None);
    let prefix = rows::cursor_prefix(slot);
    let end = prefix_end(&prefix).unwrap_or_else(|| vec![0xff; 32]);
    meta.scan(Table::System, &prefix, &end, &mut |k, v| {
        let row = rows::parse_cursor(k).and_then(|node| Ok((node, cursor_row(v)?)));
        match row {
            Ok((node, (txn, journal, lost, epoch, chain))) => {
                let at = (chain != Hash::default()).then_some((epoch, chain));
                out.insert(node, Cursor { txn, at, journal, lost });
                Scan::Next
            }
            Err(e) => {
                bad = Some(e.into());
                Scan::Stop
            }
        }
    })?;
    bad.map_or(Ok(out), Err)
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

    /// A follower has everything up to `txn`: what is behind that is held for it. A cursor never goes back, unless it lost its hold.
    pub fn set_cursor(&self, node: [u8; 16], txn: TxnNo) -> Result<()> {
        if self.state.lock().cursors.get(&node).is_some_and(|c| c.txn == txn && !c.lost) {
            return Ok(());
        }
        let sealed = if txn == TxnNo(0) { None } else { self.find(txn)? };
        // The journal may begin right behind it.
        let next = if sealed.is_none() && txn != TxnNo(0) { self.find(txn.next())? } else { None };
        let at = match self.position_at(txn)? {
            Known::Here(position) => Some((position.epoch, position.chain)),
            Known::Beyond | Known::Gone => None,
        };
        let mut s = self.state.lock();
        let journal = match sealed {
            Some(sealed) => sealed.end,
            None if txn == s.head.txn => s.head.journal,
            None => next.map_or(s.journal.oldest(), |next| next.begin),
        };
        let fresh = !s.cursors.contains_key(&node);
        // A position whose successors were recycled holds nothing.
        let lost = sealed.or(next).is_none() && txn != s.head.txn && s.journal.oldest() > 0;
        s.cursors.insert(node, Cursor { txn, at, journal, lost });
        if fresh {
            let mut batch = Batch::default();
            s.cursor_rows(&mut batch);
            self.shared.meta.write(batch)?;
            drop(s);
            // A start that did not know it would give its journal back before anybody could say so.
            self.shared.meta.persist()?;
        }
        Ok(())
    }

    /// Nothing is held any more for this follower.
    pub fn drop_cursor(&self, node: [u8; 16]) -> Result<()> {
        let mut s = self.state.lock();
        if s.cursors.remove(&node).is_some() {
            let mut batch = Batch::default();
            batch.delete(Table::System, rows::cursor(self.slot, node));
            self.shared.meta.write(batch)?;
        }
        Ok(())
    }

    /// The followers' cursors, and how many bytes lie behind each.
    pub fn cursors(&self) -> Vec<([u8; 16], Cursor, u64)> {
        let s = self.state.lock();
        s.cursors.iter().map(|(n, c)| (*n, *c, s.index.behind(c.txn))).collect()
    }
}
