//! Payloads whose bytes this node has elsewhere too: their hashes are enough for a node that has them as well.

use std::sync::Arc;

use bytes::Bytes;

use super::Ve;
use super::feed::{FeedPayload, FeedTxn};
use crate::change::Body;
use crate::codec;
use crate::ids::{Hash, PayloadId};
use crate::store::contents::{self, CONTENT_MIN};

impl Ve {
    /// Of each record of a transaction of this VE: the hash of its inline payload, where another payload or a template's file here has the same bytes.
    /// The payloads are known from now on.
    pub fn alike(self: &Arc<Ve>, txn: &FeedTxn) -> Vec<Option<Hash>> {
        contents::learn(&self.shared, self.identity.base);
        let mut offset = 0;
        let mut one = |payload: &Option<FeedPayload>, body: &Bytes| {
            let len = payload.as_ref()?.size();
            let id = PayloadId { txn: txn.position.txn, offset };
            offset += len;
            if len < CONTENT_MIN || !matches!(payload, Some(FeedPayload::Inline(_))) {
                return None;
            }
            // An inline payload's body has its hash.
            let hash = codec::decode::<Body>(body).ok()?.payload?.hash?;
            self.shared.contents.note(self, id, hash).then_some(hash)
        };
        txn.records.iter().map(|r| one(&r.payload, &r.body)).collect()
    }

    /// Bytes of this hash and length from wherever this node has them, proved by the hash.
    pub fn bytes_alike(&self, hash: Hash, len: u64) -> Option<Bytes> {
        contents::learn(&self.shared, self.identity.base);
        self.shared.contents.find(&self.shared, hash, len)
    }
}
