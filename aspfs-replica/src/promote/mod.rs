//! How a VE gets another primary, and what becomes of the former one (promises G18, G21 to G23).
//!
//! - [`Promotion`]: the former primary is gone. Who is asked, who is chosen, on what grounds, in which order things become durable.
//! - [`Switchover`]: the former primary is there. It steps down for one node, durably, before that node writes.
//! - [`Boot`]: a primary that starts, and cannot know what happened meanwhile.
//! - [`back`]: a node whose history may have gone another way: its tail gets a name, and it follows.
//!
//! An **epoch** is above every epoch that was heard of: its term is one higher. In its lower half it begins with a number made of the node's
//! identity, so that two nodes that did not hear of each other do not meet in one epoch (promise G13); where an arbiter or a majority of replicas
//! gives epochs that cannot happen anyway.
//!
//! **Order of histories**: of two heads the one whose last transaction has the higher epoch is the later, then the one with the higher number: the
//! history of a higher epoch began behind what was chosen then, and what a lower epoch has beyond is a tail to be kept aside.

pub mod back;
mod boot;
mod promotion;
mod switchover;

#[cfg(test)]
mod tests;

use vefs::ids::{Epoch, Hash, Position};

use crate::node::NodeId;
pub use boot::{Boot, BootAction};
pub use promotion::{Action, Candidate, Chosen, Event, Promotion, Refused};
pub use switchover::{Handed, Switchover, SwitchoverAction, SwitchoverEvent, Take, Who, take};

/// Why the former primary writes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// A person says that `old` is off, and that it had at most the epoch `above`, if that is known (else 0).
    Statement {
        /// The former primary.
        old: NodeId,
        /// Its epoch, or 0.
        above: Epoch,
    },
    /// It stepped down for this node, and says so itself.
    SteppedDown,
    /// The required replicas' promises to it have ended.
    Leases,
    /// The arbiter says so, and the replicas' promises have ended.
    Arbiter,
}

/// Whether `a` is a later head than `b`.
pub fn is_later(a: &Position, b: &Position) -> bool {
    (a.epoch, a.txn) > (b.epoch, b.txn)
}

/// The epoch of a promotion of `node`, above everything up to `highest`.
pub fn next_epoch(highest: Epoch, node: NodeId) -> Epoch {
    let digest = Hash::of(&node.0).0;
    // Restarts count in the lower 16 bits; the top bit stays free, so that they never reach the next term.
    let salt = u64::from(u16::from_le_bytes([digest[0], digest[1]]) & 0x7fff) << 16;
    Epoch(highest.promoted().0 | salt)
}
