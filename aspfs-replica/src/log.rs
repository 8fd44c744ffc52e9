//! The two sides' histories as the machines see them: [`Log`] at a primary, [`Follower`] at a replica. A VE implements them over
//! its journal; a simulator in memory.

use bytes::Bytes;
use vefs::content::InBody;
use vefs::ids::{Epoch, Hash, PayloadId, Position, TxnNo};
pub use vefs::ve::{Feed as LogRead, FeedPayload as Payload, FeedRecord as LogRecord, FeedTxn as LogTxn, Known as At};

use crate::wire::Chunk;

/// The history could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the VE's history cannot be read: {0}")]
pub struct LogError(pub String);

/// A primary's history. Only what is durable on its own disk is in it (promise G12).
pub trait Log {
    /// The last sealed and durable transaction.
    fn durable(&self) -> Position;
    /// The epoch in which it writes; never below that of `durable`.
    fn epoch(&self) -> Epoch;
    /// Root hash of the base tree.
    fn base(&self) -> Hash;
    /// The position after the transaction `txn`. Transaction 0 is the empty state: chain hash zero.
    fn position_at(&self, txn: TxnNo) -> At;
    /// The transaction after `after`.
    fn read(&self, after: TxnNo) -> Result<LogRead, LogError>;
    /// Bytes of a bulk payload.
    fn payload(&self, id: PayloadId, offset: u64, len: usize) -> Result<Bytes, LogError>;
    /// Where in a file's body a bulk payload lies, if that body is kept in one piece.
    fn in_body(&self, id: PayloadId) -> Result<Option<InBody>, LogError>;
    /// Of each record: the hash of its inline payload, where this node has the same bytes elsewhere too, and so the replica may.
    fn alike(&self, txn: &LogTxn) -> Vec<Option<Hash>>;
}

/// Why a replica's store did not take a transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// What it holds is not what its hashes say. Nothing was changed.
    #[error("transaction {} is not what its hashes say: {detail}", .txn.0)]
    Corrupt {
        /// Which.
        txn: TxnNo,
        /// What was found.
        detail: String,
    },
    /// The store failed or is full. Nothing was acknowledged.
    #[error("the replica's store failed: {0}")]
    Store(String),
}

/// A replica's history and its store.
pub trait Follower {
    /// Root hash of the base tree.
    fn base(&self) -> Hash;
    /// The last transaction taken, durable or not.
    fn head(&self) -> Position;
    /// The last transaction that is durable.
    fn durable(&self) -> Position;
    /// The highest epoch ever seen, as it is on disk.
    fn highest_epoch(&self) -> Epoch;
    /// Raises it. Durable when this returns (promise G10).
    fn note_epoch(&mut self, epoch: Epoch) -> Result<(), FollowError>;
    /// Puts a part of a bulk payload aside, behind those that came before. They may be dropped at a restart.
    fn stage(&mut self, chunk: &Chunk) -> Result<(), FollowError>;
    /// Drops the parts of payloads that did not come whole: they are sent again from the beginning.
    fn forget_parts(&mut self) {}
    /// Drops everything that is staged.
    fn unstage_all(&mut self);
    /// Which bytes of these hashes and lengths are here, elsewhere. They are proved, and kept until [`Follower::release`].
    fn hold(&mut self, wanted: &[(Hash, u64)]) -> Vec<bool>;
    /// Nothing is held any more.
    fn release(&mut self);
    /// Bytes that are held.
    fn held(&self, hash: Hash) -> Option<Bytes>;
    /// Takes the transaction behind the head: proves it against its chain hash and payload hashes, journals and applies it. All or
    /// nothing. Bulk payloads are staged whole before, and are taken or dropped.
    fn receive(&mut self, txn: &LogTxn) -> Result<(), FollowError>;
    /// Makes everything received durable, and says up to where.
    fn sync(&mut self) -> Result<Position, FollowError>;
}
