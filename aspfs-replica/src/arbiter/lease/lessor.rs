//! A replica's side.

use std::time::Duration;

use bincode::{Decode, Encode};
use vefs::ids::Epoch;

use super::Terms;
use crate::member::Stamp;
use crate::node::NodeId;

/// What a lessor has on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Promised {
    /// The epoch that was joined last, and with whom: nobody else is joined in it.
    pub vote: Option<(Epoch, NodeId)>,
    /// A lease may run: to whom, in which epoch, and how many milliseconds it has at most.
    pub lease: Option<(Epoch, NodeId, u64)>,
    /// This node, as the primary, said that it may lag: it has everything. Stays until a primary says that it does not.
    pub lagging: Option<NodeId>,
}

/// Where that is kept.
pub trait Promises {
    /// Replaces it, durably.
    fn save(&mut self, promised: &Promised) -> Result<(), String>;
}

/// What becomes of a request for a lease, or to be told about lagging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// It is given.
    Granted,
    /// There is a higher epoch.
    Refused(Epoch),
    /// A promise to another node ends only after this long.
    NotYet(Duration),
    /// The store failed.
    Failed,
}

/// What becomes of a request to join an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Joined. The epoch has to be noted durably by the caller before it says so.
    Joined,
    /// A higher epoch was joined or seen, or another node was joined in this one.
    Refused(Epoch),
    /// A promise ends only after this long.
    NotYet(Duration),
    /// The store failed.
    Failed,
}

/// The machine, for one VE.
#[derive(Clone, Debug)]
pub struct Lessor {
    promised: Promised,
    until: Duration,
    /// The last that a primary said about lagging, in this life of this machine: what is under way from another one has ended with it.
    heard: Option<(Epoch, NodeId, Stamp)>,
    /// Until then something may have been promised that the disk does not tell of.
    unknown_until: Duration,
}

impl Lessor {
    /// With what is on disk. A lease that may run is taken as given now, as nobody knows when it was.
    pub fn new(promised: Promised, now: Duration) -> Lessor {
        let ttl = promised.lease.map_or(Duration::ZERO, |(.., ms)| Duration::from_millis(ms));
        Lessor { promised, until: now + ttl.min(Terms::TTL_MAX), heard: None, unknown_until: Duration::ZERO }
    }

    /// With nothing on disk, which may be another disk than the one that a promise was noted on: it has ended by then.
    pub fn blank(until: Duration) -> Lessor {
        Lessor { unknown_until: until, ..Lessor::new(Promised::default(), Duration::ZERO) }
    }

    /// What is on disk.
    pub fn promised(&self) -> &Promised {
        &self.promised
    }

    /// Whether a promise runs, and to whom.
    pub fn runs(&self, now: Duration) -> Option<NodeId> {
        self.promised.lease.filter(|_| now < self.until).map(|(_, node, _)| node)
    }

    /// The primary `node` asks for a lease in `epoch`. `highest`: the highest epoch that is noted here.
    pub fn lease(
        &mut self,
        store: &mut dyn Promises,
        (epoch, node, ttl): (Epoch, NodeId, Duration),
        highest: Epoch,
        now: Duration,
    ) -> Grant {
        if let Some(above) = self.above(epoch, node, highest) {
            return Grant::Refused(above);
        }
        if self.runs(now).is_some_and(|other| other != node) {
            return Grant::NotYet(self.until - now);
        }
        let ttl = ttl.min(Terms::TTL_MAX);
        let ms = ttl.as_millis() as u64;
        let longest = self.promised.lease.filter(|(e, n, _)| (*e, *n) == (epoch, node)).map_or(ms, |l| l.2.max(ms));
        let next = Promised { vote: Some((epoch, node)), lease: Some((epoch, node, longest)), ..self.promised };
        if next != self.promised && store.save(&next).is_err() {
            return Grant::Failed;
        }
        self.promised = next;
        self.until = self.until.max(now + ttl);
        Grant::Granted
    }

    /// An epoch that keeps `node` from having `epoch`.
    fn above(&self, epoch: Epoch, node: NodeId, highest: Epoch) -> Option<Epoch> {
        let voted = self.promised.vote.filter(|(e, n)| *e > epoch || (*e == epoch && *n != node));
        let seen = voted.map(|(e, _)| e).into_iter().chain((highest > epoch).then_some(highest)).max()?;
        // One that is not higher would not be understood as a refusal.
        Some(if seen == epoch { epoch.restarted() } else { seen })
    }

    /// `node` wants to be the primary in `epoch`.
    pub fn join(
        &mut self,
        store: &mut dyn Promises,
        epoch: Epoch,
        node: NodeId,
        highest: Epoch,
        now: Duration,
    ) -> Join {
        let again = self.promised.vote == Some((epoch, node));
        if let Some(above) = self.above(epoch, node, highest).or((highest == epoch && !again).then_some(highest)) {
            return Join::Refused(above);
        }
        if self.runs(now).is_some_and(|other| other != node) {
            return Join::NotYet(self.until - now);
        }
        if !again && now < self.unknown_until {
            return Join::NotYet(self.unknown_until - now);
        }
        let next = Promised { vote: Some((epoch, node)), lease: None, ..self.promised };
        if next != self.promised && store.save(&next).is_err() {
            return Join::Failed;
        }
        self.promised = next;
        Join::Joined
    }

    /// The primary says that it may lag, or does not any more: durable before this returns (promise G16). What comes late, behind what it said
    /// afterwards, fails: nobody waits for the answer any more.
    pub fn lagging(
        &mut self,
        store: &mut dyn Promises,
        (epoch, node): (Epoch, NodeId),
        (lagging, stamp): (bool, Stamp),
        highest: Epoch,
    ) -> Grant {
        if let Some(above) = self.above(epoch, node, highest) {
            return Grant::Refused(above);
        }
        if self.heard.is_some_and(|(e, n, heard)| (e, n) == (epoch, node) && stamp.is_behind(&heard)) {
            return Grant::Failed;
        }
        // Also where it cannot be saved: it was said, and what was said before does not count.
        self.heard = Some((epoch, node, stamp));
        let next = Promised { lagging: lagging.then_some(node), ..self.promised };
        if next != self.promised && store.save(&next).is_err() {
            return Grant::Failed;
        }
        self.promised = next;
        Grant::Granted
    }

    /// The node that had the lease has stopped writing in this epoch and in those below, durably, or a person said that it is off: its lease is over.
    /// One that it was given since, in a higher epoch, is not.
    pub fn over(&mut self, store: &mut dyn Promises, node: NodeId, epoch: Epoch) -> Result<(), String> {
        if self.promised.lease.is_none_or(|(e, n, _)| n != node || e > epoch) {
            return Ok(());
        }
        let next = Promised { lease: None, ..self.promised };
        store.save(&next)?;
        self.promised = next;
        Ok(())
    }
}
