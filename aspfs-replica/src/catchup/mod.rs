//! Catching up: a node gets a whole state of a VE from one that has it, where the journal no longer reaches back to what it has, where it has
//! nothing yet, and where its own history went another way (rewinding is the same: promise G23).
//!
//! The node that lacks the state asks ([`Puller`]), question after question, each on a stream of its own; the one that has it answers
//! ([`Serving`]) and remembers nothing but a hold on the state. So either side may stop at any time: a puller goes on from the last key
//! that its [`Install`] has durably, and begins anew where the state is not held any more.
//!
//! What the present state of the node that lacks one has in common with it is not sent again: stretches of rows are compared by their hashes, and
//! those that are the same are taken from here, as are payload bytes and objects of those that are not.
//!
//! Order, and why it is safe: the base tree, its objects, then page after page of rows, each behind the objects and payload bytes that it
//! names. What is content is proved by its hash when it comes, the rows by the state root at the end. Until then the old state is
//! untouched (promises G9, G23). A state is put in place only if the node that sent it writes in an epoch not below the highest seen (promise G10).
//!
//! Objects and ranges are asked for many at a time, so that a link's delay is paid once for a thousand small files, and what is taken in is
//! made durable together.
//!
//! Memory: one page, one answer, and the names, or the rows of all stretches, of one question.

mod message;
mod pull;
mod serve;

use vefs::format::incoming::Manifest;
use vefs::ids::{Epoch, Hash, Lineage, PayloadId, Position, VeId};

pub use crate::blob::BlobError;
use crate::node::NodeId;
pub use message::{
    ANSWER_MAX, ASK_MAX, Answer, Ask, BYTES_MAX, OBJECTS_MAX, PAGE_TARGET, Page, Part, RANGE_MAX, Refused,
    STRETCH_TARGET, STRETCHES_MAX, Stretch, WANTED_BYTES_MAX, WANTED_MAX,
};
pub use pull::{Action, GiveUp, Puller};
pub use serve::Serving;

/// Which rows are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Of this VE.
    pub ve: VeId,
    /// Of this state.
    pub at: Position,
    /// Behind this key, or from the first one.
    pub after: Option<&'a [u8]>,
    /// Up to this key, or to the last one.
    pub upto: Option<&'a [u8]>,
    /// The highest epoch that the node that asks has seen.
    pub epoch: Epoch,
}

/// What serves states: a primary's VEs, trees and objects.
pub trait Source {
    /// Holds the newest durable state for `peer`, and the history behind it; what was held for it before may go. Also the epoch in which
    /// this node writes the VE. Where `peer` has seen a higher one: [`Refused::OldEpoch`].
    fn snapshot(
        &mut self,
        peer: NodeId,
        ve: VeId,
        lineage: Lineage,
        have: Position,
        epoch: Epoch,
    ) -> Result<(Manifest, Epoch), Refused>;
    /// Rows of a held state between two keys, about `max` bytes and at least one row, if there is one. Where `peer` has seen a higher epoch than this
    /// node writes in: [`Refused::OldEpoch`].
    fn rows(&mut self, peer: NodeId, of: &Rows<'_>, max: usize) -> Result<Page, Refused>;
    /// Payload bytes as a held state has them, all `len` of them (to [`RANGE_MAX`]).
    fn payload(&mut self, peer: NodeId, ve: VeId, at: Position, id: PayloadId, len: u64) -> Result<Vec<u8>, Refused>;
    /// The length of a base tree's file, and up to `max` bytes of it.
    fn tree(&mut self, hash: Hash, offset: u64, max: usize) -> Result<(u64, Vec<u8>), Refused>;
    /// The length of an object, and up to `max` bytes of it.
    fn object(&mut self, hash: Hash, offset: u64, max: usize) -> Result<(u64, Vec<u8>), Refused>;
    /// `peer` has installed the state: its hold goes; the history behind it stays held for it.
    fn done(&mut self, peer: NodeId, ve: VeId, at: Position) -> Result<(), Refused>;
}

/// Why a store did not take part of a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// It is not what its hash says, or makes no sense. What there was of it is dropped.
    #[error("part of a state is not what its hash says: {0}")]
    Corrupt(String),
    /// The store failed or is full.
    #[error("the store failed: {0}")]
    Store(String),
}

/// What takes a state in. Everything that was put stays across a restart or is asked for again; nothing of the present state changes before
/// [`Install::finish`].
pub trait Install {
    /// The highest epoch of the VE that this node has seen.
    fn highest_epoch(&self) -> Epoch;
    /// The state that was begun and not finished, if there is one.
    fn under_way(&mut self) -> Result<Option<Manifest>, InstallError>;
    /// Whether the base tree is here whole.
    fn has_tree(&mut self, root: Hash) -> Result<bool, InstallError>;
    /// How many bytes of a tree that is not whole are here.
    fn tree_so_far(&mut self, root: Hash) -> u64;
    /// Adds bytes of a tree at its end; with the last ones it is proved and here.
    fn put_tree(&mut self, root: Hash, total: u64, offset: u64, bytes: &[u8]) -> Result<(), InstallError>;
    /// The first objects behind `after`, in the order of hashes and at most `max`, that the base tree names and that are not here.
    fn missing_of_tree(&mut self, root: Hash, after: Option<Hash>, max: usize) -> Result<Vec<Hash>, InstallError>;
    /// Whether an object is here whole; it stays until the state is finished or abandoned.
    fn has_object(&mut self, hash: Hash) -> Result<bool, InstallError>;
    /// How many bytes of an object that is not whole are here.
    fn object_so_far(&mut self, hash: Hash) -> u64;
    /// Adds bytes of an object at its end; with the last ones it is proved. It is here when it is next asked about, if not before.
    fn put_object(&mut self, hash: Hash, total: u64, offset: u64, bytes: &[u8]) -> Result<(), InstallError>;
    /// Rows of the present state behind a key, about `max` bytes and at least one row, with what they name; `None` where there are no more, or
    /// where there is nothing to compare with.
    fn own_page(&mut self, after: Option<&[u8]>, max: usize) -> Option<Page>;
    /// Begins with a state, or goes on with it; another one that was begun is dropped. The base tree is here. The key behind which rows are wanted.
    fn begin(&mut self, manifest: &Manifest) -> Result<Option<Vec<u8>>, InstallError>;
    /// Whether a range of payload bytes is here; may take it from the present state.
    fn has_payload(&mut self, id: PayloadId, len: u64, hash: Hash) -> Result<bool, InstallError>;
    /// Adds payload bytes, which were proved.
    fn put_payload(&mut self, id: PayloadId, bytes: &[u8]) -> Result<(), InstallError>;
    /// Adds rows in the order of their keys, all of whose bytes and objects are here. The store makes them durable when it sees fit.
    fn put_rows(&mut self, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), InstallError>;
    /// Everything is there: proves it by the state root and puts it in place of the present state, durably.
    fn finish(&mut self) -> Result<(), InstallError>;
    /// Drops what was begun.
    fn abandon(&mut self) -> Result<(), InstallError>;
}
