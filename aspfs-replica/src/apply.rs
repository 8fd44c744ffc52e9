//! The receiving machine of one VE at a replica.
//!
//! In come messages, the outcome of flushes and the time; out come messages and actions. The store is a [`Follower`], which proves every
//! transaction by its hashes before it takes it.
//!
//! Invariants (promises G10 and G11):
//!
//! - A higher epoch is durable at the follower before anything is done in it, and it is noted only for the own lineage.
//! - A transaction is taken only whole, only behind the head, and only from a sender whose epoch is not below the highest seen.
//! - It begins when the chunks that it waits for have come on their own stream; what comes behind it until then is parked, in order.
//! - An acknowledgement says what a flush that ended has made durable.
//! - Bytes put together in memory, bytes parked and bytes staged are bounded.

mod parked;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use vefs::ids::{Epoch, PayloadId, Position, TxnNo, VeId};
use vefs::limits;

use crate::apply::parked::Parked;
use crate::log::{FollowError, Follower, LogRecord, LogTxn, Payload};
use crate::node::NodeId;
use crate::session::{Closed, Incoming, Session, pong};
use crate::wire::{Begin, Chunk, Envelope, Hello, Message, Refusal, STAGED_MAX, Welcome, WirePayload, WireRecord};

/// Most bytes of bodies and inline payloads in one transaction.
pub const TXN_BYTES_MAX: u64 = limits::TXN_PAYLOAD_MAX + (64 << 20);
/// Most bytes of bulk payloads that are staged.
pub const STAGED_BYTES_MAX: u64 = 2 * limits::TXN_PAYLOAD_MAX;
/// Most bulk payloads that are staged.
const STAGED_COUNT_MAX: usize = 16_384;

/// What the machine wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Call [`Follower::sync`], on any thread, and give [`Receiver::synced`] its outcome.
    Sync,
    /// The session is over. What is polled now is the last word, then close the connection.
    Closed(Closed),
    /// A greeting with this session was refused; the present session goes on. What is polled now tells the other side.
    TurnedAway(u64, Refusal),
}

#[derive(Clone, Debug)]
struct Assembly {
    begin: Begin,
    records: Vec<LogRecord>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// A flush must end before `Welcome` can be said.
    Greeting,
    Streaming,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Receiver {
    node: NodeId,
    ve: VeId,
    phase: Phase,
    session: Session,
    epoch: Epoch,
    outbox: VecDeque<Message>,
    asides: VecDeque<(Envelope, Message)>,
    parked: Parked,
    assembly: Option<Assembly>,
    staged: BTreeMap<PayloadId, (u64, u64)>,
    syncing: bool,
    /// What the primary was told last of what is durable.
    told: Position,
    refusals: BTreeMap<Refusal, u64>,
}

impl Receiver {
    /// For a VE at node `node`.
    pub fn new(node: NodeId, ve: VeId) -> Receiver {
        Receiver {
            node,
            ve,
            phase: Phase::Idle,
            session: Session::new(ve, 0, Duration::ZERO),
            epoch: Epoch(0),
            outbox: VecDeque::new(),
            asides: VecDeque::new(),
            parked: Parked::default(),
            assembly: None,
            staged: BTreeMap::new(),
            syncing: false,
            told: Position::default(),
            refusals: BTreeMap::new(),
        }
    }

    /// How often each refusal was made.
    pub fn refusals(&self) -> &BTreeMap<Refusal, u64> {
        &self.refusals
    }

    /// The connection is gone. A flush that runs goes on, and staged payloads that are whole stay.
    pub fn disconnected(&mut self) {
        self.phase = Phase::Idle;
        (self.assembly, self.parked) = (None, Parked::default());
        self.outbox.clear();
    }

    /// Another store took the follower's place: nothing is put aside there.
    pub fn replaced(&mut self) {
        self.disconnected();
        self.staged.clear();
    }

    /// A message from the primary.
    pub fn receive(
        &mut self,
        follower: &mut dyn Follower,
        envelope: &Envelope,
        message: Message,
        now: Duration,
    ) -> Vec<Action> {
        match message {
            Message::Hello(hello) => match self.hello(follower, envelope, &hello, now) {
                Ok(actions) => actions,
                Err(why) => self.turn_away(follower, envelope, why),
            },
            message => {
                let mut actions = vec![];
                if let Err(why) = self.in_session(follower, envelope, message, now, &mut actions) {
                    actions.extend(self.refuse(follower, why));
                }
                actions
            }
        }
    }

    /// Refuses a greeting, whose session is none here, without touching the present one.
    fn turn_away(&mut self, follower: &dyn Follower, envelope: &Envelope, why: Refusal) -> Vec<Action> {
        *self.refusals.entry(why).or_default() += 1;
        let epoch = follower.highest_epoch();
        let answer = Envelope { epoch, seq: 0, ..*envelope };
        self.asides.push_back((answer, Message::Refused(why, follower.head().txn)));
        vec![Action::TurnedAway(envelope.session, why)]
    }

