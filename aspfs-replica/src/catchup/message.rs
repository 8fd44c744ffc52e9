//! What a node that lacks a state asks, and what one that has it answers; and their bytes. See `docs/format/wire.md`.
//!
//! Every number is checked against its limit when it is read (promise G29).

use bincode::{Decode, Encode};
use vefs::format::incoming::Manifest;
use vefs::ids::{Epoch, Hash, Lineage, PayloadId, Position, VeId};
use vefs::{codec, limits};

use crate::blob::{self, BlobError, Kind};

/// Longest question in bytes, header included.
pub const ASK_MAX: usize = 64 << 10;
/// Longest answer in bytes, header included.
pub const ANSWER_MAX: usize = 4 << 20;
/// Most bytes of content in one answer.
pub const BYTES_MAX: usize = 1 << 20;
/// About so many bytes of keys and values a page has; one row always fits.
pub const PAGE_TARGET: usize = 1 << 20;
/// Most ranges of payload bytes that a page names.
pub const PAGE_RANGES_MAX: usize = 32 << 10;
/// Most objects that a page names.
pub const PAGE_OBJECTS_MAX: usize = 16 << 10;
/// Longest range of payload bytes.
pub const RANGE_MAX: u64 = 1 << 20;
/// Most ranges that are asked for at once.
pub const WANTED_MAX: usize = 1024;
/// Most objects that are asked for at once, and most parts in one answer.
pub const OBJECTS_MAX: usize = 1024;
/// Most bytes that are asked for at once.
pub const WANTED_BYTES_MAX: u64 = 16 << 20;
/// Most stretches that are compared at once.
pub const STRETCHES_MAX: usize = 192;
/// About so many bytes of keys and values a stretch has.
pub const STRETCH_TARGET: usize = 8 << 10;
/// Longest key of a row.
const KEY_MAX: usize = 9 + 255;
/// Longest value of a row.
const VALUE_MAX: usize = limits::XATTR_VALUE_MAX + 4096;
/// Longest tree or object.
const WHOLE_MAX: u64 = 1 << 40;

/// A question. Every one can be asked again at any time: the side that answers keeps nothing about the one that asks but a hold.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// Bytes of a base tree's file, from an offset on to the end.
    Tree {
        /// Its root hash.
        hash: Hash,
        /// From here on.
        offset: u64,
    },
    /// Objects, one after the other, the first of them from an offset on.
    Objects {
        /// Their names.
        wanted: Vec<Hash>,
        /// From here on.
        offset: u64,
    },
    /// The newest state, to be held for the node that asks. What it held before may be gone then.
    Snapshot {
        /// Of this VE.
        ve: VeId,
        /// Of this history.
        lineage: Lineage,
        /// What the node that asks has now.
        have: Position,
        /// The highest epoch that it has seen.
        epoch: Epoch,
    },
    /// A page of rows of a state.
    Rows {
        /// Of this VE.
        ve: VeId,
        /// Of this state.
        at: Position,
        /// Behind this key, or from the first one.
        after: Option<Vec<u8>>,
        /// Up to this key, or to the last one.
        upto: Option<Vec<u8>>,
        /// The highest epoch that the node that asks has seen.
        epoch: Epoch,
    },
    /// Which stretches of rows are the same as in a state.
    Compare {
        /// Of this VE.
        ve: VeId,
        /// With this state.
        at: Position,
        /// The first begins behind this key, or with the first one.
        after: Option<Vec<u8>>,
        /// Each begins where the one before ends.
        stretches: Vec<Stretch>,
        /// The highest epoch that the node that asks has seen.
        epoch: Epoch,
    },
    /// Payload bytes, range after range.
    Payloads {
        /// Of this VE.
        ve: VeId,
        /// As this state has them.
        at: Position,
        /// Which, with their lengths.
        wanted: Vec<(PayloadId, u64)>,
    },
    /// The state is installed: the hold may go.
    Done {
        /// Of this VE.
        ve: VeId,
        /// This state.
        at: Position,
    },
}

/// A stretch of rows of the node that asks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stretch {
    /// The key with which it ends.
    pub upto: Vec<u8>,
    /// [`Page::digest`] of its rows and what they name.
    pub digest: Hash,
}

/// Rows of a state, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Page {
    /// Key and encoded value.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// The payload bytes that the rows name: ranges with their BLAKE3.
    pub payloads: Vec<(PayloadId, u64, Hash)>,
    /// The objects that the rows name.
    pub objects: Vec<Hash>,
    /// Nothing comes behind these rows.
    pub last: bool,
}

