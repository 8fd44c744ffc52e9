//! What an administrator says about a VE's window, and the words for how it stands.

use std::time::Duration;

use vefs::ids::TxnNo;

use crate::node::NodeId;

/// What happens when the window would be passed (promise G16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtWindow {
    /// The VE goes on and is `lagging`, loudly.
    #[default]
    Degrade,
    /// Changing operations wait.
    Stall,
    /// As `Degrade`, and writers are not slowed before either.
    Alarm,
}

/// A VE's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The window W. At least [`Policy::WINDOW_MIN`]; a shorter one is taken as that.
    pub window: Duration,
    /// At W.
    pub at_window: AtWindow,
    /// Whether an arbiter may promote by itself: then `lagging` is recorded with it before it begins.
    pub recorded: bool,
}

impl Policy {
    /// The shortest window: a few commit ticks.
    pub const WINDOW_MIN: Duration = Duration::from_secs(1);

    pub(super) fn bounded(mut self) -> Policy {
        self.window = self.window.max(Policy::WINDOW_MIN);
        self
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy { window: Duration::from_secs(30), at_window: AtWindow::Degrade, recorded: false }
    }
}

impl super::Window {
    /// The policy, within its bounds.
    pub fn policy(&self) -> Policy {
        self.policy
    }
}

/// How a VE, or one replica of it, stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No operation completes with an exposure over the window.
    Protected,
    /// The window was passed or the exposure is not known, and operations complete. Ends when everything is acknowledged.
    Lagging,
    /// Changing operations wait.
    Stalled,
    /// No replica is required: nothing bounds the loss.
    Unprotected,
    /// This node may not write.
    Fenced,
    /// The replica has another history.
    Diverged,
}

impl State {
    /// Its name, as people and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            State::Protected => "protected",
            State::Lagging => "lagging",
            State::Stalled => "stalled",
            State::Unprotected => "unprotected",
            State::Fenced => "fenced",
            State::Diverged => "diverged",
        }
    }
}

/// Age of the oldest accepted change that is not acknowledged as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Not known: nothing was heard, or what is missing is older than what is remembered. Never to be read as zero.
    Unknown,
    /// This old; zero when everything is acknowledged.
    Known(Duration),
}

impl Exposure {
    /// Whether it is over the window. What is not known may be.
    pub fn is_over(self, window: Duration) -> bool {
        match self {
            Exposure::Unknown => true,
            Exposure::Known(age) => age > window,
        }
    }

    /// The larger one; what is not known is larger than everything.
    pub fn worst(self, other: Exposure) -> Exposure {
        match (self, other) {
            (Exposure::Known(a), Exposure::Known(b)) => Exposure::Known(a.max(b)),
            _ => Exposure::Unknown,
        }
    }
}

/// How one replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Which.
    pub node: NodeId,
    /// Whether the VE's exposure counts it.
    pub required: bool,
    /// How it stands.
    pub state: State,
    /// Its exposure.
    pub exposure: Exposure,
    /// Bytes and transactions that it lacks; `None` where that is not known.
    pub behind: Option<(u64, u64)>,
    /// The last transaction that it acknowledged in this run.
    pub acked: Option<TxnNo>,
}

/// What a changing operation does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on.
    Go,
    /// Goes on after this long (at the start of an operation only).
    Delay(Duration),
    /// Waits; ask again when something changed.
    Wait,
    /// Is refused: this node may not write.
    Fenced,
}

/// What others are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The state changed. From `Lagging` or `Stalled` on it is an alarm, to be shown at once.
    Changed {
        /// Before.
        from: State,
        /// Now.
        to: State,
        /// Time since boot at which it was noticed.
        at: Duration,
    },
    /// Record `lagging` with the arbiter, and answer with [`super::Window::permitted`] and this number.
    AskPermit(u64),
    /// Take the record of this number back.
    ReturnPermit(u64),
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times that `lagging` began.
    pub breaches: u64,
    /// Time spent beyond the window, counted from the moment it was passed.
    pub breached: Duration,
    /// Time in which changing operations waited.
    pub stalled: Duration,
    /// Sum of the delays given to writers.
    pub throttled: Duration,
}
