//! What is known of a VE that follows, for whoever asks: figures, promotion by itself, the table of all such VEs.
//!
//! Invariant: its lock is held for a moment and for nothing else, alone or under the machine's, which a frame may hold for as long as a disk takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vefs::Ve;
use vefs::ids::{Position, TxnNo};

use crate::node::NodeId;
use crate::wire::Refusal;

/// What is known of a VE that follows.
#[derive(Clone, Debug)]
pub struct FollowFigures {
    /// The node that ships it, if one ever did in this run.
    pub primary: Option<NodeId>,
    /// Whether it is connected.
    pub connected: bool,
    /// When it was heard last in this run, in time since boot.
    pub heard: Option<Duration>,
    /// What it has, durably.
    pub durable: Position,
    /// The last refusal of a stream.
    pub refusal: Option<Refusal>,
    /// How often each refusal was made.
    pub refusals: BTreeMap<Refusal, u64>,
    /// A whole state is being pulled.
    pub pulling: bool,
    /// The version that was compared with the primary's last in this run, and whether they were equal.
    pub compared: Option<(TxnNo, bool)>,
    /// How many comparisons found a difference.
    pub differences: u64,
}

pub(super) struct Known {
    /// The VE that the machine works on.
    pub ve: Arc<Ve>,
    /// Who ships, and the last word about it.
    pub primary: Option<NodeId>,
    pub refusal: Option<Refusal>,
    pub refusals: BTreeMap<Refusal, u64>,
    pub since: Option<Duration>,
    heard: Option<Duration>,
    /// A frame of the primary is being taken.
    taking: bool,
    /// The last comparison with the primary, and how many found a difference.
    compared: Option<(TxnNo, bool)>,
    differences: u64,
}

impl Known {
    pub fn of(ve: Arc<Ve>) -> Known {
        Known {
            ve,
            primary: None,
            refusal: None,
            refusals: BTreeMap::new(),
            since: None,
            heard: None,
            taking: false,
            compared: None,
            differences: 0,
        }
    }

    /// Takes note of a comparison with the primary.
    pub fn compared(&mut self, txn: TxnNo, equal: bool) {
        self.compared = Some((txn, equal));
        self.differences += u64::from(!equal);
    }

    /// All but what the VE itself says. Whose frame waits here for the disk is not silent.
    pub fn figures(&self, now: Duration, pulling: bool) -> FollowFigures {
        FollowFigures {
            primary: self.primary,
            connected: self.since.is_some(),
            heard: if self.taking { Some(now) } else { self.heard },
            durable: Position::default(),
            refusal: self.refusal,
            refusals: self.refusals.clone(),
            pulling,
            compared: self.compared,
            differences: self.differences,
        }
    }
}

/// A frame that is being taken, from now on until this is dropped.
pub(super) struct Taking<'a>(&'a Mutex<Known>);

impl Taking<'_> {
    /// Of the primary, who is heard with it.
    pub fn begin(known: &Mutex<Known>, now: Duration) -> Taking<'_> {
        let mut all = known.lock();
        (all.heard, all.taking) = (Some(now), true);
        Taking(known)
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.lock().taking = false;
    }
}
