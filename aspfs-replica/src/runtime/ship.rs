//! A VE's streams to one of its replicas, one of records and one of bulk: connects, greets, sends what the [machine](crate::ship) gives, again
//! and again until the replica is one no longer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio::time::Instant;
use vefs::Ve;
use vefs::change::ReplicaOf;
use vefs::clock::Clock;
use vefs::ids::{Epoch, Position};

use super::exposed::Exposed;
use super::fence::superseded;
use super::lane::Lane;
use super::pace::{Pace, Pays};
use super::status::Link;
use super::tail::{PERIOD, Share, Tail};
use crate::local::VeLog;
use crate::net::{FrameReader, NetError, Transport};
use crate::node::NodeId;
use crate::session::Closed;
use crate::ship::{Event, Sender};
use crate::wire::{self, AHEAD_MAX, Envelope, Message, Refusal};

/// Time between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(500);
/// Frames of the replica that wait to be taken up.
const ANSWERS: usize = 64;
/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Everything that a stream needs.
pub(super) struct Shipping {
    pub ve: Arc<Ve>,
    pub exposed: Arc<Exposed>,
    pub tail: Arc<Tail>,
    pub replica: ReplicaOf,
    pub link: Arc<Link>,
    pub transport: Transport,
    pub me: NodeId,
    pub clock: Arc<dyn Clock>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    #[error("the stream ended")]
    Over,
    #[error("{0}")]
    Closed(String),
    #[error("another node writes the VE, in epoch {}", .0.0)]
    Superseded(Epoch),
}

impl Shipping {
    fn node(&self) -> NodeId {
        NodeId(self.replica.node)
    }

    /// Whether this node still ships to the replica.
    fn goes_on(&self) -> bool {
        self.is_wanted() && self.writes()
    }

    /// Whether this is still the replica's stream.
    fn is_wanted(&self) -> bool {
        self.exposed.follows_by(self.node(), &self.tail)
    }

    /// Whether this node still writes the VE. Waits for whoever has it locked.
    fn writes(&self) -> bool {
        self.ve.is_writer() && self.ve.read_only_reason().is_none()
    }

    /// Ships until the replica is none any more.
    pub async fn run(self) {
        let mut machine = Sender::new(self.me, self.ve.id(), AHEAD_MAX);
        while block_in_place(|| self.goes_on()) {
            let ended = self.session(&mut machine).await;
            machine.disconnected();
            self.link.disconnected();
            match ended {
                Err(Ended::Superseded(epoch)) => {
                    // A node that is no replica any more has no say (promise G30).
                    if self.is_wanted() {
                        block_in_place(|| superseded(&self.ve, &self.exposed, epoch));
                    }
                    return;
                }
                Err(e) => {
                    if self.link.failed(e.to_string()) {
                        tracing::warn!(ve = %self.ve.id(), node = %self.node(), reason = %e, "a replica's stream");
                    }
                }
                Ok(()) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn session(&self, machine: &mut Sender) -> Result<(), Ended> {
        let peer = self.transport.connect(self.node()).await?;
        let (writer, reader) = peer.open().await?;
        let bulk = peer.open_bulk().await?;
        self.link.connected();
        machine.connect(&VeLog(self.ve.clone()), self.clock.boot().as_nanos() as u64, self.clock.boot());
        let (tx, rx) = mpsc::channel(ANSWERS);
        let answers = tokio::spawn(read(reader, tx));
        let (records, bulk) = (Lane::new(writer), Lane::new(bulk));
        let (pays, pace) = (Pays::default(), Pace::new(0));
        let mut streams = Streams { on: self, machine, records, bulk, rx, pays, pace, share: Share::default() };
        let ended = streams.run().await;
        if let Err(Ended::Closed(_)) = &ended {
            let _ = tokio::time::timeout(LAST_WORD, streams.last_word()).await;
        }
        answers.abort();
        ended
    }
}

/// Takes the replica's frames in until the stream ends.
async fn read(mut reader: FrameReader, tx: mpsc::Sender<Result<(Envelope, Message), NetError>>) {
    loop {
        let next = match reader.next().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => return,
            Err(e) => Err(e),
        };
        let over = next.is_err();
        if tx.send(next).await.is_err() || over {
            return;
        }
    }
}

/// A session's two streams. A frame is made when its stream has taken the one before, and its turn under the limit has come, so that bulk never stands
/// before a record.
struct Streams<'a> {
    on: &'a Shipping,
    machine: &'a mut Sender,
    records: Lane,
    bulk: Lane,
    rx: mpsc::Receiver<Result<(Envelope, Message), NetError>>,
    pays: Pays,
    pace: Pace,
    /// What of the link it has now.
    share: Share,
}

impl Streams<'_> {
    async fn run(&mut self) -> Result<(), Ended> {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut look = std::pin::pin!(tokio::time::sleep(PERIOD));
        while self.on.is_wanted() {
            self.take_share();
            for (id, len) in self.on.tail.take_early() {
                self.machine.written(id, len);
            }
            if !self.fill()? {
                break;
            }
            let turn = self.turn();
            // Acknowledgements are taken meanwhile, so that a slow link does not hide how far the replica is.
            tokio::select! {
                answer = self.rx.recv() => self.answered(answer)?,
                sent = self.records.send(), if self.records.is_busy() => sent?,
                sent = self.bulk.send(), if self.bulk.is_busy() => sent?,
                () = tokio::time::sleep_until(turn.unwrap_or_else(Instant::now)), if turn.is_some() => {}
                () = self.on.tail.changed() => self.machine.news(),
                () = &mut look, if self.on.tail.looks() => {
                    self.on.tail.looked();
                    look.as_mut().reset(Instant::now() + PERIOD);
                }
                _ = tick.tick() => {
                    if !block_in_place(|| self.on.writes()) {
                        break;
                    }
                    self.machine.news();
                    let events = self.machine.tick(self.on.clock.boot());
                    self.events(events)?;
                }
            }
        }
        Ok(())
    }

