//! The sending machine of one VE for one replica, at the primary.
//!
//! In come a new connection, messages, the time, and the VE's [`Log`]; out come messages, one at a time when their stream has room
//! ([`Sender::poll`] for records, [`Sender::poll_bulk`] for bulk payloads), and events. It holds one transaction's records at a time; bulk
//! payloads are read in chunks as they go.
//!
//! Invariants: transactions go in order and whole; each begins when all of its bulk payloads were given out, and says how many frames of bulk
//! the replica has to have before it; only what the log calls durable goes (promise G12), bulk payloads
//! excepted; a new transaction begins only while less than `ahead` bytes are unacknowledged; an acknowledgement counts only
//! with the very position that was sent (promise G11).

mod alike;
mod bulk;
mod shipping;

use std::collections::VecDeque;
use std::time::Duration;

use vefs::ids::{Epoch, PayloadId, Position, TxnNo, VeId};

use crate::log::{At, Log, LogError, LogRead};
use crate::node::NodeId;
use crate::session::{Closed, Incoming, Session, pong};
use crate::ship::alike::Alike;
use crate::ship::bulk::Bulk;
use crate::ship::shipping::Shipping;
use crate::wire::{CHUNK_MAX, CHUNK_MIN, Envelope, Hello, Message, Refusal, Welcome};

/// What the sender tells its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session begins, and the replica holds everything up to here durably, and no more: also where it acknowledged more before.
    Welcomed(Position),
    /// The replica holds everything up to here durably.
    Acked(Position),
    /// The journal does not reach back to the replica's position: it needs a comparison of trees.
    NeedsCatchUp(Position),
    /// The replica's history is not a part of this one.
    Diverged(Position),
    /// The replica has nothing yet, or nothing any more: what it acknowledged before means nothing.
    HasNothing,
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

/// The machine.
#[derive(Clone, Debug)]
pub struct Sender {
    node: NodeId,
    ve: VeId,
    ahead: u64,
    /// Most bytes that a chunk, or a batch of records, carries.
    piece: usize,
    phase: Phase,
    session: Session,
    outbox: VecDeque<Message>,
    shipped: TxnNo,
    acked: Option<Position>,
    under_way: VecDeque<(Position, u64)>,
    shipping: Option<Shipping>,
    /// Without it the log has no transaction that could be taken up now.
    news: bool,
    bulk: Bulk,
    /// The stream of bulk has been quiet for a while, with something under way.
    bulk_ping: bool,
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
            piece: CHUNK_MAX,
            phase: Phase::Idle,
            session: Session::new(ve, 0, Duration::ZERO),
            outbox: VecDeque::new(),
            shipped: TxnNo(0),
            acked: None,
            under_way: VecDeque::new(),
            shipping: None,
            news: true,
            bulk: Bulk::default(),
            bulk_ping: false,
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

    /// Chunks and batches of this session carry so much from now on, within what they may: what goes in about half a second.
    pub fn set_piece(&mut self, bytes: u64) {
        self.piece = bytes.clamp(CHUNK_MIN as u64, CHUNK_MAX as u64) as usize;
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.phase = Phase::Idle;
        self.outbox.clear();
        (self.shipping, self.bulk) = (None, Bulk::default());
        self.under_way.clear();
    }

    /// The last position that the replica acknowledged.
    pub fn acked(&self) -> Option<Position> {
        self.acked
    }

