//! The first thing that a node does with a VE that it wrote before it started, where people name writers: it asks the VE's other nodes whether one of them was
//! promoted meanwhile. Whoever promoted it said that this node was off; now it is back, and what it let programs write until it was greeted would be kept as a
//! branch, and lost to them (promises G18, G22).
//!
//! Nobody has to answer: who cannot be reached is not waited for, since a VE whose replicas are away is written all the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, block_in_place};
use vefs::change::Policy;
use vefs::ids::Epoch;

use super::fence::superseded;
use super::peers::named;
use super::talk::{Question, Reply};
use super::{Inner, Led};
use crate::node::NodeId;

/// How long programs wait for that at most.
const PATIENCE: Duration = Duration::from_secs(1);

impl Inner {
    /// Has programs wait until the others were asked.
    pub(super) fn ask_first(self: &Arc<Self>, led: &Arc<Led>, policy: &Policy) {
        let me = self.me();
        let others: Vec<NodeId> = named(policy).into_iter().filter(|n| *n != me).collect();
        led.exposed.doubt(true);
        let (inner, led) = (Arc::downgrade(self), led.clone());
        self.runtime.spawn(async move {
            let Some(inner) = inner.upgrade() else { return };
            let higher = inner.higher_epoch(&led, others).await;
            // Whoever was promoted may have greeted, and this node follows already.
            if let Some(epoch) = higher.filter(|_| inner.leads(&led)) {
                block_in_place(|| superseded(&led.ve, &led.exposed, epoch));
            }
            led.exposed.doubt(false);
        });
    }

    /// A higher epoch that one of these nodes knows of.
    async fn higher_epoch(self: &Arc<Self>, led: &Led, others: Vec<NodeId>) -> Option<Epoch> {
        let (ve, lineage, ours) = (led.ve.id(), led.ve.identity().lineage, block_in_place(|| led.ve.epoch()));
        let mut answers = JoinSet::new();
        for node in others {
            let this = self.clone();
            answers.spawn(async move { this.ask_for(PATIENCE, node, Question::Position { ve, lineage }).await });
        }
        while let Some(answer) = answers.join_next().await {
            if let Ok(Ok(Reply::At { epoch, .. })) = answer
                && epoch > ours
            {
                return Some(epoch);
            }
        }
        None
    }
}
