//! A VE whose writer an arbiter names (promises G16, G18, G19): the arbiter is asked for the epoch, then for a lease again and again, and told
//! when the VE may lag. What follows from the answers is the [`Lessee`]'s to say; here is who carries the questions.
//!
//! Without a lease nothing completes: writers wait ([`Right`](super::right::Right)). The daemon may be stopped for as long as one likes, the arbiter may
//! be away, an answer may be late: the lease ends by this node's own clock, counted from when it was asked for.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use vefs::ids::{Epoch, Lineage, VeId};

use super::fence::fence;
use super::{Inner, Led};
use crate::arbiter::etcd::Etcd;
use crate::arbiter::lease::{Action, Lessee, Needs, Terms, Whom};
use crate::arbiter::{Arbiter, ArbiterError, Refused, Reply, Request};
use crate::net::HttpClient;
use crate::node::NodeId;

/// How long an arbiter may take for one answer, where no lease has to be saved by it.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// After so long a claim that was not answered, or not granted, is made again.
const AGAIN: Duration = Duration::from_millis(500);

/// The arbiter of a cluster, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArbiterSettings {
    /// etcd's servers, like `http://127.0.0.1:2379`; any of them answers.
    pub servers: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// How long a lease is: a promotion waits for so long after the last renewal.
    pub lease: Duration,
}

/// The arbiter of this node.
pub(super) struct Arbitration {
    http: HttpClient,
    prefix: String,
    pub terms: Terms,
}

/// An answer on its way.
type Answering = JoinHandle<Result<Reply, ArbiterError>>;

/// A client for one VE. One question at a time.
#[derive(Clone)]
pub(super) struct Asker(Arc<Mutex<Etcd<HttpClient>>>);

impl Arbitration {
    pub fn new(settings: &ArbiterSettings) -> Arbitration {
        let http = HttpClient::new(settings.servers.clone());
        Arbitration { http, prefix: settings.prefix.clone(), terms: Terms::new(settings.lease) }
    }

    /// Keys are by lineage: a VE that is created again under the same number has a record of its own.
    pub fn asker(&self, lineage: Lineage) -> Asker {
        let lineage: String = lineage.0.iter().map(|b| format!("{b:02x}")).collect();
        Asker(Arc::new(Mutex::new(Etcd::new(self.http.clone(), format!("{}/{lineage}", self.prefix)))))
    }
}

impl Asker {
    /// Asks, for no longer than this. An error leaves open whether it was done.
    pub async fn ask(&self, request: Request, patience: Duration) -> Result<Reply, ArbiterError> {
        self.asking(request, patience).await.unwrap_or_else(|e| Err(ArbiterError(e.to_string())))
    }

    fn asking(&self, request: Request, patience: Duration) -> Answering {
        let etcd = self.0.clone();
        spawn_blocking(move || etcd.lock().ask(&request, patience))
    }
}

/// What became of a claim.
enum Claim {
    Ours,
    Superseded(Epoch),
    NotYet(String),
}

/// Why a lease is held no longer.
enum Held {
    /// This node does not lead the VE any more.
    Ended,
    Superseded(Epoch),
    /// The arbiter does not know this node as the owner: the epoch is claimed anew.
    Unknown,
}

/// A question under way, or waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Lease(u64),
    Tell(Option<u64>),
}