/// Bytes of an object on their way.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Part {
    /// Of the whole object.
    pub total: u64,
    /// Where in it these begin.
    pub offset: u64,
    /// They, not empty unless all of it is.
    pub bytes: Vec<u8>,
}

/// Why a question is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Refused {
    /// There is no such VE here.
    UnknownVe,
    /// The VE here has another history.
    ForeignLineage,
    /// The state is not held any more: ask for the newest one.
    Gone,
    /// There is no such tree, object or payload here.
    NotHeld,
    /// Too much is going on: ask again later.
    Busy,
    /// The node that asks has seen a higher epoch than this one writes in.
    OldEpoch,
    /// The node that asks may not have this VE.
    NotAllowed,
    /// The question makes no sense.
    Malformed,
    /// The store failed.
    Store,
}

/// Part of an answer. A question is answered by one of them, or by several `Bytes` or `Parts` in order; `Working` may stand before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// The state to be had, and the epoch in which this node writes.
    Snapshot {
        /// What it is.
        manifest: Manifest,
        /// The epoch.
        epoch: Epoch,
    },
    /// Rows.
    Rows(Page),
    /// Bytes.
    Bytes {
        /// Of the whole tree, or of all ranges together.
        total: u64,
        /// Where in it these begin.
        offset: u64,
        /// They, not empty unless all of it is.
        bytes: Vec<u8>,
    },
    /// To `Done`.
    Released,
    /// Nothing for now, but soon.
    Working,
    /// No.
    Refused(Refused),
    /// Bytes of the objects that were asked for, in their order: what ends one is followed by the beginning of the next.
    Parts(Vec<Part>),
    /// Of each stretch whether it is the same here.
    Same(Vec<bool>),
}

impl Ask {
    /// The VE that it is about; trees and objects belong to none.
    pub fn ve(&self) -> Option<VeId> {
        match self {
            Ask::Tree { .. } | Ask::Objects { .. } => None,
            Ask::Snapshot { ve, .. }
            | Ask::Rows { ve, .. }
            | Ask::Compare { ve, .. }
            | Ask::Payloads { ve, .. }
            | Ask::Done { ve, .. } => Some(*ve),
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        blob::seal(Kind::Ask, self)
    }

    /// Reads one.
    pub fn decode(blob: &[u8]) -> Result<Ask, BlobError> {
        let ask: Ask = blob::open(Kind::Ask, ASK_MAX, blob)?;
        ask.fault().map_or(Ok(ask), |field| Err(BlobError::Field(field)))
    }

    fn fault(&self) -> Option<&'static str> {
        match self {
            Ask::Tree { offset, .. } | Ask::Objects { offset, .. } if *offset > WHOLE_MAX => Some("offset"),
            Ask::Objects { wanted, .. } if wanted.is_empty() || wanted.len() > OBJECTS_MAX => Some("objects"),
            Ask::Snapshot { have, epoch, .. } => {
                position_fault(have).or((epoch.0 > limits::COUNTER_MAX).then_some("epoch"))
            }
            Ask::Rows { at, after, upto, epoch, .. } => {
                let keys = [after, upto];
                keys_fault(keys.into_iter().flatten()).or(position_fault(at)).or(epoch_fault(*epoch))
            }
            Ask::Compare { stretches, .. } if stretches.is_empty() || stretches.len() > STRETCHES_MAX => {
                Some("stretches")
            }
            Ask::Compare { at, after, stretches, epoch, .. } => {
                let keys = after.iter().chain(stretches.iter().map(|s| &s.upto));
                keys_fault(keys).or(position_fault(at)).or(epoch_fault(*epoch))
            }
            Ask::Payloads { at, wanted, .. } => position_fault(at).or_else(|| wanted_fault(wanted)),
            Ask::Done { at, .. } => position_fault(at),
            _ => None,
        }
    }
}

impl Answer {
    /// Its bytes. `compress`: where that makes them fewer.
    pub fn encode(&self, compress: bool) -> Vec<u8> {
        if compress { blob::seal_smaller(Kind::Answer, self) } else { blob::seal(Kind::Answer, self) }
    }

    /// Bytes of a VE, a tree or objects in it.
    pub fn carried(&self) -> usize {
        match self {
            Answer::Rows(page) => page.len(),
            Answer::Bytes { bytes, .. } => bytes.len(),
            Answer::Parts(parts) => parts.iter().map(|p| p.bytes.len()).sum(),
            Answer::Snapshot { .. } | Answer::Released | Answer::Working | Answer::Refused(_) | Answer::Same(_) => 0,
        }
    }

