//! A VE that this node follows: its [machine](crate::apply), its store, and the streams that reach it.
//!
//! The machine's lock is held while a frame is taken, which journals but never flushes; flushes run beside it, and what comes of them
//! is said on the stream whose session the machine names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use vefs::Ve;
use vefs::clock::Clock;
use vefs::ids::{Position, TxnNo, VeId};

use crate::apply::{Action, Receiver};
use crate::local::VeFollower;
use crate::log::{FollowError, Follower};
use crate::net::{FrameReader, FrameWriter, NetError};
use crate::node::NodeId;
use crate::session::Closed;
use crate::wire::{self, Envelope, Message, Refusal};

/// Frames that wait to be sent to the primary.
const ANSWERS: usize = 256;

type Frame = (Envelope, Message);

struct Inner {
    machine: Receiver,
    follower: VeFollower,
    /// Of each session, whose it is and where its frames go.
    outs: BTreeMap<u64, (NodeId, mpsc::Sender<Vec<u8>>)>,
    /// Who ships, and the last word about it.
    primary: Option<NodeId>,
    refusal: Option<Refusal>,
    since: Option<Duration>,
    heard: Option<Duration>,
    /// The last comparison with the primary, and how many found a difference.
    compared: Option<(TxnNo, bool)>,
    differences: u64,
}

/// A VE that follows.
pub struct Following {
    id: VeId,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    /// A whole state is being pulled.
    pub(super) pulling: AtomicBool,
}

/// What is known of a VE that follows.
#[derive(Clone, Debug)]
pub struct FollowFigures {
    /// The node that ships it, if one ever did in this run.
    pub primary: Option<NodeId>,
    /// Whether it is connected.
    pub connected: bool,
    /// When it was heard last in this run, in time since boot.
    pub heard: Option<Duration>,
    /// What it has, durably.
    pub durable: Position,
    /// The last refusal of a stream.
    pub refusal: Option<Refusal>,
    /// How often each refusal was made.
    pub refusals: BTreeMap<Refusal, u64>,
    /// A whole state is being pulled.
    pub pulling: bool,
    /// The version that was compared with the primary's last in this run, and whether they were equal.
    pub compared: Option<(TxnNo, bool)>,
    /// How many comparisons found a difference.
    pub differences: u64,
}

/// What a stream's end calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// The primary's journal does not reach back to what is here: its whole state is needed.
    CatchUp,
    /// What is here is no part of the primary's history: its whole state is needed, and what is here is put aside.
    Rewind,
}

impl Following {
    pub(super) fn new(ve: Arc<Ve>, me: NodeId, clock: Arc<dyn Clock>) -> Arc<Following> {
        let machine = Receiver::new(me, ve.id());
        let (id, follower) = (ve.id(), VeFollower::new(ve));
        let outs = BTreeMap::new();
        let inner = Inner {
            machine,
            follower,
            outs,
            primary: None,
            refusal: None,
            since: None,
            heard: None,
            compared: None,
            differences: 0,
        };
        let inner = Mutex::new(inner);
        Arc::new(Following { id, clock, inner, pulling: AtomicBool::new(false) })
    }

    /// The VE as it is served now.
    pub fn ve(&self) -> Arc<Ve> {
        self.inner.lock().follower.ve().clone()
    }

    /// Another state has taken the place of the one that was followed so far.
    pub(super) fn replace(&self, ve: Arc<Ve>) {
        let mut inner = self.inner.lock();
        inner.machine.disconnected();
        inner.outs.clear();
        inner.follower = VeFollower::new(ve);
    }

    /// Takes note of an epoch that this node has joined. Nothing of a lower one is taken in behind what is here when this returns.
    pub(super) fn note_epoch(&self, epoch: vefs::ids::Epoch) -> vefs::Result<Arc<Ve>> {
        // Frames are taken with this lock held.
        let inner = self.inner.lock();
        let ve = inner.follower.ve().clone();
        ve.note_epoch(epoch)?;
        Ok(ve)
    }

    /// How it is.
    pub fn figures(&self) -> FollowFigures {
        let inner = self.inner.lock();
        FollowFigures {
            primary: inner.primary,
            connected: inner.since.is_some(),
            heard: inner.heard,
            durable: inner.follower.durable(),
            refusal: inner.refusal,
            refusals: inner.machine.refusals().clone(),
            pulling: self.pulling.load(Ordering::Relaxed),
            compared: inner.compared,
            differences: inner.differences,
        }
    }

    /// Takes note of a comparison with the primary.
    pub(super) fn compared(&self, txn: TxnNo, equal: bool) {
        let mut inner = self.inner.lock();
        inner.compared = Some((txn, equal));
        inner.differences += u64::from(!equal);
    }

    /// Ends every stream: the VE is about to be written here, or to be replaced.
    pub(super) fn disconnect(&self) {
        let mut inner = self.inner.lock();
        inner.machine.disconnected();
        inner.outs.clear();
        inner.since = None;
    }