    fn refuse(&mut self, follower: &dyn Follower, why: Refusal) -> Vec<Action> {
        *self.refusals.entry(why).or_default() += 1;
        self.disconnected();
        let at = follower.head().txn;
        self.outbox.push_back(Message::Refused(why, at));
        vec![Action::Closed(Closed::Refused(why, at))]
    }

    fn hello(
        &mut self,
        follower: &mut dyn Follower,
        envelope: &Envelope,
        hello: &Hello,
        now: Duration,
    ) -> Result<Vec<Action>, Refusal> {
        // A greeting of a former session comes late: the present one goes on.
        let late = envelope.epoch == self.epoch && envelope.session <= self.session.id;
        if envelope.ve != Some(self.ve) || envelope.seq != 0 || late {
            return Ok(vec![]);
        }
        if hello.position.lineage != follower.head().lineage {
            return Err(Refusal::ForeignLineage);
        }
        if hello.base != follower.base() {
            return Err(Refusal::ForeignBase);
        }
        self.raise(follower, envelope.epoch)?;
        self.disconnected();
        follower.release();
        follower.forget_parts();
        self.session = Session::new(self.ve, envelope.session, now);
        self.session.incoming(envelope, &Message::Hello(*hello), now);
        if std::mem::replace(&mut self.epoch, envelope.epoch) != envelope.epoch {
            follower.unstage_all();
            self.staged.clear();
        }
        self.staged.retain(|_, (got, total)| got == total);
        self.phase = Phase::Greeting;
        Ok(self.settle(follower))
    }

    /// Notes a higher epoch durably; refuses a lower one.
    fn raise(&mut self, follower: &mut dyn Follower, epoch: Epoch) -> Result<(), Refusal> {
        match epoch.cmp(&follower.highest_epoch()) {
            std::cmp::Ordering::Less => Err(Refusal::OldEpoch),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => follower.note_epoch(epoch).map_err(|_| Refusal::Store),
        }
    }

    fn in_session(
        &mut self,
        follower: &mut dyn Follower,
        envelope: &Envelope,
        message: Message,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        if self.phase == Phase::Idle {
            return Ok(());
        }
        match self.session.incoming(envelope, &message, now) {
            Incoming::Stale => return Ok(()),
            Incoming::Gap => return Err(Refusal::Gap),
            Incoming::Fresh => {}
        }
        // The session's epoch was the highest when it began; another primary may have come since.
        self.raise(follower, envelope.epoch)?;
        match (message, self.phase) {
            (Message::Ping(n), _) => pong(&mut self.outbox, n),
            (Message::Pong(_) | Message::EpochNotice(_), _) => {}
            (Message::Refused(why, at), _) => {
                self.disconnected();
                actions.push(Action::Closed(Closed::TheyRefused(why, at)));
            }
            (Message::Chunk(chunk), Phase::Streaming) => {
                self.chunk(follower, chunk)?;
                self.proceed(follower, actions)?;
            }
            (Message::BulkPing, Phase::Streaming) => {}
            (message, Phase::Streaming) => {
                self.parked.push(envelope.epoch, message, self.session.bulk_taken())?;
                self.proceed(follower, actions)?;
            }
            _ => return Err(Refusal::OutOfTurn),
        }
        Ok(())
    }

    /// Takes what does not wait for chunks any more.
    fn proceed(&mut self, follower: &mut dyn Follower, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        while let Some((epoch, message)) = self.parked.next(self.session.bulk_taken()) {
            match message {
                Message::Have(wanted) if self.assembly.is_none() => {
                    self.outbox.push_back(Message::Held(follower.hold(&wanted)));
                }
                Message::Begin(begin) => self.begin(follower, epoch, begin)?,
                Message::Records(records) => self.records(follower, records)?,
                Message::End(seal) => actions.extend(self.end(follower, seal)?),
                _ => return Err(Refusal::OutOfTurn),
            }
        }
        Ok(())
    }

    fn chunk(&mut self, follower: &mut dyn Follower, chunk: Chunk) -> Result<(), Refusal> {
        if chunk.id.txn <= follower.head().txn {
            return Err(Refusal::OutOfTurn);
        }
        let others = self.staged.iter().filter(|(id, _)| **id != chunk.id).map(|(_, (_, total))| total).sum::<u64>();
        let count = self.staged.len() + usize::from(!self.staged.contains_key(&chunk.id));
        if others + chunk.total > STAGED_BYTES_MAX || count > STAGED_COUNT_MAX {
            return Err(Refusal::StagingFull);
        }
        let (got, total) = self.staged.get(&chunk.id).copied().unwrap_or((0, chunk.total));
        if chunk.offset != got || chunk.total != total {
            return Err(Refusal::OutOfTurn);
        }
        follower.stage(&chunk).map_err(|_| Refusal::Store)?;
        self.staged.insert(chunk.id, (got + chunk.bytes.len() as u64, total));
        Ok(())
    }

