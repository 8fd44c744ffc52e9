//! What the two sides of a replica's stream say to each other.
//!
//! Record bodies and seals travel as the bytes that the journal has: they are what the chain hash covers, so they are neither
//! decoded nor encoded again here.

use bincode::{Decode, Encode};
use vefs::content::InBody;
use vefs::ids::{Epoch, Hash, PayloadId, Position, TxnNo};
use vefs::limits;

use super::WireError;
use crate::node::NodeId;

/// Most payload bytes in one chunk.
pub const CHUNK_MAX: usize = 256 << 10;
/// A slow link's chunks are smaller, but not than this.
pub const CHUNK_MIN: usize = 4 << 10;
/// Most bytes of bodies and inline payloads that a batch of records holds, unless it is one record.
pub const BATCH_TARGET: usize = 256 << 10;
/// Most bytes that a primary has unacknowledged when another transaction begins.
pub const AHEAD_MAX: u64 = 64 << 20;
/// Most payloads in one question.
pub const HAVE_MAX: usize = 1024;
/// Most payloads that a replica can say it has staged.
pub const STAGED_MAX: usize = 1024;
/// Bytes that a message may take beside what it carries.
const SLACK: usize = 4096;

/// A record as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireRecord {
    /// The encoded body: the bytes under the chain hash.
    pub body: Vec<u8>,
    /// Its payload.
    pub payload: Option<WirePayload>,
}

/// Where a record's payload is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WirePayload {
    /// Here.
    Inline(Vec<u8>),
    /// In chunks that come before the transaction, under this id and of this length.
    Staged(PayloadId, u64),
    /// Those of this hash and length that the replica has said that it holds.
    Held(Hash, u64),
    /// Nowhere: of so many bytes nothing is left when the transaction ends.
    Cancelled(u64),
}

/// The primary's first word in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Who speaks.
    pub node: NodeId,
    /// How far it is, durably. Its lineage is the one it will ship.
    pub position: Position,
    /// Root hash of the VE's base tree.
    pub base: Hash,
}

/// The replica's answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// Who speaks.
    pub node: NodeId,
    /// How far it is, durably.
    pub position: Position,
    /// Payloads of the primary's epoch that are staged whole, so that they need not be sent again.
    pub staged: Vec<(PayloadId, u64)>,
}

/// A transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Begin {
    /// The position after it.
    pub position: Position,
    /// Chain hash before it.
    pub previous: Hash,
    /// Number of its records.
    pub records: u32,
    /// Frames of bulk of this session that come before it: the last of the transaction's own chunks, and what went ahead of that.
    pub bulk: u64,
}

/// Part of a payload, ahead of its record, on the session's stream of bulk.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Chunk {
    /// Which payload.
    pub id: PayloadId,
    /// Bytes of the whole payload.
    pub total: u64,
    /// Where in the payload this begins.
    pub offset: u64,
    /// Where the primary has the payload, if it keeps the file's body in one piece.
    pub within: Option<InBody>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Why a side does not go on. Counted by name; the session ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Refusal {
    /// The history is another VE's.
    ForeignLineage,
    /// The base tree is another one, or not here.
    ForeignBase,
    /// A higher epoch than the sender's has been seen.
    OldEpoch,
    /// The transaction does not follow the head.
    NotNext,
    /// Frames are missing before this one.
    Gap,
    /// Something out of turn.
    OutOfTurn,
    /// A payload is not staged.
    PayloadMissing,
    /// More is staged than allowed.
    StagingFull,
    /// What the transaction holds is not what its hashes say.
    Corrupt,
    /// More records or bytes than one transaction has.
    TooLarge,
    /// The replica's store failed or is full.
    Store,
    /// Both histories went on from a common position.
    Diverged,
    /// The journal does not reach back to the replica's position: it needs a whole state.
    TooOld,
    /// The VE is not here yet, or not ready: the replica gets a whole state first.
    NotReady,
    /// The VE was destroyed (promise G34).
    Destroyed,
    /// The node writes the VE itself, in an epoch that is not lower.
    Primary,
    /// The sender is none of the VE's nodes, as its policy here has them (promise G30).
    Stranger,
}