/// Keeps a VE's lease until it is led no more, or another node owns its epoch.
pub(super) async fn govern(inner: Weak<Inner>, led: Arc<Led>, arbitration: Arc<Arbitration>) {
    let Some(me) = inner.upgrade().map(|i| i.cluster.node()) else { return };
    let asker = arbitration.asker(led.ve.identity().lineage);
    let (ve, epoch, terms) = (led.ve.id(), led.ve.epoch(), arbitration.terms);
    let mut this = Governing { inner, led, asker, ve, me, epoch, terms, complaint: None };
    while this.goes_on() {
        let over = match this.claim().await {
            Claim::Ours => match this.hold().await {
                Held::Ended => return,
                Held::Superseded(epoch) => Some(epoch),
                Held::Unknown => None,
            },
            Claim::Superseded(epoch) => Some(epoch),
            Claim::NotYet(why) => {
                this.complain(Some(why));
                None
            }
        };
        if let Some(epoch) = over {
            return fence(&this.inner, &this.led, epoch, "the arbiter gave its epoch to another node").await;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

struct Governing {
    inner: Weak<Inner>,
    led: Arc<Led>,
    asker: Asker,
    ve: VeId,
    me: NodeId,
    epoch: Epoch,
    terms: Terms,
    /// What was said last of an arbiter that does not do what is asked.
    complaint: Option<String>,
}

impl Governing {
    /// Whether this node leads the VE still, in this very way.
    fn goes_on(&self) -> bool {
        self.inner.upgrade().is_some_and(|inner| inner.leads(&self.led))
    }

    /// Says what the arbiter does not do, once; or that it does again.
    fn complain(&mut self, why: Option<String>) {
        if self.complaint == why {
            return;
        }
        match &why {
            Some(why) => tracing::error!(ve = %self.ve, why, "ALARM: the arbiter does not help"),
            None => tracing::info!(ve = %self.ve, "the arbiter helps again"),
        }
        self.complaint = why;
    }

    /// Makes the epoch that is written in here the arbiter's. What made this node a writer, a start or a promotion, was allowed before.
    async fn claim(&mut self) -> Claim {
        let (ve, node, epoch) = (self.ve, self.me, self.epoch);
        let record = match self.asker.ask(Request::Read { ve }, PATIENCE).await {
            Ok(Reply::Record(record, _) | Reply::Refused(_, record)) => record,
            Err(e) => return Claim::NotYet(e.to_string()),
        };
        if (record.owner, record.epoch) == (node, epoch) {
            return Claim::Ours;
        }
        if record.epoch >= epoch {
            return Claim::Superseded(record.epoch);
        }
        let propose = Request::Propose { ve, node, expected: record.epoch, epoch, forced: true };
        match self.asker.ask(propose, PATIENCE).await {
            Ok(Reply::Record(r, _)) if (r.owner, r.epoch) == (node, epoch) => Claim::Ours,
            Ok(Reply::Refused(Refused::LeaseRuns, r)) => {
                Claim::NotYet(format!("node {} has a lease still, in epoch {}", r.owner, r.epoch.0))
            }
            Ok(_) => Claim::NotYet("another node asks as well".into()),
            Err(e) => Claim::NotYet(e.to_string()),
        }
    }

    /// Holds the lease for as long as it is given.
    async fn hold(&mut self) -> Held {
        let led = self.led.clone();
        let (right, now) = (led.exposed.right(), || led.exposed.now());
        let mut lessee = Lessee::new((self.epoch, self.me), Needs::Arbiter, self.terms, BTreeSet::new(), now());
        let period = (self.terms.ttl / 12).clamp(Duration::from_millis(20), Duration::from_millis(500));
        let (mut waiting, mut said, mut actions) = (VecDeque::new(), None, vec![]);
        let mut running: Option<(Question, Answering)> = None;
        while self.goes_on() {
            if let Some(wanted) = led.exposed.to_record(&mut said) {
                lessee.set_lagging(wanted);
            }
            actions.extend(lessee.tick(now()));
            right.set_until(lessee.until());
            for action in actions.drain(..) {
                if let Some(epoch) = self.act(action, &mut waiting) {
                    return Held::Superseded(epoch);
                }
            }
            if running.is_none() {
                running = waiting.pop_front().map(|q| (q, self.asker.asking(self.request(q), self.terms.ttl / 6)));
            }
            let answered = tokio::select! {
                answered = answer(&mut running) => Some(answered),
                () = right.changed() => None,
                () = tokio::time::sleep(period) => None,
            };
            if let Some((question, reply)) = answered {
                running = None;
                match self.answered(&mut lessee, question, reply) {
                    Ok(more) => actions = more,
                    Err(end) => return end,
                }
            }
        }
        Held::Ended
    }

    fn request(&self, question: Question) -> Request {
        let (ve, node, epoch) = (self.ve, self.me, self.epoch);
        match question {
            Question::Lease(_) => Request::Lease { ve, node, epoch, ttl_ms: self.terms.ttl.as_millis() as u64 },
            Question::Tell(number) => Request::Lagging { ve, node, epoch, lagging: number.is_some() },
        }
    }

    fn answered(
        &mut self,
        lessee: &mut Lessee,
        question: Question,
        answer: Result<Reply, ArbiterError>,
    ) -> Result<Vec<Action>, Held> {
        let now = self.led.exposed.now();
        match (answer, question) {
            (Ok(Reply::Record(_, true)), Question::Lease(number)) => {
                self.complain(None);
                Ok(lessee.granted(Whom::Arbiter, number, now))
            }
            (Ok(Reply::Record(..)), Question::Tell(number)) => Ok(lessee.told(Whom::Arbiter, number)),
            (Ok(Reply::Refused(_, record)), _) if record.epoch > self.epoch => Ok(lessee.refused(record.epoch)),
            // An etcd that was set back to an earlier state.
            (Ok(Reply::Refused(..)), _) => Err(Held::Unknown),
            (Ok(Reply::Record(..)), Question::Lease(_)) => Ok(vec![]),
            (Err(e), _) => {
                self.complain(Some(e.to_string()));
                Ok(vec![])
            }
        }
    }

    /// Does what the lessee says; the epoch by which this node is superseded.
    fn act(&self, action: Action, waiting: &mut VecDeque<Question>) -> Option<Epoch> {
        match action {
            Action::Ask(_, number) => {
                waiting.retain(|q| !matches!(q, Question::Lease(_)));
                waiting.push_front(Question::Lease(number));
            }
            Action::Tell(_, number) => {
                waiting.retain(|q| !matches!(q, Question::Tell(_)));
                waiting.push_back(Question::Tell(number));
            }
            Action::Lapsed => {
                tracing::error!(ve = %self.ve, "ALARM: the lease has ended: writers wait");
            }
            Action::Renewed => {
                tracing::info!(ve = %self.ve, epoch = self.epoch.0, "the arbiter's lease is there");
                self.led.ve.wake_writers();
            }
            Action::Permitted(number) => self.led.exposed.permitted(number),
            Action::Superseded(epoch) => return Some(epoch),
        }
        None
    }
}

/// The answer to the question under way; never, where there is none.
async fn answer(running: &mut Option<(Question, Answering)>) -> (Question, Result<Reply, ArbiterError>) {
    match running {
        Some((question, answering)) => {
            (*question, answering.await.unwrap_or_else(|e| Err(ArbiterError(e.to_string()))))
        }
        None => std::future::pending().await,
    }
}
