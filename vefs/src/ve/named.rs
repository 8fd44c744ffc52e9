//! Objects that have the bytes of a payload: between two nodes that have them both, the name is enough.
//!
//! An inline payload's record has the BLAKE3 of its bytes, and an object is named by the BLAKE3 of its own: a small file that is written in
//! one piece, as what unpacks a package does, is found by its name wherever a template or another VE has the same.

use bytes::Bytes;

use super::Ve;
use super::feed::{FeedPayload, FeedRecord};
use crate::change::Body;
use crate::codec;
use crate::error::Result;
use crate::ids::Hash;
use crate::object::Pin;

/// Payloads below this travel sooner than a question about them would.
const NAMED_MIN: usize = 8 << 10;

impl Ve {
    /// The object of this store that has exactly the bytes of a record's payload.
    pub fn object_of(&self, record: &FeedRecord) -> Option<Hash> {
        let Some(FeedPayload::Inline(bytes)) = &record.payload else { return None };
        if bytes.len() < NAMED_MIN {
            return None;
        }
        let hash = codec::decode::<Body>(&record.body).ok()?.payload?.hash?;
        self.shared.objects.contains(hash).unwrap_or(false).then_some(hash)
    }

    /// Keeps an object of this store from removal, if it is there.
    pub fn hold_object(&self, hash: Hash) -> Result<Option<Pin>> {
        let pin = self.shared.objects.pin(hash);
        Ok(self.shared.objects.contains(hash)?.then_some(pin))
    }

    /// All bytes of an object, checked; `None` when it has another length.
    pub fn object_bytes(&self, hash: Hash, len: u64) -> Result<Option<Bytes>> {
        let object = self.shared.objects.open(hash)?;
        if object.len() != len {
            return Ok(None);
        }
        let mut bytes = vec![0; len as usize];
        object.read_at(&mut bytes, 0)?;
        Ok(Some(Bytes::from(bytes)))
    }
}
