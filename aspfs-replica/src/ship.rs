//! The sending machine of one VE for one replica, at the primary.
//!
//! In come a new connection, messages, the time, and the VE's [`Log`]; out come messages, one at a time when the link has room
//! ([`Sender::poll`]), and events. It holds one transaction's records at a time; bulk payloads are read in chunks as they go.
//!
//! Invariants: transactions go in order and whole, each behind its bulk payloads; only what the log calls durable goes (promise G12), bulk payloads
//! excepted; a new transaction begins only while less than `ahead` bytes are unacknowledged; an acknowledgement counts only
//! with the very position that was sent (promise G11).

mod alike;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use vefs::ids::{Epoch, PayloadId, Position, TxnNo, VeId};

use crate::log::{At, Log, LogError, LogRead, LogTxn, Payload};
use crate::node::NodeId;
use crate::session::{Closed, Incoming, Session};
use crate::ship::alike::Alike;
use crate::wire::{
    BATCH_TARGET, Begin, CHUNK_MAX, Chunk, Envelope, HEADER_LEN, Hello, Message, Refusal, Welcome, WirePayload,
    WireRecord,
};

/// Most bulk payloads that wait to be sent ahead of their records.
const EARLY_MAX: usize = 1024;

/// What the sender tells its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The replica holds everything up to here durably.
    Acked(Position),
    /// The journal does not reach back to the replica's position: it needs a comparison of trees.
    NeedsCatchUp(Position),
    /// The replica's history is not a part of this one.
    Diverged(Position),
    /// There is a higher epoch: this node writes no more.
    HigherEpoch(Epoch),
    /// The session is over. What is polled now is the last word, then close the connection.
    Closed(Closed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Greeting,
    Streaming,
}

#[derive(Clone, Debug)]
struct Shipping {
    txn: LogTxn,
    alike: Alike,
    begun: bool,
    next: usize,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Sender {
    node: NodeId,
    ve: VeId,
    ahead: u64,
    phase: Phase,
    session: Session,
    outbox: VecDeque<Message>,
    shipped: TxnNo,
    acked: Option<Position>,
    under_way: VecDeque<(Position, u64)>,
    shipping: Option<Shipping>,
    chunks: VecDeque<(PayloadId, u64, u64)>,
    staged: BTreeSet<PayloadId>,
    early: u64,
    /// Up to this transaction all bytes travel: the replica did not have what it said it holds.
    plain: TxnNo,
    /// Events that [`Sender::poll`] found, for [`Sender::tick`] to tell.
    late: Vec<Event>,
}

impl Sender {
    /// For a VE at node `node`; `ahead`: most bytes that may be unacknowledged when another transaction begins.
    pub fn new(node: NodeId, ve: VeId, ahead: u64) -> Sender {
        Sender {
            node,
            ve,
            ahead,
            phase: Phase::Idle,
            session: Session::new(ve, 0, Duration::ZERO),
            outbox: VecDeque::new(),
            shipped: TxnNo(0),
            acked: None,
            under_way: VecDeque::new(),
            shipping: None,
            chunks: VecDeque::new(),
            staged: BTreeSet::new(),
            early: 0,
            plain: TxnNo(0),
            late: Vec::new(),
        }
    }

    /// There is a connection. `session` is higher than every one before in this epoch.
    pub fn connect(&mut self, log: &dyn Log, session: u64, now: Duration) {
        *self = Sender { acked: self.acked, plain: self.plain, ..Sender::new(self.node, self.ve, self.ahead) };
        self.session = Session::new(self.ve, session, now);
        self.phase = Phase::Greeting;
        let hello = Hello { node: self.node, position: log.durable(), base: log.base() };
        self.outbox.push_back(Message::Hello(hello));
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.phase = Phase::Idle;
        self.outbox.clear();
        (self.shipping, self.early) = (None, 0);
        self.chunks.clear();
        self.under_way.clear();
    }

    /// The last position that the replica acknowledged.
    pub fn acked(&self) -> Option<Position> {
        self.acked
    }

    /// Bytes that were sent and are not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        self.begun() + self.early
    }

    /// Bytes of whole transactions that were sent. What went ahead of its record does not count: it may belong to a transaction that can
    /// only follow those before it.
    fn begun(&self) -> u64 {
        self.under_way.iter().map(|(_, bytes)| bytes).sum()
    }

    /// A bulk payload was written: it may travel at once, ahead of its record.
    pub fn written(&mut self, id: PayloadId, len: u64) {
        let queued: u64 = self.chunks.iter().map(|(_, total, offset)| total - offset).sum();
        let room = self.chunks.len() < EARLY_MAX && self.unacknowledged() + queued < self.ahead;
        if self.phase == Phase::Streaming && room && !self.staged.contains(&id) {
            self.chunks.push_back((id, len, 0));
        }
    }