    /// Serves a stream to its end. `first` is the primary's greeting.
    pub(super) async fn serve(self: &Arc<Self>, first: Frame, mut reader: FrameReader, writer: FrameWriter) -> Next {
        let peer = reader.peer();
        let session = first.0.session;
        let (tx, rx) = mpsc::channel(ANSWERS);
        let sending = tokio::spawn(send_all(writer, rx));
        {
            let mut inner = self.inner.lock();
            inner.outs.insert(session, (peer, tx));
            inner.primary = Some(peer);
        }
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut frame = Some(first);
        let next = loop {
            if let Some((envelope, message)) = frame.take() {
                let told = told(&message);
                let over = block_in_place(|| self.take(session, &envelope, message));
                if let Some(next) = told {
                    break next;
                }
                if over {
                    break Next::Nothing;
                }
            }
            tokio::select! {
                next = reader.next() => match next {
                    Ok(Some(f)) => frame = Some(f),
                    Ok(None) | Err(NetError::Closed) => break Next::Nothing,
                    Err(e) => {
                        tracing::debug!(ve = %self.id, %peer, error = %e, "a primary's stream");
                        break Next::Nothing;
                    }
                },
                _ = tick.tick() => if self.silent(session) { break Next::Nothing },
            }
        };
        block_in_place(|| self.end(session));
        // What was said last is still sent.
        let _ = tokio::time::timeout(Duration::from_secs(1), sending).await;
        next
    }

    /// The stream of a session is gone.
    fn end(&self, session: u64) {
        let mut inner = self.inner.lock();
        inner.outs.remove(&session);
        if inner.outs.is_empty() {
            inner.machine.disconnected();
            inner.since = None;
        }
    }

    fn silent(&self, session: u64) -> bool {
        // Whoever has it takes a frame, and may wait for the disk with it: that is not silence.
        let Some(mut inner) = self.inner.try_lock() else { return false };
        let gone = !inner.outs.contains_key(&session);
        let now = self.clock.boot();
        gone || inner.machine.tick(now).iter().any(|a| matches!(a, Action::Closed(_)))
    }

    /// Takes a chunk from the stream of bulk of whoever has the session. One of a session that is over says nothing.
    pub(super) fn take_bulk(self: &Arc<Self>, from: NodeId, envelope: &Envelope, message: Message) {
        let session = envelope.session;
        if self.inner.lock().outs.get(&session).is_none_or(|(peer, _)| *peer != from) {
            return;
        }
        if self.take(session, envelope, message) {
            // Its other stream ends when it looks at this.
            self.inner.lock().outs.remove(&session);
        }
    }

    /// Takes a frame; whether the stream is over.
    fn take(self: &Arc<Self>, session: u64, envelope: &Envelope, message: Message) -> bool {
        let now = self.clock.boot();
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if !inner.outs.contains_key(&session) {
            return true;
        }
        let actions = inner.machine.receive(&mut inner.follower, envelope, message, now);
        // A word of somebody in a lower epoch, which has just been refused, is none of the primary.
        if envelope.epoch >= inner.follower.highest_epoch() {
            inner.heard = Some(now);
        }
        inner.say(now);
        let over = inner.settle(self.id, session, &actions);
        if actions.contains(&Action::Sync) {
            self.flush(inner.follower.ve().clone());
        }
        over
    }

    /// Makes what was received durable, beside everything else, and says so.
    fn flush(self: &Arc<Self>, ve: Arc<Ve>) {
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut ve = ve;
            loop {
                let outcome = ve.sync().map(|()| ve.durable_position());
                let outcome = outcome.map_err(|e| FollowError::Store(e.to_string()));
                let now = this.clock.boot();
                let mut guard = this.inner.lock();
                let inner = &mut *guard;
                // A state that was replaced meanwhile says nothing about the one that is followed now.
                let ours = Arc::ptr_eq(&ve, inner.follower.ve());
                let outcome = if ours { outcome } else { Ok(inner.follower.durable()) };
                let actions = inner.machine.synced(&inner.follower, outcome);
                inner.say(now);
                inner.settle(this.id, 0, &actions);
                if !actions.contains(&Action::Sync) {
                    return;
                }
                ve = inner.follower.ve().clone();
            }
        });
    }
}

/// What a primary's last word calls for.
fn told(message: &Message) -> Option<Next> {
    match message {
        Message::Refused(Refusal::Diverged, _) => Some(Next::Rewind),
        Message::Refused(Refusal::TooOld, _) => Some(Next::CatchUp),
        _ => None,
    }
}

impl Inner {
    /// Hands what the machine has to say to the streams. One whose stream does not take it is over.
    fn say(&mut self, now: Duration) {
        while let Some((envelope, message)) = self.machine.poll(&self.follower, now) {
            if let Message::Welcome(_) = message {
                (self.since, self.refusal) = (Some(now), None);
            }
            let frame = wire::encode(&message, envelope, false);
            if let Some((_, out)) = self.outs.get(&envelope.session)
                && out.try_send(frame).is_err()
            {
                self.outs.remove(&envelope.session);
            }
        }
    }

    /// Takes note of how streams end; whether this one did.
    fn settle(&mut self, ve: VeId, session: u64, actions: &[Action]) -> bool {
        let mut over = false;
        for action in actions {
            match action {
                Action::Closed(Closed::Refused(why, txn)) => {
                    tracing::warn!(%ve, %txn, why = why.name(), "refused what a primary sent");
                    self.refusal = Some(*why);
                    over = true;
                }
                Action::Closed(_) => over = true,
                Action::TurnedAway(which, why) => {
                    tracing::warn!(%ve, why = why.name(), "turned a primary away");
                    self.refusal = Some(*why);
                    over |= *which == session;
                }
                Action::Sync => {}
            }
        }
        over
    }
}

async fn send_all(mut writer: FrameWriter, mut rx: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = rx.recv().await {
        if writer.send(frame).await.is_err() {
            return;
        }
    }
    let _ = writer.finish().await;
}
