//! Transactions of former runs: the journal is looked through once for where they lie.

use super::cursors::cursor_row;
use super::{INDEX_MAX, Sealed, Ve};
use crate::change::Seal;
use crate::codec;
use crate::error::{Error, Result};
use crate::format::record::FrameKind;
use crate::ids::{Hash, TxnNo};
use crate::journal::Span;
use crate::meta::{Table, rows};

impl Ve {
    /// Where a transaction lies in the journal; the part before what is remembered is looked through once.
    pub(super) fn find(&self, txn: TxnNo) -> Result<Option<Sealed>> {
        let found = loop {
            let span = {
                let s = self.state.lock();
                if let Some(sealed) = s.index.get(txn) {
                    return Ok(Some(*sealed));
                }
                let until = s.index.seals.front().map_or(s.head.journal, |f| f.begin);
                if s.index.scanned || s.journal.oldest() >= until {
                    return Ok(None);
                }
                s.journal.span(s.journal.oldest(), until)
            };
            let Some(span) = span else { return Ok(None) };
            match self.seals(&span) {
                Ok(found) => break found,
                Err(e) if matches!(e, Error::Io { .. }) || !self.drop_unread(span.first_end())? => return Err(e),
                // Whoever needs it gets a whole state.
                Err(e) => tracing::warn!(ve = %self.id, error = %e, "the journal does not reach back so far"),
            }
        };
        let mut s = self.state.lock();
        let joins = match (found.last(), s.index.seals.front()) {
            (Some(last), Some(first)) => last.txn.next() == first.txn,
            (Some(last), None) => last.txn == s.index.first.txn,
            _ => false,
        };
        s.index.scanned = true;
        if joins {
            for sealed in found.into_iter().rev().take(INDEX_MAX) {
                s.index.seals.push_front(sealed);
            }
        }
        Ok(s.index.get(txn).copied())
    }

    /// Drops what the journal kept of former runs up to a position and nobody had read, as it cannot be read; false where there is none.
    fn drop_unread(&self, upto: u64) -> Result<bool> {
        let mut s = self.state.lock();
        let before = s.journal.oldest();
        s.journal.drop_unread(upto)?;
        Ok(s.journal.oldest() > before)
    }

    /// The journal position from which on these nodes' cursors hold segments, as their durable rows have it.
    pub(crate) fn stored_floor(&self, nodes: &[[u8; 16]]) -> Result<Option<u64>> {
        let mut floor = None;
        for node in nodes {
            let row = self.shared.meta.get_persisted(Table::System, &rows::cursor(self.slot, *node))?;
            let journal = row.map_or(Ok(0), |row| cursor_row(&row).map(|row| row.1))?;
            floor = floor.into_iter().chain([journal]).min();
        }
        Ok(floor)
    }

    /// The transactions that lie whole in a range. Of the first one what was before has to be known otherwise, or it is left out.
    fn seals(&self, span: &Span) -> Result<Vec<Sealed>> {
        let mut out: Vec<Sealed> = Vec::new();
        let mut before: Option<(Hash, u64)> = None;
        let (mut records, mut begin) = (0, None);
        span.each(&mut |at, frame| {
            if frame.header.kind == FrameKind::Body {
                records += 1;
                begin.get_or_insert(at);
                return Ok(());
            }
            let seal: Seal = codec::decode(frame.body).map_err(|e| e.at("seal", format!("position {at}")))?;
            let end = at + frame.header.frame_len();
            let (txn, epoch) = (frame.header.txn, frame.header.epoch);
            if before.is_none() && seal.records == records {
                before = self.chain_before(txn)?.zip(begin);
            }
            if let Some((previous, begin)) = before {
                out.push(Sealed { txn, epoch, chain: seal.chain, previous, begin, end, volume: 0 });
            }
            before = Some((seal.chain, end));
            Ok(())
        })?;
        Ok(out)
    }

    /// The chain hash before a transaction, if a follower stands there or a version's row has it.
    fn chain_before(&self, txn: TxnNo) -> Result<Option<Hash>> {
        let Some(before) = txn.0.checked_sub(1).filter(|n| *n > 0).map(TxnNo) else { return Ok(Some(Hash([0; 32]))) };
        if let Some((_, chain)) = self.state.lock().followed(before) {
            return Ok(Some(chain));
        }
        let row = self.shared.meta.get(Table::System, &rows::txn(self.slot, before))?;
        let row = row.map(|row| rows::decode::<rows::TxnRow>("system", &row)).transpose()?;
        Ok(row.map(|row| row.chain))
    }
}