impl Refusal {
    /// Its name, as people and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::ForeignLineage => "foreign lineage",
            Refusal::ForeignBase => "foreign base tree",
            Refusal::OldEpoch => "old epoch",
            Refusal::NotNext => "not the next transaction",
            Refusal::Gap => "frames missing",
            Refusal::OutOfTurn => "out of turn",
            Refusal::PayloadMissing => "payload missing",
            Refusal::StagingFull => "too much put aside",
            Refusal::Corrupt => "corrupt",
            Refusal::TooLarge => "too large",
            Refusal::Store => "store failed",
            Refusal::Diverged => "diverged",
            Refusal::TooOld => "too far behind",
            Refusal::NotReady => "not ready yet",
            Refusal::Destroyed => "destroyed",
            Refusal::Primary => "written there",
            Refusal::Stranger => "none of the VE's nodes",
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// From the primary, first.
    Hello(Hello),
    /// From the replica, in answer.
    Welcome(Welcome),
    /// From the primary.
    Begin(Begin),
    /// From the primary, between `Begin` and `End`.
    Records(Vec<WireRecord>),
    /// From the primary: the encoded seal; the transaction is whole.
    End(Vec<u8>),
    /// From the primary, at any time after `Welcome`, and on the stream of bulk alone.
    Chunk(Chunk),
    /// From the replica: durable up to here (promise G11).
    Ack(Position),
    /// From either side: there is an epoch higher than yours.
    EpochNotice(Epoch),
    /// From either side.
    Refused(Refusal, TxnNo),
    /// From either side, answered by `Pong` with the same number.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// From the primary on the stream of bulk, where nothing else goes at present: what is missing before it shows by its number.
    BulkPing,
    /// From the primary: which bytes of these hashes and lengths are there?
    Have(Vec<(Hash, u64)>),
    /// From the replica, in the same order. It keeps them until it has taken the next transaction.
    Held(Vec<bool>),
}

/// The kind that a stream begins with.
pub const HELLO: u8 = 1;

/// Whether messages of this kind go on the stream of bulk.
pub fn is_bulk(kind: u8) -> bool {
    matches!(kind, 6 | 14)
}

impl Message {
    /// Whether it goes on the stream of bulk.
    pub fn is_bulk(&self) -> bool {
        is_bulk(self.kind())
    }

    /// The number of its kind.
    pub fn kind(&self) -> u8 {
        match self {
            Message::Hello(_) => HELLO,
            Message::Welcome(_) => 2,
            Message::Begin(_) => 3,
            Message::Records(_) => 4,
            Message::End(_) => 5,
            Message::Chunk(_) => 6,
            Message::Ack(_) => 7,
            Message::EpochNotice(_) => 8,
            Message::Refused(..) => 9,
            Message::Ping(_) => 10,
            Message::Pong(_) => 11,
            Message::Have(_) => 12,
            Message::Held(_) => 13,
            Message::BulkPing => 14,
        }
    }

    /// Longest body of a kind in bytes, before compression; `None` for a kind that is not known.
    pub fn bound(kind: u8) -> Option<usize> {
        match kind {
            1 | 3 | 7..=11 | 14 => Some(SLACK),
            12 => Some(SLACK + HAVE_MAX * 41),
            13 => Some(SLACK + HAVE_MAX),
            2 => Some(SLACK + STAGED_MAX * 32),
            4 => Some(limits::BODY_MAX + limits::INLINE_TOTAL_MAX + SLACK),
            // A seal: a hash of 32 bytes for each payload beside the journal.
            5 => Some(SLACK + 32 * (limits::TXN_BESIDE_MAX + 1)),
            6 => Some(CHUNK_MAX + SLACK),
            _ => None,
        }
    }

    /// Bytes that it carries, about: what shares of a link are counted in.
    pub fn cost(&self) -> u64 {
        let carried = match self {
            Message::Records(records) => records.iter().map(WireRecord::len).sum(),
            Message::End(seal) => seal.len(),
            Message::Chunk(chunk) => chunk.bytes.len(),
            Message::Have(wanted) => wanted.len() * 41,
            _ => 64,
        };
        (super::HEADER_LEN + carried) as u64
    }

    /// Bytes of memory that it takes at a replica where it has to wait, about. Both sides count them: a primary has no more under way than may wait there.
    pub fn weight(&self) -> u64 {
        let records = if let Message::Records(records) = self { records.len() } else { 0 };
        self.cost() + (size_of::<Message>() + records * size_of::<WireRecord>()) as u64
    }

