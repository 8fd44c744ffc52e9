//! What both sides of a stream keep: which session it is, the numbers of frames, and when the other side was last heard.
//!
//! Invariant: a frame is taken in once, and in order. One of another session or one that was taken in already is dropped without
//! effect; one that leaves a gap ends the session (promise G10).

use std::time::Duration;

use vefs::ids::{Epoch, TxnNo, VeId};

use crate::wire::{Envelope, Refusal};

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

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub id: u64,
    ve: VeId,
    taken: u64,
    given: u64,
    heard: Duration,
    spoke: Duration,
}

impl Session {
    pub fn new(ve: VeId, id: u64, now: Duration) -> Session {
        Session { id, ve, taken: 0, given: 0, heard: now, spoke: now }
    }

    pub fn incoming(&mut self, envelope: &Envelope, now: Duration) -> Incoming {
        if envelope.session != self.id || envelope.ve != Some(self.ve) || envelope.seq < self.taken {
            return Incoming::Stale;
        }
        if envelope.seq > self.taken {
            return Incoming::Gap;
        }
        self.taken += 1;
        self.heard = self.heard.max(now);
        Incoming::Fresh
    }

    pub fn outgoing(&mut self, epoch: Epoch, now: Duration) -> Envelope {
        let seq = self.given;
        self.given += 1;
        self.spoke = self.spoke.max(now);
        Envelope { ve: Some(self.ve), epoch, session: self.id, seq }
    }

    pub fn is_silent(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard) >= SILENT_AFTER
    }

    pub fn wants_ping(&self, now: Duration) -> bool {
        now.saturating_sub(self.spoke) >= PING_AFTER
    }
}