    /// Reads one.
    pub fn decode(blob: &[u8]) -> Result<Answer, BlobError> {
        let answer: Answer = blob::open(Kind::Answer, ANSWER_MAX, blob)?;
        answer.fault().map_or(Ok(answer), |field| Err(BlobError::Field(field)))
    }

    fn fault(&self) -> Option<&'static str> {
        match self {
            Answer::Snapshot { manifest, epoch } if !manifest.is_sane() || epoch.0 > limits::COUNTER_MAX => {
                Some("manifest")
            }
            Answer::Rows(page) => page.fault(),
            Answer::Bytes { total, offset, bytes } => bytes_fault(*total, *offset, bytes),
            Answer::Parts(parts) if parts.is_empty() || parts.len() > OBJECTS_MAX => Some("parts"),
            Answer::Same(same) => (same.is_empty() || same.len() > STRETCHES_MAX).then_some("stretches"),
            Answer::Parts(_) if self.carried() > BYTES_MAX => Some("bytes"),
            Answer::Parts(parts) => parts.iter().find_map(|p| bytes_fault(p.total, p.offset, &p.bytes)),
            _ => None,
        }
    }
}

impl Page {
    /// About how many bytes it takes.
    pub fn len(&self) -> usize {
        let rows: usize = self.rows.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
        rows + self.payloads.len() * 56 + self.objects.len() * 32
    }

    /// What two pages have in common only if they are the same: rows and payload bytes. Numbers of payloads repeat on a branch, so that rows
    /// alone say nothing about bytes.
    pub fn digest(&self) -> Hash {
        Hash::of(&codec::encode(&(&self.rows, &self.payloads)))
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether it may be sent: a source halves its target until it is.
    pub fn fits(&self) -> bool {
        self.fault().is_none() && self.len() + 4096 <= ANSWER_MAX
    }

    fn fault(&self) -> Option<&'static str> {
        let bad_row =
            |(k, v): &(Vec<u8>, Vec<u8>)| k.is_empty() || k.len() > KEY_MAX || v.is_empty() || v.len() > VALUE_MAX;
        match () {
            () if self.rows.is_empty() && !self.last => Some("rows"),
            () if self.rows.iter().any(bad_row) => Some("rows"),
            () if !self.rows.is_sorted_by(|a, b| a.0 < b.0) => Some("order of rows"),
            () if self.objects.len() > PAGE_OBJECTS_MAX => Some("objects"),
            () if self.payloads.len() > PAGE_RANGES_MAX => Some("ranges"),
            () => self.payloads.iter().find_map(|(id, len, _)| range_fault(*id, *len)),
        }
    }
}

fn bytes_fault(total: u64, offset: u64, bytes: &[u8]) -> Option<&'static str> {
    let inside = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= total);
    let empty = bytes.is_empty() && total > 0;
    (!inside || empty || total > WHOLE_MAX || bytes.len() > BYTES_MAX).then_some("bytes")
}

fn keys_fault<'a>(keys: impl Iterator<Item = &'a Vec<u8>> + Clone) -> Option<&'static str> {
    let bad = keys.clone().any(|k| k.is_empty() || k.len() > KEY_MAX) || !keys.is_sorted_by(|a, b| a < b);
    bad.then_some("key")
}

fn epoch_fault(epoch: Epoch) -> Option<&'static str> {
    (epoch.0 > limits::COUNTER_MAX).then_some("epoch")
}

fn position_fault(p: &Position) -> Option<&'static str> {
    (p.txn.0 > limits::COUNTER_MAX || p.epoch.0 > limits::COUNTER_MAX).then_some("position")
}

fn range_fault(id: PayloadId, len: u64) -> Option<&'static str> {
    let bad = id.txn.0 > limits::COUNTER_MAX || id.offset > limits::COUNTER_MAX || len == 0 || len > RANGE_MAX;
    bad.then_some("range")
}

fn wanted_fault(wanted: &[(PayloadId, u64)]) -> Option<&'static str> {
    if wanted.is_empty() || wanted.len() > WANTED_MAX {
        return Some("ranges");
    }
    let bad = wanted.iter().find_map(|(id, len)| range_fault(*id, *len));
    bad.or((wanted.iter().map(|(_, len)| len).sum::<u64>() > WANTED_BYTES_MAX).then_some("ranges"))
}