    /// Checks what the encoding alone does not say.
    pub(super) fn check(self) -> Result<Message, WireError> {
        let bad = match &self {
            Message::Hello(h) => position_fault(&h.position),
            Message::Welcome(w) if w.staged.len() > STAGED_MAX => Some("staged payloads"),
            Message::Welcome(w) => {
                let staged = || w.staged.iter().find_map(|(id, len)| payload_fault(*id, *len));
                position_fault(&w.position).or_else(staged)
            }
            Message::Begin(b) if b.records == 0 || b.records > limits::TXN_RECORDS_MAX => Some("records"),
            Message::Begin(b) if b.position.txn.0 == 0 => Some("transaction"),
            Message::Begin(b) => position_fault(&b.position),
            Message::Ack(position) => position_fault(position),
            Message::EpochNotice(epoch) => epoch_fault(*epoch),
            Message::Refused(_, at) => txn_fault(*at),
            Message::Records(r) if r.is_empty() || r.len() > limits::TXN_RECORDS_MAX as usize => Some("records"),
            Message::Records(r) => r.iter().find_map(WireRecord::fault),
            Message::Chunk(c) => c.fault(),
            Message::Have(h) if h.is_empty() || h.len() > HAVE_MAX => Some("payloads"),
            Message::Have(h) if h.iter().any(|(_, len)| !inline_len(*len)) => Some("payload"),
            Message::Held(h) if h.is_empty() || h.len() > HAVE_MAX => Some("payloads"),
            _ => None,
        };
        bad.map_or(Ok(self), |field| Err(WireError::Field(field)))
    }
}

impl WireRecord {
    /// Bytes of body and inline payload.
    pub fn len(&self) -> usize {
        let inline = match &self.payload {
            Some(WirePayload::Inline(bytes)) => bytes.len(),
            _ => 0,
        };
        self.body.len() + inline
    }

    /// Bytes that it takes once its payload is there, staged ones apart.
    pub fn bytes(&self) -> u64 {
        let held = if let Some(WirePayload::Held(_, len)) = self.payload { len } else { 0 };
        self.len() as u64 + held
    }

    /// Whether it has no bytes at all, which no record of a journal is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn fault(&self) -> Option<&'static str> {
        match &self.payload {
            _ if self.body.is_empty() || self.body.len() > limits::BODY_MAX => Some("body"),
            Some(WirePayload::Inline(bytes)) if bytes.is_empty() || bytes.len() > limits::INLINE_TOTAL_MAX => {
                Some("payload")
            }
            Some(WirePayload::Staged(id, len)) => payload_fault(*id, *len),
            Some(WirePayload::Cancelled(len)) if !(1..=limits::WRITE_MAX as u64).contains(len) => Some("payload"),
            Some(WirePayload::Held(_, len)) if !inline_len(*len) => Some("payload"),
            _ => None,
        }
    }
}

impl Chunk {
    fn fault(&self) -> Option<&'static str> {
        let len = self.bytes.len() as u64;
        if self.bytes.is_empty() || self.bytes.len() > CHUNK_MAX {
            return Some("chunk");
        }
        let inside = self.offset.checked_add(len).is_some_and(|end| end <= self.total);
        let inside = inside && self.within.is_none_or(|at| at.offset <= limits::COUNTER_MAX);
        if !inside { Some("chunk") } else { payload_fault(self.id, self.total) }
    }
}

fn inline_len(len: u64) -> bool {
    (1..=limits::INLINE_TOTAL_MAX as u64).contains(&len)
}

fn txn_fault(txn: TxnNo) -> Option<&'static str> {
    (txn.0 > limits::COUNTER_MAX).then_some("transaction")
}

fn epoch_fault(epoch: Epoch) -> Option<&'static str> {
    (epoch.0 > limits::COUNTER_MAX).then_some("epoch")
}

fn position_fault(position: &Position) -> Option<&'static str> {
    txn_fault(position.txn).or(epoch_fault(position.epoch))
}

fn payload_fault(id: PayloadId, len: u64) -> Option<&'static str> {
    let bad_id = id.txn.0 > limits::COUNTER_MAX || id.offset > limits::TXN_PAYLOAD_MAX + limits::WRITE_MAX as u64;
    let bad_len = len == 0 || len > limits::WRITE_MAX as u64;
    if bad_id || bad_len { Some("payload") } else { None }
}
