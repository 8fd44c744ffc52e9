//! What this node says to those who ask about the right to write.
//!
//! Invariant: a promise is durable before it is given, and so is the epoch that is joined; and nothing of a lower epoch comes behind the position that is
//! named when it is joined.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vefs::Ve;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Lineage, Position, VeId};

use super::super::Inner;
use crate::arbiter::lease::{Grant, Join, Lessor};
use crate::member::{No, Part, Question, Reply, Standing};
use crate::node::NodeId;

fn not_yet(wait: Duration) -> Reply {
    // Rounded up: whoever asks after so long is not told once more to wait.
    Reply::No(No::NotYet(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1)))
}

impl Inner {
    /// Answers a node of the VE. It blocks on the disk.
    pub(in crate::runtime) fn answer_about_right(
        &self,
        (from, ve, lineage): (NodeId, VeId, Lineage),
        question: Question,
    ) -> Reply {
        let found = self.of_lineage(ve, lineage);
        if found.is_none() && (self.store.has_ve(ve) || self.store.is_buried(lineage)) {
            return Reply::No(No::Stranger);
        }
        // Where people or etcd name writers, a primary asks for no promise, and a majority that joins a candidate would make a second one.
        if self.terms.is_none() {
            return Reply::No(No::Part);
        }
        let lessor = match self.lessors.of(lineage, found.is_some()) {
            Ok(lessor) => lessor,
            Err(why) => {
                tracing::error!(%ve, why, "promises");
                return Reply::No(No::Failed);
            }
        };
        let writes = found.as_ref().filter(|f| f.is_writer()).map(|f| f.epoch());
        match (question, writes) {
            (Question::Standing { .. }, _) => match &found {
                Some(found) => self.standing_of(found, &lessor.lock()).map_or(Reply::No(No::Failed), Reply::Standing),
                None => Reply::No(No::Stranger),
            },
            (Question::Join(_) | Question::Lease(..) | Question::Lagging(..), Some(epoch)) => {
                Reply::No(No::Epoch(epoch))
            }
            (Question::Join(epoch), None) => {
                let claims = || self.claims.lock().get(&ve).copied().unwrap_or_default();
                if let Some(own) = claims().epoch.filter(|own| *own > epoch) {
                    return Reply::No(No::Epoch(own));
                }
                let reply = self.join((found.as_ref(), lineage), &mut lessor.lock(), epoch, from);
                if let (Reply::Joined(..), Some(claim)) = (reply, self.claims.lock().get_mut(&ve)) {
                    claim.gave_way = !claim.sure;
                }
                reply
            }
            (Question::Lease(epoch, ms), None) => {
                let wanted = (epoch, from, Duration::from_millis(ms));
                let highest = found.as_ref().map_or(Epoch(0), |f| f.epoch());
                let grant = lessor.lock().lease(&mut self.lessors.disk(lineage), wanted, highest, self.lessors.now());
                self.granted(found.as_ref(), epoch, grant)
            }
            (Question::Lagging(epoch, lagging, stamp), None) => {
                let (highest, mut disk) = (found.as_ref().map_or(Epoch(0), |f| f.epoch()), self.lessors.disk(lineage));
                let grant = lessor.lock().lagging(&mut disk, (epoch, from), (lagging, stamp), highest);
                self.granted(found.as_ref(), epoch, grant)
            }
            (Question::Over(epoch), _) => match lessor.lock().over(&mut self.lessors.disk(lineage), from, epoch) {
                Ok(()) => Reply::Done,
                Err(_) => Reply::No(No::Failed),
            },
            // A hand-over is asked for in words of its own, a new primary is heard of by its greeting, and by that it is compared, too.
            (Question::Take(..) | Question::At(_) | Question::Promoted(..), _) => Reply::No(No::Part),
        }
    }

    /// How a VE stands here; `None` while a statement of a person is about to make this node its writer.
    pub(in crate::runtime) fn standing_of(&self, ve: &Ve, lessor: &Lessor) -> Option<Standing> {
        if self.claims.lock().get(&ve.id()).is_some_and(|c| c.sure) {
            return None;
        }
        let part = match ve.role().kind {
            RoleKind::Primary if ve.fenced().is_none() => Part::Primary,
            RoleKind::Primary | RoleKind::Superseded => Part::Superseded,
            RoleKind::Replica => Part::Replica,
        };
        let (position, epoch, lagging) = (ve.durable_position(), ve.epoch(), lessor.promised().lagging);
        Some(Standing { part, position, epoch, successor: None, lagging })
    }

    /// Joins a candidate's epoch.
    pub(super) fn join(
        &self,
        (found, lineage): (Option<&Arc<Ve>>, Lineage),
        lessor: &mut Lessor,
        epoch: Epoch,
        node: NodeId,
    ) -> Reply {
        let following = found.and_then(|f| self.followed.lock().get(&f.id()).cloned());
        if following.as_ref().is_some_and(|f| f.pulling.load(Ordering::Acquire)) {
            // What will be here is not known.
            return Reply::No(No::Failed);
        }
        let highest = found.map_or(Epoch(0), |f| f.epoch());
        match lessor.join(&mut self.lessors.disk(lineage), epoch, node, highest, self.lessors.now()) {
            Join::Refused(above) => Reply::No(No::Epoch(above)),
            Join::NotYet(wait) => not_yet(wait),
            Join::Failed => Reply::No(No::Failed),
            Join::Joined => {
                let lagging = lessor.promised().lagging;
                let Some(found) = found else {
                    return Reply::Joined(Position { lineage, ..Position::default() }, lagging);
                };
                let noted = match &following {
                    Some(following) => following.note_epoch(epoch),
                    None => found.note_epoch(epoch).map(|()| found.clone()),
                };
                match noted.and_then(|ve| ve.sync().map(|()| ve.durable_position())) {
                    Ok(position) => Reply::Joined(position, lagging),
                    Err(e) => {
                        tracing::error!(ve = %found.id(), error = %e, "joining an epoch");
                        Reply::No(No::Failed)
                    }
                }
            }
        }
    }

    fn granted(&self, found: Option<&Arc<Ve>>, epoch: Epoch, grant: Grant) -> Reply {
        match grant {
            Grant::Granted => match found.map_or(Ok(()), |f| f.note_epoch(epoch)) {
                Ok(()) => Reply::Done,
                Err(e) => {
                    tracing::error!(error = %e, "noting an epoch");
                    Reply::No(No::Failed)
                }
            },
            Grant::Refused(epoch) => Reply::No(No::Epoch(epoch)),
            Grant::NotYet(wait) => not_yet(wait),
            Grant::Failed => Reply::No(No::Failed),
        }
    }
}
