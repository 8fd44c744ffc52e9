//! What is known of each stream, for people and metrics.

use std::time::Instant;

use parking_lot::Mutex;
use vefs::ids::{Position, VeId};

use super::exposed::Standing;
use super::follow::FollowFigures;
use crate::window::ReplicaStatus;

/// A stream's figures.
#[derive(Clone, Debug, Default)]
pub struct LinkFigures {
    /// Since when there is a connection, in seconds; `None`: there is none.
    pub connected: Option<u64>,
    /// Why the last one ended.
    pub last_error: Option<String>,
    /// Bytes that frames carried, and bytes of the frames themselves.
    pub carried: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes sent a second, of late.
    pub rate: u64,
    /// The last position acknowledged in this run.
    pub acked: Option<Position>,
    /// Where the replica's history went another way.
    pub diverged: Option<Position>,
}

/// A replica of a VE that is written here.
#[derive(Clone, Debug)]
pub struct ReplicaFigures {
    /// What the window says of it.
    pub status: ReplicaStatus,
    /// Its stream.
    pub link: LinkFigures,
}

/// A replicated VE.
#[derive(Clone, Debug)]
pub struct VeFigures {
    /// Which.
    pub ve: VeId,
    /// How far it is here, durably.
    pub position: Position,
    /// Where it is written here: its window, and its replicas.
    pub led: Option<(Standing, Vec<ReplicaFigures>)>,
    /// Where it follows.
    pub followed: Option<FollowFigures>,
}

#[derive(Debug)]
struct Inner {
    since: Option<Instant>,
    figures: LinkFigures,
    /// Bytes sent at the beginning of the present span of time, and the rate of the one before.
    span: (Instant, u64),
}

/// A VE's stream to one replica.
#[derive(Debug)]
pub struct Link(Mutex<Inner>);

impl Default for Link {
    fn default() -> Link {
        Link(Mutex::new(Inner { since: None, figures: LinkFigures::default(), span: (Instant::now(), 0) }))
    }
}

/// Length of a span in seconds.
const SPAN: f64 = 2.0;

impl Link {
    pub(super) fn connected(&self) {
        self.0.lock().since = Some(Instant::now());
    }

    pub(super) fn disconnected(&self) {
        self.0.lock().since = None;
    }

    /// Whether this is news.
    pub(super) fn failed(&self, why: String) -> bool {
        let mut inner = self.0.lock();
        let news = inner.figures.last_error.as_ref() != Some(&why);
        inner.figures.last_error = Some(why);
        news
    }

    pub(super) fn sent(&self, carried: u64, sent: u64) {
        let mut inner = self.0.lock();
        inner.figures.carried += carried;
        inner.figures.sent += sent;
        inner.turn();
    }

    pub(super) fn acked(&self, position: Position) {
        let mut inner = self.0.lock();
        inner.figures.acked = Some(position);
        (inner.figures.diverged, inner.figures.last_error) = (None, None);
    }

    pub(super) fn has_nothing(&self) {
        self.0.lock().figures.acked = None;
    }

    pub(super) fn diverged(&self, position: Position) {
        self.0.lock().figures.diverged = Some(position);
    }

    /// The figures now.
    pub fn figures(&self) -> LinkFigures {
        let mut inner = self.0.lock();
        inner.turn();
        LinkFigures { connected: inner.since.map(|s| s.elapsed().as_secs()), ..inner.figures.clone() }
    }
}

impl Inner {
    fn turn(&mut self) {
        let passed = self.span.0.elapsed().as_secs_f64();
        if passed >= SPAN {
            self.figures.rate = ((self.figures.sent - self.span.1) as f64 / passed) as u64;
            self.span = (Instant::now(), self.figures.sent);
        }
    }
}