    /// A message from the replica.
    pub fn receive(&mut self, log: &dyn Log, envelope: &Envelope, message: Message, now: Duration) -> Vec<Event> {
        if self.phase == Phase::Idle {
            return vec![];
        }
        match self.session.incoming(envelope, now) {
            Incoming::Stale => return vec![],
            Incoming::Gap => return self.refuse(Refusal::Gap),
            Incoming::Fresh => {}
        }
        let notice = if let Message::EpochNotice(e) = message { e } else { envelope.epoch };
        if notice > log.epoch() {
            let mut events = vec![Event::HigherEpoch(notice)];
            events.extend(self.refuse(Refusal::OldEpoch));
            return events;
        }
        match (message, self.phase) {
            (Message::Welcome(welcome), Phase::Greeting) => self.welcome(log, welcome),
            (Message::Ack(position), Phase::Streaming) => self.ack(position),
            (Message::Held(held), Phase::Streaming) => self.held(&held),
            (Message::Refused(why, at), _) => {
                if matches!(why, Refusal::PayloadMissing | Refusal::Corrupt) {
                    self.plain = at.next();
                }
                self.disconnected();
                vec![Event::Closed(Closed::TheyRefused(why, at))]
            }
            (Message::Ping(n), _) => {
                self.outbox.push_back(Message::Pong(n));
                vec![]
            }
            (Message::Pong(_) | Message::EpochNotice(_), _) => vec![],
            _ => self.refuse(Refusal::OutOfTurn),
        }
    }

    fn refuse(&mut self, why: Refusal) -> Vec<Event> {
        let at = self.shipped;
        self.disconnected();
        self.outbox.push_back(Message::Refused(why, at));
        vec![Event::Closed(Closed::Refused(why, at))]
    }

    fn welcome(&mut self, log: &dyn Log, welcome: Welcome) -> Vec<Event> {
        let theirs = welcome.position;
        if theirs.lineage != log.durable().lineage {
            return self.refuse(Refusal::ForeignLineage);
        }
        let known = if theirs.txn > log.durable().txn { At::Beyond } else { log.position_at(theirs.txn) };
        match known {
            At::Here(ours) if same(&ours, &theirs) => {
                self.phase = Phase::Streaming;
                (self.shipped, self.acked) = (theirs.txn, Some(theirs));
                self.staged = welcome.staged.into_iter().map(|(id, _)| id).collect();
                vec![Event::Acked(theirs)]
            }
            At::Gone => {
                let mut events = self.refuse(Refusal::TooOld);
                events.insert(0, Event::NeedsCatchUp(theirs));
                events
            }
            At::Here(_) | At::Beyond => {
                let mut events = self.refuse(Refusal::Diverged);
                events.insert(0, Event::Diverged(theirs));
                events
            }
        }
    }

    fn ack(&mut self, position: Position) -> Vec<Event> {
        if self.acked == Some(position) {
            return vec![];
        }
        let Some(upto) = self.under_way.iter().position(|(p, _)| *p == position) else {
            return self.refuse(Refusal::OutOfTurn);
        };
        self.under_way.drain(..=upto);
        self.staged = self.staged.split_off(&PayloadId { txn: position.txn.next(), offset: 0 });
        self.acked = Some(position);
        vec![Event::Acked(position)]
    }

    /// Time passed: to be called about once a second.
    pub fn tick(&mut self, now: Duration) -> Vec<Event> {
        if self.phase == Phase::Idle {
            return std::mem::take(&mut self.late);
        }
        if self.session.is_silent(now) {
            self.disconnected();
            return vec![Event::Closed(Closed::Silent)];
        }
        if self.phase == Phase::Streaming && self.session.wants_ping(now) {
            self.outbox.push_back(Message::Ping(self.shipped.0));
        }
        vec![]
    }

    /// The next message, when the link has room for one. What was cut off by a failing log is sent in the next session.
    pub fn poll(&mut self, log: &dyn Log, now: Duration) -> Result<Option<(Envelope, Message)>, LogError> {
        let message = match self.outbox.pop_front() {
            Some(message) => Some(message),
            None if self.phase == Phase::Streaming => self.next(log)?,
            None => None,
        };
        Ok(message.map(|m| (self.session.outgoing(log.epoch(), now), m)))
    }

    fn next(&mut self, log: &dyn Log) -> Result<Option<Message>, LogError> {
        if self.shipping.is_none() && self.begun() < self.ahead {
            self.start(log)?;
        }
        if let Some(message) = self.outbox.pop_front() {
            return Ok(Some(message));
        }
        let Some(shipping) = self.shipping.as_ref().filter(|s| !s.alike.is_asking()) else { return self.chunk(log) };
        let waits = |(id, ..): &&(PayloadId, u64, u64)| id.txn <= shipping.txn.position.txn;
        if !shipping.begun && self.chunks.front().filter(waits).is_some() {
            return self.chunk(log);
        }
        Ok(Some(self.advance()))
    }

