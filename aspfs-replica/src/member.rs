//! What the members of a VE (its primary, its replicas) ask each other beside streams and states: how they stand, to join an epoch, for a lease,
//! to take over. One question blob, one reply blob; see `docs/format/wire.md`. Who asks is the transport's knowledge: a question that
//! concerns the asker does not name it.
//!
//! Every question may be asked again: each is answered the same way the second time.

use bincode::{Decode, Encode};
use vefs::ids::{Epoch, Lineage, Position, TxnNo, VeId};
use vefs::limits::COUNTER_MAX;

use crate::blob::{self, BlobError, Kind};
use crate::node::NodeId;

/// Longest question or reply in bytes.
pub const LEN_MAX: usize = 4096;
/// Longest lease and longest wait in milliseconds.
const MS_MAX: u64 = 600_000;

/// What a node does with a VE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Part {
    /// Writes it, or would if it had its lease.
    Primary,
    /// Follows.
    Replica,
    /// Wrote it, and knows of a higher epoch.
    Superseded,
}

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Standing {
    /// What it does.
    pub part: Part,
    /// What it has, durably.
    pub position: Position,
    /// The highest epoch that it has seen or writes in.
    pub epoch: Epoch,
    /// It stepped down for this node, and for nobody else.
    pub successor: Option<NodeId>,
    /// This node, as the primary, recorded with it that it may lag: only that one has everything.
    pub lagging: Option<NodeId>,
}

/// Which of two sayings of a node is the later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stamp {
    /// Random, another one each time the node's daemon starts.
    pub process: u64,
    /// It grows in one process.
    pub number: u64,
}

impl Stamp {
    /// Whether the node said something later than this before. Of two processes the one that is heard of is the present one.
    pub fn is_behind(&self, heard: &Stamp) -> bool {
        self.process == heard.process && self.number < heard.number
    }
}

/// A question about a VE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Question {
    /// How do you stand?
    Standing {
        /// Of this history.
        lineage: Lineage,
    },
    /// What is your position after this transaction?
    At(TxnNo),
    /// Join me in this epoch: I am to be the primary.
    Join(Epoch),
    /// Let me write in this epoch for so many milliseconds.
    Lease(Epoch, u64),
    /// I, primary in this epoch, may lag; or do not any more. What I said before does not count, and what I say later does, in whichever order they come.
    Lagging(Epoch, bool, Stamp),
    /// I write no more in this epoch or a lower one, durably.
    Over(Epoch),
    /// I have stepped down for you, in favour of this epoch, at this position, which is your head.
    Take(Epoch, Position),
    /// I am the primary in this epoch, behind this position.
    Promoted(Epoch, Position),
}

/// Why a member says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum No {
    /// There is no such VE here, or one of another lineage.
    Stranger,
    /// This epoch was seen, joined or is written in: none up to it is good enough.
    Epoch(Epoch),
    /// A promise ends only after so many milliseconds.
    NotYet(u64),
    /// The position is not the one that is here.
    Position,
    /// It makes no sense for what this node does with the VE.
    Part,
    /// The store failed, or nothing is known now.
    Failed,
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// To `Standing`.
    Standing(Standing),
    /// To `At`: the position, if it has come so far and is still known; whether it has come so far; and, at a primary, the
    /// position behind which its epoch's own history begins.
    At {
        /// The position.
        position: Option<Position>,
        /// It has not come so far.
        beyond: bool,
        /// Where the primary took over.
        fork: Position,
    },
    /// Joined; this is the head, durably, and nothing of a lower epoch comes behind it any more; and the node of `Standing::lagging`.
    Joined(Position, Option<NodeId>),
    /// What was asked is done.
    Done,
    /// It is not.
    No(No),
}

#[derive(Encode, Decode)]
struct About<T> {
    ve: VeId,
    what: T,
}

fn position_is_sane(p: &Position) -> bool {
    p.txn.0 <= COUNTER_MAX && p.epoch.0 <= COUNTER_MAX
}

impl Question {
    /// Its bytes.
    pub fn encode(&self, ve: VeId) -> Vec<u8> {
        blob::seal(Kind::Question, &About { ve, what: *self })
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<(VeId, Question), BlobError> {
        let About { ve, what } = blob::open::<About<Question>>(Kind::Question, LEN_MAX, bytes)?;
        if what.is_sane() { Ok((ve, what)) } else { Err(BlobError::Field("number")) }
    }

    /// Whether its numbers are in their bounds.
    pub fn is_sane(&self) -> bool {
        let (epoch, rest) = match self {
            Question::Standing { .. } => (Epoch(0), true),
            Question::At(txn) => (Epoch(0), txn.0 <= COUNTER_MAX),
            Question::Join(epoch) | Question::Lagging(epoch, ..) | Question::Over(epoch) => (*epoch, true),
            Question::Lease(epoch, ms) => (*epoch, *ms <= MS_MAX),
            Question::Take(epoch, p) | Question::Promoted(epoch, p) => (*epoch, position_is_sane(p)),
        };
        rest && epoch.0 <= COUNTER_MAX
    }
}

impl Reply {
    /// Its bytes.
    pub fn encode(&self, ve: VeId) -> Vec<u8> {
        blob::seal(Kind::Reply, &About { ve, what: *self })
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<(VeId, Reply), BlobError> {
        let About { ve, what } = blob::open::<About<Reply>>(Kind::Reply, LEN_MAX, bytes)?;
        if what.is_sane() { Ok((ve, what)) } else { Err(BlobError::Field("number")) }
    }

    /// Whether its numbers are in their bounds.
    pub fn is_sane(&self) -> bool {
        match self {
            Reply::Standing(s) => position_is_sane(&s.position) && s.epoch.0 <= COUNTER_MAX,
            Reply::At { position, fork, .. } => position.iter().chain([fork]).all(position_is_sane),
            Reply::Joined(p, _) => position_is_sane(p),
            Reply::No(No::Epoch(e)) => e.0 <= COUNTER_MAX,
            Reply::No(No::NotYet(ms)) => *ms <= MS_MAX,
            Reply::Done | Reply::No(_) => true,
        }
    }
}
