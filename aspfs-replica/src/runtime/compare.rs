//! Whether what a node has of a VE that it follows is what the primary has (promise G13). The chain hash of a stream proves that the same records came; that they
//! were applied to the same state, only the state says. So the follower asks for the logical root of a version that it has whole, and makes its own.
//!
//! A difference is a fault of one of the two stores or of the program. The follower gets the primary's state anew, and what it had stays as a branch: nothing
//! is thrown away before somebody has looked at it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;
use vefs::Ve;
use vefs::ids::{Hash, Position, TxnNo, VeId};
use vefs::ve::Known;

use super::talk::{Question, Reply};
use super::{Inner, Runtime};

/// How long the other side may take to read a whole state's keys.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Both have the same state after this transaction.
    Equal(TxnNo),
    /// They have not. The primary's is being pulled, unless that could not begin.
    Differs(TxnNo),
    /// It could not be done, and why.
    Not(String),
}

impl Runtime {
    /// Compares a VE that this node follows with its primary, and heals it where they differ.
    pub fn compare(&self, ve: VeId) -> Compared {
        let inner = self.inner().clone();
        self.block_on(async move { inner.compare(ve).await })
    }

    /// Compares every VE that this node follows, one after the other, in the background.
    pub fn compare_all(&self) {
        let inner = self.inner().clone();
        let ids: Vec<VeId> = inner.followed.lock().keys().copied().collect();
        let comparing = inner.clone();
        inner.runtime.spawn(async move {
            for ve in ids {
                match comparing.compare(ve).await {
                    Compared::Equal(txn) => tracing::info!(%ve, %txn, "the same here and at the primary"),
                    Compared::Differs(_) => {}
                    Compared::Not(why) => tracing::warn!(%ve, why, "not compared with the primary"),
                }
            }
        });
    }
}

impl Inner {
    async fn compare(self: &Arc<Self>, id: VeId) -> Compared {
        let following = self.followed.lock().get(&id).cloned();
        let Some(following) = following else { return Compared::Not("it does not follow".into()) };
        let figures = following.figures();
        let (Some(primary), true, false) = (figures.primary, figures.connected, figures.pulling) else {
            return Compared::Not("its primary is not connected".into());
        };
        let ve = following.ve();
        let at = ve.durable_position();
        let ours = match block_in_place(|| logical_root(&ve, at)) {
            Ok(root) => root,
            Err(why) => return Compared::Not(format!("here: {why}")),
        };
        let theirs = match self.ask_for(PATIENCE, primary, Question::Root { ve: id, position: at }).await {
            Ok(Reply::Root(root)) => root,
            Ok(Reply::No(why)) | Err(why) => return Compared::Not(format!("at the primary: {why}")),
            Ok(_) => return Compared::Not("an unexpected answer".into()),
        };
        // Before the look: a promotion behind it is above this.
        let epoch = ve.epoch();
        if ve.is_writer() || !Arc::ptr_eq(&ve, &following.ve()) {
            return Compared::Not("it does not follow any more, or has another state".into());
        }
        let found = if ours == theirs { Compared::Equal(at.txn) } else { Compared::Differs(at.txn) };
        following.compared(at.txn, ours == theirs);
        if ours != theirs {
            tracing::error!(ve = %id, %primary, txn = %at.txn, %ours, %theirs, "ALARM: this copy is not what its primary has: it is replaced, and kept as a branch");
            let branch = format!("differs-{}.{}-txn-{}", at.epoch.term(), at.epoch.0 as u32, at.txn);
            let nothing = Position { lineage: at.lineage, ..Position::default() };
            self.pull(id, primary, epoch, nothing, Some(branch));
        }
        found
    }

    /// The primary's side.
    pub(super) async fn root_of(&self, id: VeId, at: Position) -> Reply {
        // A root needs all keys of a state in memory: one at a time, however many nodes ask.
        let _one = self.rooting.lock().await;
        let found = match self.store.ve(id) {
            Ok(found) if self.store.has_ve(id) && found.identity().lineage == at.lineage => found,
            Ok(_) => return Reply::No("the VE here has another history".into()),
            Err(e) => return Reply::No(e.to_string()),
        };
        match block_in_place(|| logical_root(&found, at)) {
            Ok(root) => Reply::Root(root),
            Err(why) => Reply::No(why),
        }
    }
}

/// The logical root of a version, if it is the one of this position.
fn logical_root(ve: &Arc<Ve>, at: Position) -> Result<Hash, String> {
    let text = |e: vefs::Error| e.to_string();
    match ve.position_at(at.txn).map_err(text)? {
        Known::Here(here) if here == at => {}
        _ => return Err(format!("transaction {} is another one, or is kept no more", at.txn)),
    }
    Ok(ve.version(at.txn).and_then(|version| version.logical_root()).map_err(text)?.root)
}