    /// Takes up the transaction behind the last one, if it is durable.
    fn start(&mut self, log: &dyn Log) -> Result<(), LogError> {
        if self.shipped >= log.durable().txn {
            return Ok(());
        }
        let txn = match log.read(self.shipped)? {
            LogRead::Txn(txn) => txn,
            LogRead::AtEnd => return Ok(()),
            // The journal was recycled under a replica that is too far behind: a whole state is its only way on.
            LogRead::Gone => {
                let theirs = self.acked.unwrap_or_default();
                self.late = self.refuse(Refusal::TooOld);
                self.late.insert(0, Event::NeedsCatchUp(theirs));
                return Ok(());
            }
        };
        let bulk = txn.records.iter().filter_map(|r| match r.payload {
            Some(Payload::Bulk(id, len)) => Some((id, len, 0)),
            _ => None,
        });
        let known = |id: &PayloadId| self.staged.contains(id) || self.chunks.iter().any(|c| c.0 == *id);
        let missing: Vec<_> = bulk.filter(|(id, ..)| !known(id)).collect();
        let (first, rest): (Vec<_>, Vec<_>) = self.chunks.drain(..).partition(|c| c.0.txn <= txn.position.txn);
        self.chunks = first.into_iter().chain(missing).chain(rest).collect();
        let plain = txn.position.txn <= self.plain;
        let mut alike = Alike::new(&txn, if plain { vec![] } else { log.alike(&txn) });
        self.outbox.extend(alike.question());
        self.shipping = Some(Shipping { txn, alike, begun: false, next: 0 });
        Ok(())
    }

    fn held(&mut self, held: &[bool]) -> Vec<Event> {
        let Some(shipping) = self.shipping.as_mut().filter(|s| s.alike.is_asking()) else {
            return self.refuse(Refusal::OutOfTurn);
        };
        if !shipping.alike.answered(held) {
            return self.refuse(Refusal::OutOfTurn);
        }
        self.outbox.extend(shipping.alike.question());
        vec![]
    }

    fn chunk(&mut self, log: &dyn Log) -> Result<Option<Message>, LogError> {
        let Some((id, total, offset)) = self.chunks.front().copied() else { return Ok(None) };
        let len = (total - offset).min(CHUNK_MAX as u64);
        let bytes = log.payload(id, offset, len as usize)?.to_vec();
        if bytes.len() as u64 != len {
            return Err(LogError(format!("payload {id:?}: {} of {len} bytes", bytes.len())));
        }
        self.early += len;
        if offset + len == total {
            self.chunks.pop_front();
            self.staged.insert(id);
        } else if let Some(front) = self.chunks.front_mut() {
            front.2 = offset + len;
        }
        Ok(Some(Message::Chunk(Chunk { id, total, offset, bytes })))
    }

    /// The next message of the transaction being shipped.
    fn advance(&mut self) -> Message {
        let Some(s) = self.shipping.as_mut() else { return Message::Ping(0) };
        let (position, previous) = (s.txn.position, s.txn.previous);
        if !s.begun {
            s.begun = true;
            return Message::Begin(Begin { position, previous, records: s.txn.records.len() as u32 });
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(record) = s.txn.records.get(s.next) {
            let record = WireRecord {
                body: record.body.to_vec(),
                payload: record.payload.as_ref().map(|p| match (p, s.alike.instead(s.next)) {
                    (Payload::Inline(bytes), Some(hash)) => WirePayload::Held(hash, bytes.len() as u64),
                    (Payload::Inline(bytes), None) => WirePayload::Inline(bytes.to_vec()),
                    (Payload::Bulk(id, len), _) => WirePayload::Staged(*id, *len),
                }),
            };
            bytes += record.len() + HEADER_LEN;
            if !batch.is_empty() && bytes > BATCH_TARGET {
                break;
            }
            s.next += 1;
            batch.push(record);
        }
        if !batch.is_empty() {
            return Message::Records(batch);
        }
        let seal = s.txn.seal.to_vec();
        let size = |r: &crate::log::LogRecord| match &r.payload {
            Some(Payload::Inline(bytes)) => (r.body.len() + bytes.len()) as u64,
            Some(Payload::Bulk(_, len)) => r.body.len() as u64 + len,
            None => r.body.len() as u64,
        };
        let carried = s.txn.records.iter().map(size).sum::<u64>() + seal.len() as u64;
        let bulk = |r: &crate::log::LogRecord| if let Some(Payload::Bulk(_, len)) = r.payload { len } else { 0 };
        self.early = self.early.saturating_sub(s.txn.records.iter().map(bulk).sum());
        self.under_way.push_back((position, carried));
        self.shipped = position.txn;
        self.shipping = None;
        Message::End(seal)
    }
}

/// Whether two positions are one. The empty state is the same in every epoch.
fn same(ours: &Position, theirs: &Position) -> bool {
    ours == theirs || (ours.txn == TxnNo(0) && theirs.txn == TxnNo(0) && ours.lineage == theirs.lineage)
}
