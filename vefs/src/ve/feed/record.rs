//! A record of a transaction as it is handed to followers.

use bytes::Bytes;

use super::cancelled::Tracker;
use crate::change::Body;
use crate::codec;
use crate::error::Result;
use crate::format::record::Frame;
use crate::ids::{PayloadId, TxnNo};
use crate::ve::envelope::Envelope;

/// A record as journalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRecord {
    /// The encoded body: the bytes under the chain hash.
    pub body: Bytes,
    /// Its payload.
    pub payload: Option<FeedPayload>,
}

impl FeedRecord {
    /// Nobody needs its payload.
    pub(super) fn cancel(&mut self) {
        self.payload = self.payload.take().map(|payload| FeedPayload::Cancelled(payload.size()));
    }
}

/// A record's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedPayload {
    /// Its bytes.
    Inline(Bytes),
    /// Lies beside the journal: its id and length.
    Bulk(PayloadId, u64),
    /// So many bytes of which nothing is left when the transaction ends: nobody needs them.
    Cancelled(u64),
}

impl FeedPayload {
    /// Bytes that the record describes, whether they are here or not.
    pub fn size(&self) -> u64 {
        match self {
            FeedPayload::Inline(bytes) => bytes.len() as u64,
            FeedPayload::Bulk(_, len) | FeedPayload::Cancelled(len) => *len,
        }
    }
}

/// A record from its frame. `offset`: of its payload among those of the transaction.
pub(super) fn read(
    frame: &Frame<'_>,
    txn: TxnNo,
    offset: &mut u64,
    at: u64,
    tracker: &mut Tracker,
) -> Result<FeedRecord> {
    let place = || format!("position {at}");
    let body: Body = codec::decode(frame.body).map_err(|e| e.at("record body", place()))?;
    tracker.take(&body);
    let payload = match &body.payload {
        None => None,
        Some(p) => {
            let id = PayloadId { txn, offset: *offset };
            *offset += p.len;
            let envelope: Envelope = codec::decode(frame.envelope).map_err(|e| e.at("record envelope", place()))?;
            Some(match envelope.place {
                Some(_) => FeedPayload::Bulk(id, p.len),
                // It came without, from a primary.
                None if frame.payload.is_empty() => FeedPayload::Cancelled(p.len),
                None => FeedPayload::Inline(Bytes::copy_from_slice(frame.payload)),
            })
        }
    };
    Ok(FeedRecord { body: Bytes::copy_from_slice(frame.body), payload })
}
