//! Crash runs of the core: a sequence of operations is recorded call by call, every disk that a power cut may leave is
//! built, and each is opened and held against the model.
//!
//! What is demanded of a state (see [`check`]): it equals the model after some operation k, whole, with
//! last synced ≤ k ≤ issued (promises G1, G2); k is everything answered where only the daemon died (G31); the store takes
//! another operation; and a crash at any point of that recovery leaves the same k (checked for a sample).
//!
//! The metadata store takes part: after a power cut it holds its state after *any* batch from the last persist on, and a
//! state is opened with each of these.

pub mod check;
pub mod damage;
pub mod meta;
pub mod ops;
pub mod probe;
pub mod record;
pub mod sweep;
pub mod world;

/// What a mark in the log says. Operations are counted from 1, metadata batches from 0 (what was there before).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The operation begins.
    Issued(usize),
    /// The operation was answered.
    Answered(usize),
    /// Everything up to this operation was acknowledged as durable.
    Synced(usize),
    /// The metadata store took this batch.
    Batch(usize),
    /// The metadata store says that it keeps everything up to this batch.
    Persisted(usize),
}

const NUMBER: u64 = (1 << 56) - 1;

impl Mark {
    /// As the recorder keeps it.
    pub fn to_number(self) -> u64 {
        let (kind, n) = match self {
            Mark::Issued(n) => (1, n),
            Mark::Answered(n) => (2, n),
            Mark::Synced(n) => (3, n),
            Mark::Batch(n) => (4, n),
            Mark::Persisted(n) => (5, n),
        };
        kind << 56 | n as u64
    }

    /// The mark of a number; `None` for a number that is none.
    pub fn from_number(number: u64) -> Option<Mark> {
        let n = (number & NUMBER) as usize;
        match number >> 56 {
            1 => Some(Mark::Issued(n)),
            2 => Some(Mark::Answered(n)),
            3 => Some(Mark::Synced(n)),
            4 => Some(Mark::Batch(n)),
            5 => Some(Mark::Persisted(n)),
            _ => None,
        }
    }
}
