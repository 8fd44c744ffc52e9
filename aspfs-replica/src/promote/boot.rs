//! A primary that starts: somebody may have been promoted while it was away.
//!
//! It writes only when every required replica has said that it has seen no higher epoch, or a person says that nobody else was promoted. With leases
//! or an arbiter the lease would keep it from writing as well; a statement that it is off ends with its start, so that this question is what keeps
//! the promise then (G18).

use std::collections::BTreeMap;
use std::time::Duration;

use vefs::ids::{Epoch, Lineage};

use crate::member::{Question, Reply};
use crate::node::NodeId;

/// After so long a replica is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootAction {
    /// Ask it.
    Ask(NodeId, Question),
    /// Begin to write, in the next epoch of the term, made durable before.
    Open(Epoch),
    /// There is a higher epoch: this node writes no more.
    Superseded(NodeId, Epoch),
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Boot {
    lineage: Lineage,
    epoch: Epoch,
    /// When each that has not replied was asked last.
    waits: BTreeMap<NodeId, Option<Duration>>,
    over: bool,
}

impl Boot {
    /// A VE that was written here in `epoch`.
    pub fn new(lineage: Lineage, epoch: Epoch, required: impl IntoIterator<Item = NodeId>) -> Boot {
        Boot { lineage, epoch, waits: required.into_iter().map(|n| (n, None)).collect(), over: false }
    }

    /// The replicas that have not said anything yet.
    pub fn waits_for(&self) -> impl Iterator<Item = NodeId> {
        self.waits.keys().copied()
    }

    /// A person says that nobody else was promoted.
    pub fn stated(&mut self) -> Vec<BootAction> {
        self.waits.clear();
        self.open()
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) -> Vec<BootAction> {
        if self.over || self.waits.is_empty() {
            return self.open();
        }
        let lineage = self.lineage;
        let due = self.waits.iter_mut().filter(|(_, asked)| asked.is_none_or(|at| now >= at + AGAIN));
        due.map(|(node, asked)| {
            *asked = Some(now);
            BootAction::Ask(*node, Question::Standing { lineage })
        })
        .collect()
    }

    /// A member replied.
    pub fn replied(&mut self, node: NodeId, reply: &Reply) -> Vec<BootAction> {
        match reply {
            Reply::Standing(s) if s.position.lineage == self.lineage && !self.over => {
                if s.epoch > self.epoch {
                    self.over = true;
                    return vec![BootAction::Superseded(node, s.epoch)];
                }
                self.waits.remove(&node);
                self.open()
            }
            _ => vec![],
        }
    }

    fn open(&mut self) -> Vec<BootAction> {
        if !self.waits.is_empty() || std::mem::replace(&mut self.over, true) {
            return vec![];
        }
        vec![BootAction::Open(self.epoch.restarted())]
    }
}
