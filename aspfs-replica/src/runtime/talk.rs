//! What nodes ask each other beside streams and whole states: how far a replica is, to take a VE over, that a VE is no more. One request blob, one
//! answer. See `docs/format/wire.md`.

use bincode::{Decode, Encode};
use vefs::codec::{self, CodecError};
use vefs::ids::{Epoch, Hash, Lineage, Position, VeId};
use vefs::limits::COUNTER_MAX;

use super::stake::Beyond;
use crate::member;
use crate::node::NodeId;

/// Magic bytes of a question and its answer.
pub const MAGIC: [u8; 4] = *b"ATLK";
/// Longest question or answer in bytes.
pub const LEN_MAX: usize = 4096;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Question {
    /// How far is this VE with you?
    Position {
        /// Which.
        ve: VeId,
        /// Of this history.
        lineage: Lineage,
    },
    /// Write this VE from now on: I have stepped down, and this was my last position.
    TakeOver {
        /// Which.
        ve: VeId,
        /// My last position, which you have.
        position: Position,
        /// The highest epoch that I have seen.
        epoch: Epoch,
    },
    /// The VE was destroyed: destroy it, and remember.
    Destroyed {
        /// Which.
        ve: VeId,
        /// Its history.
        lineage: Lineage,
    },
    /// Somebody whom I do not know as one of the VE's nodes greets me in this epoch. Is it one, to your knowledge, which reaches as far?
    Member {
        /// Which VE.
        ve: VeId,
        /// Of this history.
        lineage: Lineage,
        /// Who.
        node: NodeId,
        /// The epoch.
        epoch: Epoch,
    },
    /// What is the logical root of this version with you?
    Root {
        /// Of which VE.
        ve: VeId,
        /// Which version.
        position: Position,
    },
    /// What have you beyond this position, which is how far I am?
    Beyond {
        /// Of which VE.
        ve: VeId,
        /// My position.
        position: Position,
    },
    /// Who may write it, where the required replicas say so.
    Right {
        /// Which VE.
        ve: VeId,
        /// Of this history.
        lineage: Lineage,
        /// The question.
        what: member::Question,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// So far, durably; the highest epoch seen; whether this node writes the VE.
    At {
        /// The position.
        position: Position,
        /// The epoch.
        epoch: Epoch,
        /// Whether it is written there.
        writes: bool,
    },
    /// It is written here now, in this epoch.
    Taken(Epoch),
    /// It is done.
    Done,
    /// The VE was destroyed.
    Destroyed,
    /// No, and why.
    No(String),
    /// The asker is none of the VE's nodes here (promise G30).
    Stranger,
    /// The logical root.
    Root(Hash),
    /// So much.
    Beyond(Beyond),
    /// To a question about who may write.
    Right(member::Reply),
}

/// Why bytes are no question or answer.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// Too long, or not begun with the magic bytes.
    #[error("not a question or answer between nodes")]
    Frame,
    /// A number is out of range.
    #[error("an impossible number")]
    Number,
    /// It does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

fn seal(value: &impl Encode) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    codec::encode_into(value, &mut out);
    out
}

fn open(blob: &[u8]) -> Result<&[u8], TalkError> {
    blob.strip_prefix(&MAGIC).filter(|_| blob.len() <= LEN_MAX).ok_or(TalkError::Frame)
}

fn sane(position: &Position, epoch: Epoch) -> Result<(), TalkError> {
    let all = [position.txn.0, position.epoch.0, epoch.0];
    if all.into_iter().all(|n| n <= COUNTER_MAX) { Ok(()) } else { Err(TalkError::Number) }
}

impl Question {
    /// The VE that it is about.
    pub fn ve(&self) -> VeId {
        match self {
            Question::Position { ve, .. }
            | Question::TakeOver { ve, .. }
            | Question::Destroyed { ve, .. }
            | Question::Member { ve, .. }
            | Question::Root { ve, .. }
            | Question::Beyond { ve, .. }
            | Question::Right { ve, .. } => *ve,
        }
    }

    /// Whether a request is one of these.
    pub fn is(blob: &[u8]) -> bool {
        blob.starts_with(&MAGIC)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        seal(self)
    }

    /// Reads one.
    pub fn decode(blob: &[u8]) -> Result<Question, TalkError> {
        let question: Question = codec::decode(open(blob)?)?;
        match &question {
            Question::TakeOver { position, epoch, .. } => sane(position, *epoch)?,
            Question::Member { epoch, .. } => sane(&Position::default(), *epoch)?,
            Question::Root { position, .. } | Question::Beyond { position, .. } => sane(position, position.epoch)?,
            Question::Right { what, .. } if !what.is_sane() => return Err(TalkError::Number),
            Question::Position { .. } | Question::Destroyed { .. } | Question::Right { .. } => {}
        }
        Ok(question)
    }
}

impl Reply {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        seal(self)
    }

    /// Reads one.
    pub fn decode(blob: &[u8]) -> Result<Reply, TalkError> {
        let reply: Reply = codec::decode(open(blob)?)?;
        match &reply {
            Reply::At { position, epoch, .. } => sane(position, *epoch)?,
            Reply::Taken(epoch) => sane(&Position::default(), *epoch)?,
            Reply::Right(what) if !what.is_sane() => return Err(TalkError::Number),
            Reply::Right(_) => {}
            Reply::Done | Reply::Destroyed | Reply::Stranger | Reply::No(_) | Reply::Root(_) | Reply::Beyond(_) => {}
        }
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_go_there_and_back() {
        let (ve, lineage) = (VeId(7), Lineage([3; 16]));
        let position = Position { lineage, ..Position::default() };
        for q in [
            Question::Position { ve, lineage },
            Question::TakeOver { ve, position, epoch: Epoch(1 << 33) },
            Question::Destroyed { ve, lineage },
            Question::Member { ve, lineage, node: NodeId([9; 16]), epoch: Epoch(1 << 33) },
            Question::Root { ve, position },
            Question::Beyond { ve, position },
            Question::Right { ve, lineage, what: member::Question::Lease(Epoch(1 << 33), 3000) },
        ] {
            assert!(Question::is(&q.encode()));
            assert_eq!(Question::decode(&q.encode()).unwrap(), q);
        }
        for r in [
            Reply::At { position, epoch: Epoch(5), writes: true },
            Reply::Taken(Epoch(9)),
            Reply::Done,
            Reply::No("x".into()),
            Reply::Stranger,
            Reply::Root(Hash([4; 32])),
            Reply::Beyond(Beyond { txns: 3, files: 2, bytes: 1 << 40, whole: true, diverged: false }),
            Reply::Right(member::Reply::Joined(position, Some(NodeId([9; 16])))),
        ] {
            assert_eq!(Reply::decode(&r.encode()).unwrap(), r);
        }
        let far = Position { txn: vefs::ids::TxnNo(u64::MAX), ..position };
        for over in [
            Question::TakeOver { ve, position, epoch: Epoch(u64::MAX) },
            Question::Member { ve, lineage, node: NodeId([9; 16]), epoch: Epoch(u64::MAX) },
            Question::Root { ve, position: far },
            Question::Beyond { ve, position: far },
            Question::Right { ve, lineage, what: member::Question::Join(Epoch(u64::MAX)) },
        ] {
            assert!(matches!(Question::decode(&over.encode()), Err(TalkError::Number)));
        }
        for bad in [&b""[..], b"ATLK", b"APUL\x01", &[0; 5000]] {
            assert!(Question::decode(bad).is_err() && Reply::decode(bad).is_err());
        }
    }
}