    /// Bytes that were sent and are not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        self.begun() + self.bulk.early()
    }

    /// Bytes of whole transactions that were sent. What went ahead of its record does not count: it may belong to a transaction that can
    /// only follow those before it.
    fn begun(&self) -> u64 {
        self.under_way.iter().map(|(_, bytes)| bytes).sum()
    }

    /// A bulk payload was written: it may travel at once, ahead of its record.
    pub fn written(&mut self, id: PayloadId, len: u64) {
        // Of a transaction that was taken up what is needed has gone, or goes; behind it the replica wants nothing more of it.
        let taken_up = self.shipping.as_ref().map_or(self.shipped, |s| s.txn.position.txn);
        if self.phase == Phase::Streaming && id.txn > taken_up {
            self.bulk.offer(id, len, self.ahead.saturating_sub(self.unacknowledged()));
        }
    }

    /// A message from the replica.
    pub fn receive(&mut self, log: &dyn Log, envelope: &Envelope, message: Message, now: Duration) -> Vec<Event> {
        if self.phase == Phase::Idle {
            return vec![];
        }
        match self.session.incoming(envelope, &message, now) {
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
                    self.plain = TxnNo(at.0.saturating_add(1));
                }
                self.disconnected();
                let mut events = vec![Event::Closed(Closed::TheyRefused(why, at))];
                // One that has a state still, and pulls another, has what it acknowledged until then.
                if why == Refusal::NotReady && at == TxnNo(0) {
                    self.acked = None;
                    events.insert(0, Event::HasNothing);
                }
                events
            }
            (Message::Ping(n), _) => {
                pong(&mut self.outbox, n);
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
                (self.phase, self.news) = (Phase::Streaming, true);
                (self.shipped, self.acked) = (theirs.txn, Some(theirs));
                self.bulk = Bulk::new(welcome.staged.into_iter().map(|(id, _)| id));
                vec![Event::Welcomed(theirs)]
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
        self.bulk.acked(position.txn);
        self.acked = Some(position);
        // There may be room for one that waited.
        self.news = true;
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
        // A chunk that is lost shows by the number of the next frame; behind the last one there is none.
        let waited_for = self.phase == Phase::Streaming && self.unacknowledged() > 0;
        self.bulk_ping = waited_for && self.session.wants_bulk_ping(now);
        vec![]
    }

    /// More of the log may be durable.
    pub fn news(&mut self) {
        self.news = true;
    }

    /// Whether what [`Sender::poll`] has next is a word that keeps the session going, and carries nothing of the VE: it does not wait for its turn.
    pub fn has_word(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether [`Sender::poll`] may have a message. This asks no log, which may have to wait for its VE; a log that grew has to be told of
    /// ([`Sender::news`]).
    pub fn may_say(&self) -> bool {
        let more = || self.goes_on() || (self.shipping.is_none() && self.news);
        self.has_word() || (self.phase == Phase::Streaming && more())
    }

    /// Whether [`Sender::poll_bulk`] may have one.
    pub fn may_say_bulk(&self) -> bool {
        self.phase == Phase::Streaming && (self.bulk_ping || !self.bulk.is_empty())
    }

    /// The next message but those of bulk, when their stream has room for one. What was cut off by a failing log is sent in the next session.
    pub fn poll(&mut self, log: &dyn Log, now: Duration) -> Result<Option<(Envelope, Message)>, LogError> {
        let message = match self.outbox.pop_front() {
            Some(message) => Some(message),
            None if self.phase == Phase::Streaming => self.next(log)?,
            None => None,
        };
        // Behind this one there may be another; where there was none it takes news. One that is under way ends with a message.
        self.news = message.is_some();
        Ok(message.map(|m| (self.session.outgoing(log.epoch(), &m, now), m)))
    }

    /// The next message of the stream of bulk, when that has room for one.
    pub fn poll_bulk(&mut self, log: &dyn Log, now: Duration) -> Result<Option<(Envelope, Message)>, LogError> {
        if self.phase != Phase::Streaming {
            return Ok(None);
        }
        let chunk = self.bulk.next(log, self.piece)?;
        let txn = chunk.as_ref().map(|chunk| chunk.id.txn);
        let ping = std::mem::take(&mut self.bulk_ping).then_some(Message::BulkPing);
        let Some(message) = chunk.map(Message::Chunk).or(ping) else { return Ok(None) };
        let envelope = self.session.outgoing(log.epoch(), &message, now);
        txn.into_iter().for_each(|txn| self.bulk.given(txn, envelope.seq + 1));
        Ok(Some((envelope, message)))
    }

    fn next(&mut self, log: &dyn Log) -> Result<Option<Message>, LogError> {
        if self.shipping.is_none() && self.begun() < self.ahead {
            self.start(log)?;
        }
        if let Some(message) = self.outbox.pop_front() {
            return Ok(Some(message));
        }
        Ok(if self.goes_on() { self.advance() } else { None })
    }

    /// Whether the transaction that was taken up goes on: not before the replica has said what it holds, and its bulk was given out.
    fn goes_on(&self) -> bool {
        let Some(shipping) = &self.shipping else { return false };
        !shipping.alike.is_asking() && (shipping.begun || !self.bulk.waits(shipping.txn.position.txn))
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
        self.bulk.needed(&txn);
        let plain = txn.position.txn <= self.plain;
        let mut alike = Alike::new(&txn, if plain { vec![] } else { log.alike(&txn) });
        self.outbox.extend(alike.question());
        self.shipping = Some(Shipping::new(txn, alike));
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

    /// The next message of the transaction being shipped.
    fn advance(&mut self) -> Option<Message> {
        let shipping = self.shipping.as_mut()?;
        let position = shipping.txn.position;
        let message = shipping.next(|| self.bulk.before(position.txn), self.piece);
        if let Message::End(_) = message {
            self.bulk.gone(position.txn);
            self.under_way.push_back((position, shipping.under_way()));
            self.shipped = position.txn;
            self.shipping = None;
        }
        Some(message)
    }
}

/// Whether two positions are one. The empty state is the same in every epoch.
fn same(ours: &Position, theirs: &Position) -> bool {
    ours == theirs || (ours.txn == TxnNo(0) && theirs.txn == TxnNo(0) && ours.lineage == theirs.lineage)
}
