//! The transaction that is being shipped: its messages, one after the other.

use crate::log::{LogRecord, LogTxn, Payload};
use crate::ship::alike::Alike;
use crate::wire::{BATCH_TARGET, Begin, HEADER_LEN, Message, WirePayload, WireRecord};

#[derive(Clone, Debug)]
pub(super) struct Shipping {
    pub txn: LogTxn,
    pub alike: Alike,
    pub begun: bool,
    next: usize,
    /// What its messages so far weigh at the replica.
    weight: u64,
}

impl Shipping {
    pub fn new(txn: LogTxn, alike: Alike) -> Shipping {
        Shipping { txn, alike, begun: false, next: 0, weight: 0 }
    }

    /// The next message, with about `piece` bytes at most, or one record; the last is `End`. `bulk` says how many frames of bulk come before all of them.
    pub fn next(&mut self, bulk: impl FnOnce() -> u64, piece: usize) -> Message {
        let message = match self.begun {
            false => self.begin(bulk()),
            true => self.batch(piece).unwrap_or_else(|| Message::End(self.txn.seal.to_vec())),
        };
        self.weight += message.weight();
        message
    }

    fn begin(&mut self, bulk: u64) -> Message {
        self.begun = true;
        let (position, previous) = (self.txn.position, self.txn.previous);
        Message::Begin(Begin { position, previous, records: self.txn.records.len() as u32, bulk })
    }

    fn batch(&mut self, piece: usize) -> Option<Message> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(record) = self.txn.records.get(self.next) {
            let record = WireRecord {
                body: record.body.to_vec(),
                payload: record.payload.as_ref().map(|p| match (p, self.alike.instead(self.next)) {
                    (Payload::Inline(bytes), Some(hash)) => WirePayload::Held(hash, bytes.len() as u64),
                    (Payload::Inline(bytes), None) => WirePayload::Inline(bytes.to_vec()),
                    (Payload::Bulk(id, len), _) => WirePayload::Staged(*id, *len),
                    (Payload::Cancelled(len), _) => WirePayload::Cancelled(*len),
                }),
            };
            bytes += record.len() + HEADER_LEN;
            if !batch.is_empty() && bytes > piece.min(BATCH_TARGET) {
                break;
            }
            self.next += 1;
            batch.push(record);
        }
        (!batch.is_empty()).then_some(Message::Records(batch))
    }

    /// Bytes that are under way with all of it.
    pub fn under_way(&self) -> u64 {
        let bulk = |r: &LogRecord| match &r.payload {
            Some(payload @ Payload::Bulk(..)) => payload.size(),
            Some(Payload::Inline(_) | Payload::Cancelled(_)) | None => 0,
        };
        self.weight + self.txn.records.iter().map(bulk).sum::<u64>()
    }
}
