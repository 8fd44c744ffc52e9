//! What both sides of a stream keep: which session it is, the numbers of frames, and when the other side was last heard.
//!
//! A session has two streams, and each of them its own order: records with everything that is said about them, and bulk ahead of its records.
//!
//! Invariant: a frame is taken in once, and in its stream's order. One of another session or one that was taken in already is dropped without
//! effect; one that leaves a gap ends the session (promise G10).

use std::collections::VecDeque;
use std::time::Duration;

use vefs::ids::{Epoch, TxnNo, VeId};

use crate::wire::{Envelope, Message, Refusal};

/// After so long without a frame to send, a ping is sent.
pub const PING_AFTER: Duration = Duration::from_secs(1);
/// After so long without a frame from the other side, the session is over.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// This side refuses.
    Refused(Refusal, TxnNo),
    /// The other side did.
    TheyRefused(Refusal, TxnNo),
    /// Nothing was heard.
    Silent,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Fresh,
    Stale,
    Gap,
}

/// Puts the answer to a ping behind what is to be said. There is one at most: the newest says what those before it would have.
pub(crate) fn pong(outbox: &mut VecDeque<Message>, n: u64) {
    match outbox.iter_mut().find(|m| matches!(m, Message::Pong(_))) {
        Some(waiting) => *waiting = Message::Pong(n),
        None => outbox.push_back(Message::Pong(n)),
    }
}

/// Numbers of frames of the two streams.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    records: u64,
    bulk: u64,
}

impl Numbers {
    fn of(&mut self, bulk: bool) -> &mut u64 {
        if bulk { &mut self.bulk } else { &mut self.records }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub id: u64,
    ve: VeId,
    taken: Numbers,
    given: Numbers,
    heard: Duration,
    spoke: Duration,
    spoke_bulk: Duration,
}

impl Session {
    pub fn new(ve: VeId, id: u64, now: Duration) -> Session {
        Session {
            id,
            ve,
            taken: Numbers::default(),
            given: Numbers::default(),
            heard: now,
            spoke: now,
            spoke_bulk: now,
        }
    }

    pub fn incoming(&mut self, envelope: &Envelope, message: &Message, now: Duration) -> Incoming {
        let taken = self.taken.of(message.is_bulk());
        if envelope.session != self.id || envelope.ve != Some(self.ve) || envelope.seq < *taken {
            return Incoming::Stale;
        }
        if envelope.seq > *taken {
            return Incoming::Gap;
        }
        *taken += 1;
        self.heard = self.heard.max(now);
        Incoming::Fresh
    }

    pub fn outgoing(&mut self, epoch: Epoch, message: &Message, now: Duration) -> Envelope {
        let given = self.given.of(message.is_bulk());
        let seq = *given;
        *given += 1;
        // Either stream may be quiet while the other is not.
        let spoke = if message.is_bulk() { &mut self.spoke_bulk } else { &mut self.spoke };
        *spoke = now.max(*spoke);
        Envelope { ve: Some(self.ve), epoch, session: self.id, seq }
    }

    /// Frames of bulk that were taken in.
    pub fn bulk_taken(&self) -> u64 {
        self.taken.bulk
    }

    pub fn is_silent(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard) >= SILENT_AFTER
    }

    /// Whether the stream of bulk has been used, and been quiet since.
    pub fn wants_bulk_ping(&self, now: Duration) -> bool {
        self.given.bulk > 0 && now.saturating_sub(self.spoke_bulk) >= PING_AFTER
    }

    pub fn wants_ping(&self, now: Duration) -> bool {
        now.saturating_sub(self.spoke) >= PING_AFTER
    }
}