    fn begin(&mut self, follower: &dyn Follower, epoch: Epoch, begin: Begin) -> Result<(), Refusal> {
        let (head, next) = (follower.head(), begin.position);
        if self.assembly.is_some() {
            return Err(Refusal::OutOfTurn);
        }
        if next.lineage != head.lineage {
            return Err(Refusal::ForeignLineage);
        }
        // A tail that was written before a restart keeps its epoch, and is shipped in a higher one.
        let in_order = head.epoch <= next.epoch || head.txn == TxnNo(0);
        if next.txn != head.txn.next() || begin.previous != head.chain || !in_order || next.epoch > epoch {
            return Err(Refusal::NotNext);
        }
        self.assembly = Some(Assembly { begin, records: Vec::new(), bytes: 0 });
        Ok(())
    }

    fn records(&mut self, follower: &dyn Follower, records: Vec<WireRecord>) -> Result<(), Refusal> {
        let Some(assembly) = &mut self.assembly else { return Err(Refusal::OutOfTurn) };
        for record in records {
            assembly.bytes += record.bytes();
            if assembly.records.len() >= assembly.begin.records as usize || assembly.bytes > TXN_BYTES_MAX {
                return Err(Refusal::TooLarge);
            }
            let payload = match record.payload {
                Some(WirePayload::Staged(id, len)) if self.staged.get(&id) == Some(&(len, len)) => {
                    Some(Payload::Bulk(id, len))
                }
                Some(WirePayload::Staged(..)) => return Err(Refusal::PayloadMissing),
                Some(WirePayload::Held(hash, len)) => {
                    let held = follower.held(hash).filter(|bytes| bytes.len() as u64 == len);
                    Some(Payload::Inline(held.ok_or(Refusal::PayloadMissing)?))
                }
                Some(WirePayload::Inline(bytes)) => Some(Payload::Inline(Bytes::from(bytes))),
                Some(WirePayload::Cancelled(len)) => Some(Payload::Cancelled(len)),
                None => None,
            };
            assembly.records.push(LogRecord { body: Bytes::from(record.body), payload });
        }
        Ok(())
    }

    fn end(&mut self, follower: &mut dyn Follower, seal: Vec<u8>) -> Result<Vec<Action>, Refusal> {
        let Some(Assembly { begin, records, .. }) = self.assembly.take() else { return Err(Refusal::OutOfTurn) };
        if records.len() != begin.records as usize {
            return Err(Refusal::OutOfTurn);
        }
        let (position, previous) = (begin.position, begin.previous);
        let txn = LogTxn { position, previous, records, seal: Bytes::from(seal) };
        match follower.receive(&txn) {
            Ok(()) => {}
            Err(FollowError::Store(_)) => return Err(Refusal::Store),
            // A staged payload may be what is wrong: kept, it would be wrong in every session to come.
            Err(FollowError::Corrupt { .. }) => {
                follower.unstage_all();
                self.staged.clear();
                return Err(Refusal::Corrupt);
            }
        }
        follower.release();
        self.staged = self.staged.split_off(&PayloadId { txn: position.txn.next(), offset: 0 });
        Ok(self.settle(follower))
    }

    /// Asks for a flush where one is needed, says `Welcome` once the head is durable, and acknowledges what the store has made durable by itself.
    fn settle(&mut self, follower: &dyn Follower) -> Vec<Action> {
        if follower.head() != follower.durable() {
            let start = !std::mem::replace(&mut self.syncing, true);
            return if start { vec![Action::Sync] } else { vec![] };
        }
        if self.phase == Phase::Greeting {
            self.phase = Phase::Streaming;
            let whole = self.staged.iter().map(|(id, (_, total))| (*id, *total)).take(STAGED_MAX).collect();
            let welcome = Welcome { node: self.node, position: follower.head(), staged: whole };
            self.staged.retain(|id, _| welcome.staged.iter().any(|(w, _)| w == id));
            self.told = welcome.position;
            self.outbox.push_back(Message::Welcome(welcome));
        }
        self.acknowledge(follower.durable());
        vec![]
    }

    fn acknowledge(&mut self, position: Position) {
        if self.phase == Phase::Streaming && position.txn > self.told.txn {
            self.told = position;
            self.outbox.push_back(Message::Ack(position));
        }
    }

    /// The flush ended.
    pub fn synced(&mut self, follower: &dyn Follower, outcome: Result<Position, FollowError>) -> Vec<Action> {
        self.syncing = false;
        match outcome {
            Ok(position) => {
                self.acknowledge(position);
                self.settle(follower)
            }
            Err(_) => self.refuse(follower, Refusal::Store),
        }
    }

    /// Time passed: to be called about once a second.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        if self.phase != Phase::Idle && self.session.is_silent(now) {
            self.disconnected();
            return vec![Action::Closed(Closed::Silent)];
        }
        vec![]
    }

    /// The next message to send.
    pub fn poll(&mut self, follower: &dyn Follower, now: Duration) -> Option<(Envelope, Message)> {
        if let Some(aside) = self.asides.pop_front() {
            return Some(aside);
        }
        let message = self.outbox.pop_front()?;
        Some((self.session.outgoing(follower.highest_epoch(), &message, now), message))
    }
}
