//! A hand-over where the required replicas name writers: the successor needs a majority of them, as any other candidate, and finds their promises ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::block_in_place;
use vefs::ids::Epoch;

use super::super::operate::{OperateError, cannot};
use super::super::promotion::Insists;
use super::super::talk::{Question as Talk, Reply as Said};
use super::super::{Inner, Led};
use super::lessors_of;
use crate::member::{Question, Reply};
use crate::node::NodeId;

impl Inner {
    /// What they reply, as far as they do.
    async fn ask_lessors(self: &Arc<Self>, led: &Led, lessors: BTreeSet<NodeId>, what: Question) -> Vec<Reply> {
        let (ve, lineage) = (led.ve.id(), led.ve.identity().lineage);
        let mut asked = tokio::task::JoinSet::new();
        for node in lessors {
            let this = self.clone();
            asked.spawn(async move { this.ask(node, Talk::Right { ve, lineage, what }).await });
        }
        let right = |reply| if let Ok(Said::Right(reply)) = reply { Some(reply) } else { None };
        asked.join_all().await.into_iter().filter_map(right).collect()
    }

    /// Refuses where the successor would not get its majority: then this node would have stepped down, and nobody would write.
    pub(in crate::runtime) async fn majority_answers(self: &Arc<Self>, led: &Led) -> Result<(), OperateError> {
        let lessors = lessors_of(&led.ve.policy()?);
        if self.terms.is_none() || lessors.is_empty() {
            return Ok(());
        }
        let all = lessors.len();
        let standing = Question::Standing { lineage: led.ve.identity().lineage };
        let replies = self.ask_lessors(led, lessors, standing).await;
        let there = replies.iter().filter(|r| matches!(r, Reply::Standing(_))).count();
        if there * 2 > all {
            return Ok(());
        }
        let text =
            format!("{there} of its {all} required replicas answer, and whom it is handed to needs more than half");
        Err(cannot(format!("VE {}: {text}; nothing was handed over", led.ve.id())))
    }

    /// This node has stepped down from this epoch: promises to it are over. Those that do not hear of it keep theirs to its end.
    pub(in crate::runtime) async fn end_promises(
        self: &Arc<Self>,
        led: &Led,
        epoch: Epoch,
    ) -> Result<(), OperateError> {
        if self.terms.is_some() {
            let lessors = lessors_of(&led.ve.policy()?);
            self.ask_lessors(led, lessors, Question::Over(epoch)).await;
        }
        Ok(())
    }

    /// This node has stepped down, and its successor did not take over: it needs what any other candidate needs, since a third one may have been faster.
    pub(in crate::runtime) async fn write_again(self: &Arc<Self>, led: &Led, epoch: Epoch) -> Result<(), OperateError> {
        let ve = led.ve.clone();
        if let Some(terms) = self.terms.filter(|_| ve.policy().is_ok_and(|p| !lessors_of(&p).is_empty())) {
            return self.claim(ve, terms, Insists::default(), false).await.map(|_| ());
        }
        let next = self.epoch_for(&ve, epoch, &Insists::default()).await?;
        block_in_place(|| self.begin_writing(&ve, next, None)).map(|_| ())
    }
}
