//! A VE that this node follows: its [machine](crate::apply), its store, and the streams that reach it.
//!
//! The machine's lock is held while a frame is taken, which journals and may copy a file to make its object, for as long as the disk takes; flushes of the
//! journal run beside it, and what comes of them is said on the stream whose session the machine names. Whoever only asks about the VE looks at what is
//! [known], which waits for no disk.
//!
//! Locks, in order: the machine's, what is known. The table of all VEs that follow is never held while either is taken.

mod known;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use vefs::Ve;
use vefs::clock::Clock;
use vefs::ids::{TxnNo, VeId};

pub use self::known::FollowFigures;
use self::known::{Known, Taking};
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
}

/// A VE that follows.
pub struct Following {
    id: VeId,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    known: Mutex<Known>,
    /// A whole state is being pulled.
    pub(super) pulling: AtomicBool,
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
        let (id, known) = (ve.id(), Mutex::new(Known::of(ve.clone())));
        let inner = Mutex::new(Inner { machine, follower: VeFollower::new(ve), outs: BTreeMap::new() });
        Arc::new(Following { id, clock, inner, known, pulling: AtomicBool::new(false) })
    }

    /// The machine and what it works on. Who has it may be waiting for the disk: whoever waits for that does so on a thread that nothing else needs.
    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.try_lock().unwrap_or_else(|| block_in_place(|| self.inner.lock()))
    }

    /// The VE as it is served now. Waits for no disk.
    pub fn ve(&self) -> Arc<Ve> {
        self.known.lock().ve.clone()
    }

    /// Another state has taken the place of the one that was followed so far.
    pub(super) fn replace(&self, ve: Arc<Ve>) {
        self.put(&mut self.locked(), ve);
    }

    /// The store has opened the VE anew, unless it is the one that is followed so far.
    pub(super) fn adopt(&self, ve: Arc<Ve>) {
        let mut inner = self.locked();
        if !Arc::ptr_eq(inner.follower.ve(), &ve) {
            self.put(&mut inner, ve);
        }
    }

    fn put(&self, inner: &mut Inner, ve: Arc<Ve>) {
        inner.machine.replaced();
        inner.outs.clear();
        self.known.lock().ve = ve.clone();
        inner.follower = VeFollower::new(ve);
    }

    /// Takes note of an epoch that this node has joined. Nothing of a lower one is taken in behind what is here when this returns.
    pub(super) fn note_epoch(&self, epoch: vefs::ids::Epoch) -> vefs::Result<Arc<Ve>> {
        // Frames are taken with this lock held.
        let inner = self.locked();
        let ve = inner.follower.ve().clone();
        ve.note_epoch(epoch)?;
        Ok(ve)
    }

    /// How it is. Waits for no disk.
    pub fn figures(&self) -> FollowFigures {
        let (ve, figures) = {
            let known = self.known.lock();
            (known.ve.clone(), known.figures(self.clock.boot(), self.pulling.load(Ordering::Relaxed)))
        };
        FollowFigures { durable: ve.durable_position(), ..figures }
    }

    /// Takes note of a comparison with the primary.
    pub(super) fn compared(&self, txn: TxnNo, equal: bool) {
        self.known.lock().compared(txn, equal);
    }

    /// Ends every stream: the VE is about to be written here, or to be replaced.
    pub(super) fn disconnect(&self) {
        let mut inner = self.locked();
        inner.machine.disconnected();
        inner.outs.clear();
        self.known.lock().since = None;
    }

    /// Serves a stream to its end. `first` is the primary's greeting.
    pub(super) async fn serve(self: &Arc<Self>, first: Frame, mut reader: FrameReader, writer: FrameWriter) -> Next {
        let peer = reader.peer();
        let session = first.0.session;
        let (tx, rx) = mpsc::channel(ANSWERS);
        if !self.admit(session, peer, tx) {
            return Next::Nothing;
        }
        let sending = tokio::spawn(send_all(writer, rx));
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
        self.end(session);
        // What was said last is still sent.
        let _ = tokio::time::timeout(Duration::from_secs(1), sending).await;
        next
    }

    /// Takes a stream in, unless a whole state is being pulled. Whoever pulls says so first, then ends the streams with this lock: none comes in between, and
    /// ships into a state that is about to be replaced.
    fn admit(&self, session: u64, peer: NodeId, out: mpsc::Sender<Vec<u8>>) -> bool {
        let mut inner = self.locked();
        if self.pulling.load(Ordering::Acquire) {
            return false;
        }
        inner.outs.insert(session, (peer, out));
        self.known.lock().primary = Some(peer);
        true
    }

    /// The stream of a session is gone.
    fn end(&self, session: u64) {
        let mut inner = self.locked();
        inner.outs.remove(&session);
        if inner.outs.is_empty() {
            inner.machine.disconnected();
            self.known.lock().since = None;
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
        if self.locked().outs.get(&session).is_none_or(|(peer, _)| *peer != from) {
            return;
        }
        if self.take(session, envelope, message) {
            // Its other stream ends when it looks at this.
            self.locked().outs.remove(&session);
        }
    }

    /// Takes a frame; whether the stream is over.
    fn take(self: &Arc<Self>, session: u64, envelope: &Envelope, message: Message) -> bool {
        let now = self.clock.boot();
        let mut guard = self.locked();
        let inner = &mut *guard;
        if !inner.outs.contains_key(&session) {
            return true;
        }
        // A word of somebody in a lower epoch, which is refused, is none of the primary.
        let primary = envelope.epoch >= inner.follower.highest_epoch();
        let taking = primary.then(|| Taking::begin(&self.known, now));
        let actions = inner.machine.receive(&mut inner.follower, envelope, message, now);
        drop(taking);
        self.say(inner, now);
        let over = self.settle(inner, session, &actions);
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
                let mut guard = this.locked();
                let inner = &mut *guard;
                // A state that was replaced meanwhile says nothing about the one that is followed now.
                let ours = Arc::ptr_eq(&ve, inner.follower.ve());
                let outcome = if ours { outcome } else { Ok(inner.follower.durable()) };
                let actions = inner.machine.synced(&inner.follower, outcome);
                this.say(inner, now);
                this.settle(inner, 0, &actions);
                if !actions.contains(&Action::Sync) {
                    return;
                }
                ve = inner.follower.ve().clone();
            }
        });
    }

    /// Hands what the machine has to say to the streams. One whose stream does not take it is over.
    fn say(&self, inner: &mut Inner, now: Duration) {
        while let Some((envelope, message)) = inner.machine.poll(&inner.follower, now) {
            if let Message::Welcome(_) = message {
                let mut known = self.known.lock();
                (known.since, known.refusal) = (Some(now), None);
            }
            let frame = wire::encode(&message, envelope, false);
            if let Some((_, out)) = inner.outs.get(&envelope.session)
                && out.try_send(frame).is_err()
            {
                inner.outs.remove(&envelope.session);
            }
        }
    }

    /// Takes note of how streams end; whether this one did.
    fn settle(&self, inner: &Inner, session: u64, actions: &[Action]) -> bool {
        let (ve, mut over) = (self.id, false);
        for action in actions {
            match action {
                Action::Closed(Closed::Refused(why, txn)) => {
                    tracing::warn!(%ve, %txn, why = why.name(), "refused what a primary sent");
                    self.refused(inner, *why);
                    over = true;
                }
                Action::Closed(_) => over = true,
                Action::TurnedAway(which, why) => {
                    tracing::warn!(%ve, why = why.name(), "turned a primary away");
                    self.refused(inner, *why);
                    over |= *which == session;
                }
                Action::Sync => {}
            }
        }
        over
    }

    fn refused(&self, inner: &Inner, why: Refusal) {
        let mut known = self.known.lock();
        (known.refusal, known.refusals) = (Some(why), inner.machine.refusals().clone());
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

async fn send_all(mut writer: FrameWriter, mut rx: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = rx.recv().await {
        if writer.send(frame).await.is_err() {
            return;
        }
    }
    let _ = writer.finish().await;
}

#[cfg(test)]
mod tests {
    use super::super::bed;
    use super::*;

    /// A follower copied a large file to make its object, for tens of seconds, with its machine locked. Whoever wanted its figures waited for that with the
    /// table of all VEs locked, and so nothing came in for any other VE; and promotion by itself took the primary for silent afterwards.
    #[test]
    fn a_disk_that_works_holds_up_nobody_who_asks() {
        let (store, clock) = bed::store();
        let following = Following::new(bed::follower(&store, 7), NodeId([1; 16]), clock.clone());
        let working = following.inner.lock();
        let taking = Taking::begin(&following.known, clock.boot());
        let (answers, rx) = std::sync::mpsc::channel();
        let asked = following.clone();
        clock.advance(Duration::from_secs(30));
        std::thread::spawn(move || {
            asked.compared(TxnNo(1), true);
            let _ = answers.send((asked.ve(), asked.figures()));
        });
        let (ve, figures) = rx.recv_timeout(Duration::from_secs(20)).expect("it waits for the disk");
        assert!(Arc::ptr_eq(&ve, working.follower.ve()));
        assert_eq!((figures.compared, figures.durable), (Some((TxnNo(1), true)), ve.durable_position()));
        assert_eq!(figures.heard, Some(clock.boot()), "whose frame waits for the disk is not silent");
        drop((taking, working));
        assert_eq!(following.figures().heard, Some(Duration::ZERO));
        let other = bed::follower(&store, 8);
        following.replace(other.clone());
        assert!(Arc::ptr_eq(&following.ve(), &other));
    }

    /// A pull began between the moment at which a greeting was let in and that at which its stream was there to be ended: the stream went on, into a state that
    /// was replaced under it.
    #[test]
    fn no_stream_comes_in_while_a_state_is_pulled() {
        let (store, clock) = bed::store();
        let following = Following::new(bed::follower(&store, 7), NodeId([1; 16]), clock);
        let (out, _rx) = mpsc::channel(1);
        assert!(following.admit(1, NodeId([2; 16]), out.clone()));
        following.pulling.store(true, Ordering::Release);
        following.disconnect();
        assert!(!following.admit(2, NodeId([2; 16]), out));
        assert!(following.inner.lock().outs.is_empty());
    }
}
