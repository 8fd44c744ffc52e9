//! Who writes a VE: epochs, leases, the permit to lag, and statements of people (promises G16, G18, G19).
//!
//! Three ways to be sure that a former primary writes no more, from the weakest:
//!
//! - **Statement**: a person says that the node is off, durably recorded ([`Record::off`]). It holds as long as it is true.
//! - **Leases of the required replicas** ([`lease`]): a primary writes only while so many of them have promised, for a while, not to join a
//!   higher epoch, that no majority is without one. A promotion needs a majority of them to join its epoch, which they do only when their promise has
//!   ended. Two majorities meet, and a replica joins one candidate in an epoch: so an epoch belongs to one node.
//! - **An arbiter outside** ([`etcd`]): epochs come from its compare-and-set, leases from it. While it cannot be reached the replicas' promises
//!   may take the place of its lease; therefore a promotion asks the replicas as well.
//!
//! An arbiter is asked with [`Request`]s and keeps a [`Record`] for each VE. What it may answer is decided in one place ([`rules`]), for the
//! embedded [`ledger`] and for etcd.

pub mod etcd;
pub mod lease;
pub mod ledger;
pub mod rules;

use std::time::Duration;

use bincode::{Decode, Encode};
use vefs::ids::{Epoch, VeId};

use crate::node::NodeId;

/// What an arbiter keeps for a VE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    /// The epoch that may write.
    pub epoch: Epoch,
    /// The node that it was given to.
    pub owner: NodeId,
    /// The VE lags, or may, and this node has everything. No other one is promoted by itself while this stands.
    pub lagging: Option<NodeId>,
    /// A person said that this node, which had this epoch, is off.
    pub off: Option<(NodeId, Epoch)>,
}

/// What an arbiter is asked. The node that asks is `node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// The record.
    Read {
        /// Of this VE.
        ve: VeId,
    },
    /// Give `node` this epoch, if the record's is `expected` still (0 where there is none).
    Propose {
        /// The VE.
        ve: VeId,
        /// Whose the epoch is to be.
        node: NodeId,
        /// What it replaces.
        expected: Epoch,
        /// Above `expected`.
        epoch: Epoch,
        /// A person insists although the VE lags.
        forced: bool,
    },
    /// The owner, giving its epoch to another node.
    HandOver {
        /// The VE.
        ve: VeId,
        /// The owner.
        node: NodeId,
        /// The owner's epoch.
        expected: Epoch,
        /// Whose the epoch is to be.
        to: NodeId,
        /// Above `expected`.
        epoch: Epoch,
    },
    /// A lease, or more of it.
    Lease {
        /// The VE.
        ve: VeId,
        /// The owner.
        node: NodeId,
        /// The owner's epoch.
        epoch: Epoch,
        /// In milliseconds.
        ttl_ms: u64,
    },
    /// The end of a lease.
    Release {
        /// The VE.
        ve: VeId,
        /// The owner.
        node: NodeId,
        /// The owner's epoch.
        epoch: Epoch,
    },
    /// The VE may lag, or does not any more.
    Lagging {
        /// The VE.
        ve: VeId,
        /// The owner.
        node: NodeId,
        /// The owner's epoch.
        epoch: Epoch,
        /// Whether it may.
        lagging: bool,
    },
    /// A person says that the owner of this epoch is off.
    Off {
        /// The VE.
        ve: VeId,
        /// The owner.
        node: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
}

impl Request {
    /// The VE that it is about.
    pub fn ve(&self) -> VeId {
        match self {
            Request::Read { ve }
            | Request::Propose { ve, .. }
            | Request::HandOver { ve, .. }
            | Request::Lease { ve, .. }
            | Request::Release { ve, .. }
            | Request::Lagging { ve, .. }
            | Request::Off { ve, .. } => *ve,
        }
    }
}

/// What an arbiter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The record as it is now, after what was asked was done; and whether a lease runs.
    Record(Record, bool),
    /// No, because of this; and the record.
    Refused(Refused, Record),
}

/// Why an arbiter refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Refused {
    /// The record's epoch is another.
    Superseded,
    /// The epoch is not above the one before.
    NotAbove,
    /// The owner's lease runs, and nobody has said that it is off.
    LeaseRuns,
    /// The VE lags: only a person may insist.
    Lags,
}

/// An arbiter could not be asked, or what it answered makes no sense. Whether it did what was asked is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the arbiter cannot be asked: {0}")]
pub struct ArbiterError(pub String);

/// An arbiter, as shells ask it: it may wait, for no longer than the given time.
pub trait Arbiter: Send {
    /// Asks.
    fn ask(&mut self, request: &Request, timeout: Duration) -> Result<Reply, ArbiterError>;
}