    /// The link's share may be another one than before.
    fn take_share(&mut self) {
        let share = self.on.tail.share();
        if share != self.share {
            self.pace.set_rate(share.bandwidth);
            self.machine.set_piece(self.pace.piece());
            self.records.prefer(share.weight.into());
            self.bulk.prefer(share.weight.into());
            self.share = share;
        }
    }

    /// When it is the turn of what waits for the limit, if something does.
    fn turn(&self) -> Option<Instant> {
        let records = !self.records.is_busy() && self.machine.may_say();
        let bulk = !self.bulk.is_busy() && self.machine.may_say_bulk();
        self.pace.turn().filter(|_| records || bulk)
    }

    /// Gives each stream that has room its next frame, where the limit leaves it one; words that keep the session going do not wait for that. To leave the
    /// thread to others costs a switch, so it is done once for both, and only where there is something to say. False, and nothing is said, where this node
    /// writes the VE no more: whoever has the VE locked is waited for here, and once a second.
    fn fill(&mut self) -> Result<bool, Ended> {
        let open = self.pace.turn().is_none();
        let records = !self.records.is_busy() && (self.machine.has_word() || (open && self.machine.may_say()));
        let bulk = open && !self.bulk.is_busy() && self.machine.may_say_bulk();
        if !records && !bulk {
            return Ok(true);
        }
        block_in_place(|| {
            if !self.on.writes() {
                return Ok(false);
            }
            if records && let Some(frame) = self.next_frame(false)? {
                self.records.give(frame);
            }
            // What was taken up just now may have bulk.
            if self.pace.turn().is_none()
                && !self.bulk.is_busy()
                && let Some(frame) = self.next_frame(true)?
            {
                self.bulk.give(frame);
            }
            Ok(true)
        })
    }

    /// The session is over: the replica is told why, since what it does next depends on it.
    async fn last_word(mut self) -> Result<(), Ended> {
        if self.records.is_busy() {
            self.records.send().await?;
        }
        while let Some(frame) = block_in_place(|| self.next_frame(false))? {
            self.records.give(frame);
            self.records.send().await?;
        }
        Ok(self.records.finish().await?)
    }

    /// The bytes of a stream's next frame, if there is something to say.
    fn next_frame(&mut self, bulk: bool) -> Result<Option<Vec<u8>>, Ended> {
        let (log, now) = (VeLog(self.on.ve.clone()), self.on.clock.boot());
        let next = if bulk { self.machine.poll_bulk(&log, now) } else { self.machine.poll(&log, now) };
        let Some((envelope, message)) = next? else { return Ok(None) };
        let carries = message.cost();
        let frame = wire::encode(&message, envelope, self.pays.try_it());
        self.pays.took(carries, frame.len() as u64);
        self.on.link.sent(carries, frame.len() as u64);
        self.pace.took(frame.len() as u64);
        Ok(Some(frame))
    }

    fn answered(&mut self, answer: Option<Result<(Envelope, Message), NetError>>) -> Result<(), Ended> {
        let (envelope, message) = answer.ok_or(Ended::Over)??;
        block_in_place(|| {
            let log = VeLog(self.on.ve.clone());
            let events = self.machine.receive(&log, &envelope, message, self.on.clock.boot());
            self.events(events)
        })
    }

    /// May wait for the disk.
    fn events(&mut self, events: Vec<Event>) -> Result<(), Ended> {
        let node = self.on.node();
        for event in events {
            match event {
                Event::Welcomed(position) => {
                    self.on.exposed.welcomed(node, position.txn);
                    self.acked(position);
                }
                Event::Acked(position) => {
                    self.on.exposed.acked(node, position.txn);
                    self.acked(position);
                }
                Event::NeedsCatchUp(position) => {
                    return Err(Ended::Closed(format!("catching up from transaction {}", position.txn)));
                }
                Event::Diverged(position) => {
                    self.on.exposed.diverged(node);
                    self.on.link.diverged(position);
                    self.kept(self.on.ve.doubt_cursor(node.0));
                }
                Event::HasNothing => {
                    self.on.exposed.has_nothing(node);
                    self.on.link.has_nothing();
                    self.kept(self.on.ve.doubt_cursor(node.0));
                }
                Event::HigherEpoch(epoch) => return Err(Ended::Superseded(epoch)),
                Event::Closed(closed) => return Err(ended(closed)),
            }
        }
        Ok(())
    }

    fn acked(&self, position: Position) {
        self.on.link.acked(position);
        self.kept(self.on.ve.set_cursor(self.on.node().0, position.txn));
    }

    /// What a cursor says too little of is held for longer, or counts for less, than it might.
    fn kept(&self, done: vefs::Result<()>) {
        if let Err(e) = done {
            tracing::warn!(ve = %self.on.ve.id(), node = %self.on.node(), error = %e, "a replica's cursor");
        }
    }
}

fn ended(closed: Closed) -> Ended {
    match closed {
        Closed::Refused(Refusal::OldEpoch, _) => Ended::Closed("the replica has seen a higher epoch".into()),
        Closed::Refused(why, txn) => Ended::Closed(format!("refused at transaction {txn}: {}", why.name())),
        Closed::TheyRefused(why, txn) => {
            Ended::Closed(format!("refused by the replica at transaction {txn}: {}", why.name()))
        }
        Closed::Silent => Ended::Closed("the replica is silent".into()),
    }
}
