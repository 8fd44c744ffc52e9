//! Who may speak about a VE (promise G30): the nodes that its own policy names, as its writer or as replicas. That a peer is a member of the cluster is not
//! enough to fence a VE, take it over, read it or declare it destroyed.
//!
//! The policy travels in the journal, so a node that was away has an old one. Whom that does not name may be let in by those whom it names, if they
//! follow as high an epoch: a node that was removed from the list in the present epoch is vouched for by nobody. A VE that is not here has no policy:
//! every member of the cluster may have it followed here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::block_in_place;
use vefs::Ve;
use vefs::change::Policy;
use vefs::ids::{Epoch, Lineage, VeId};

use super::Inner;
use super::operate::ASKED;
use super::talk::{Question, Reply};
use crate::catchup::Ask;
use crate::node::NodeId;

/// What a peer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// To ship to this node, as the VE's writer.
    Hello,
    /// To know how far the VE is here.
    Position,
    /// That this node writes from now on.
    TakeOver,
    /// That the VE is destroyed.
    Destroyed,
    /// That this node vouches for another one.
    Member,
    /// A whole state, or parts of one.
    State,
    /// That this node promises, or joins an epoch.
    Right,
}

impl Word {
    /// All of them.
    pub const ALL: [Word; 7] =
        [Word::Hello, Word::Position, Word::TakeOver, Word::Destroyed, Word::Member, Word::State, Word::Right];

    /// Its name, as logs and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Word::Hello => "hello",
            Word::Position => "position",
            Word::TakeOver => "take over",
            Word::Destroyed => "destroyed",
            Word::Member => "member",
            Word::State => "state",
            Word::Right => "right",
        }
    }
}

/// How often peers were turned away that are none of a VE's nodes.
#[derive(Default)]
pub struct Strangers([AtomicU64; Word::ALL.len()]);

impl Strangers {
    /// One more; says so.
    pub(super) fn count(&self, word: Word, from: NodeId, ve: Option<VeId>) {
        self.0[word as usize].fetch_add(1, Ordering::Relaxed);
        let ve = ve.map(|v| v.to_string());
        match word {
            // Two nodes write it, if that one was promoted after it had been removed here.
            Word::Hello => {
                tracing::error!(%from, ve, "ALARM: a node that is none of the VE's nodes says that it writes it")
            }
            _ => tracing::warn!(%from, ve, word = word.name(), "turned away: none of the VE's nodes"),
        }
    }

    /// Each of them.
    pub fn all(&self) -> [(Word, u64); Word::ALL.len()] {
        Word::ALL.map(|word| (word, self.0[word as usize].load(Ordering::Relaxed)))
    }
}

/// The nodes that a policy names: replicas, and the writer.
pub(super) fn named(policy: &Policy) -> BTreeSet<NodeId> {
    let all = policy.replicas.iter().map(|r| r.node).chain([policy.writer]);
    all.filter(|n| *n != [0; 16]).map(NodeId).collect()
}

impl Inner {
    /// The nodes of a VE, as it has them here. A policy that cannot be read names nobody.
    pub(super) fn members(&self, ve: &Ve) -> BTreeSet<NodeId> {
        let policy = ve.policy().inspect_err(|e| tracing::error!(ve = %ve.id(), error = %e, "reading a policy"));
        policy.map(|p| named(&p)).unwrap_or_default()
    }

    /// The VE of this history, if it is here.
    pub(super) fn of_lineage(&self, ve: VeId, lineage: Lineage) -> Option<Arc<Ve>> {
        let found = self.store.has_ve(ve).then(|| self.store.ve(ve).ok()).flatten()?;
        (found.identity().lineage == lineage).then_some(found)
    }

    /// Whether a node may greet with this epoch: it is named, or one that is named vouches for it.
    pub(super) async fn may_greet(self: &Arc<Self>, from: NodeId, ve: VeId, lineage: Lineage, epoch: Epoch) -> bool {
        let known = block_in_place(|| self.of_lineage(ve, lineage).map(|found| self.members(&found)));
        // What is not here, or another history, is refused or begun for other reasons.
        let Some(known) = known else { return true };
        if known.contains(&from) {
            return true;
        }
        let me = self.cluster.node();
        let mut answers = tokio::task::JoinSet::new();
        for node in known.into_iter().filter(|n| *n != me) {
            let this = self.clone();
            let question = Question::Member { ve, lineage, node: from, epoch };
            answers.spawn(async move { tokio::time::timeout(ASKED, this.ask(node, question)).await });
        }
        while let Some(answer) = answers.join_next().await {
            if let Ok(Ok(Ok(Reply::Done))) = answer {
                tracing::info!(%ve, %from, "let in: another node of the VE vouches for it");
                return true;
            }
        }
        false
    }

    /// Whether this node vouches for another one: it follows or writes as high an epoch, and the policy names it.
    pub(super) fn vouches(&self, found: &Ve, node: NodeId, epoch: Epoch) -> bool {
        found.epoch() >= epoch && self.members(found).contains(&node)
    }

    /// Whether a node may have what it asks for. Trees and objects are of no VE: every node may have them that has to do with any VE here.
    pub(super) fn may_have(&self, from: NodeId, ask: &Ask) -> bool {
        let named = |ve: VeId| self.store.ve(ve).is_ok_and(|found| self.members(&found).contains(&from));
        match ask.ve() {
            Some(ve) => !self.store.has_ve(ve) || named(ve),
            None => self.held.has(from) || self.store.list().is_ok_and(|ves| ves.into_iter().any(named)),
        }
    }
}
