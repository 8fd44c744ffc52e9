//! Pulling a whole state from the node that writes a VE: drives the [machine](crate::catchup::Puller) over request streams.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::block_in_place;
use vefs::clock::Clock;
use vefs::ids::{Epoch, Lineage, Position, VeId};
use vefs::{Store, Ve};

use crate::catchup::{Action, Answer, GiveUp, Puller};
use crate::local::LocalInstall;
use crate::net::{Answers, Transport};
use crate::node::NodeId;

/// What is to be pulled.
pub(super) struct Pull {
    pub store: Arc<Store>,
    pub transport: Transport,
    pub clock: Arc<dyn Clock>,
    pub ve: VeId,
    pub lineage: Lineage,
    pub have: Position,
    pub source: Arc<Source>,
    /// The name under which the present state is kept.
    pub branch: Option<String>,
}

/// The node that writes a VE, when it is pulled from there.
pub(super) struct Source {
    pub node: NodeId,
    epoch: Epoch,
    past: Notify,
}

impl Source {
    pub fn new(node: NodeId, epoch: Epoch) -> Source {
        Source { node, epoch, past: Notify::new() }
    }

    /// A node with this epoch has greeted: if it is a higher one, what is pulled is not to be waited for any more.
    pub fn greeted(&self, epoch: Epoch) {
        if epoch > self.epoch {
            self.past.notify_one();
        }
    }
}

/// After so long without an answer a node is taken for gone.
const GONE: Duration = Duration::from_secs(20);
/// A node that says for so long that it is working on an answer is taken for one whose disk stands still. Whoever pulls from it follows nobody.
const STUCK: Duration = Duration::from_secs(180);

/// What came of waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// That it is working on it.
    Working,
    Something,
    /// Of another node, which has a higher epoch.
    OfAnother,
}

impl Pull {
    /// Pulls until the state is in place, or it cannot be had. The VE that is there then.
    pub async fn run(self) -> Result<Arc<Ve>, GiveUp> {
        let from = self.source.node;
        let mut machine = Puller::new(self.ve, self.lineage, self.have);
        let mut install = LocalInstall::new(self.store.clone(), self.ve, self.source.epoch, self.branch.clone());
        let mut stream: Option<(u64, Answers)> = None;
        let (mut silent, mut stuck, mut installed) = (Duration::ZERO, Duration::ZERO, false);
        loop {
            match block_in_place(|| machine.poll(&mut install, self.clock.boot())) {
                Action::Ask(number, ask) => {
                    let answers = match self.transport.connect(from).await {
                        Ok(peer) => peer.request(ask.encode()).await,
                        Err(e) => Err(e),
                    };
                    match answers {
                        Ok(answers) => stream = Some((number, answers)),
                        Err(e) => {
                            tracing::debug!(ve = %self.ve, %from, error = %e, "asking for a state");
                            stream = None;
                            machine.ended(&mut install, number, self.clock.boot());
                        }
                    }
                }
                // Whoever writes now greets, and what has come so far is not lost.
                Action::Wait(_) if (silent > GONE || stuck > STUCK) && installed => break,
                Action::Wait(_) if silent > GONE => {
                    return Err(GiveUp::Store(format!("node {from} does not answer")));
                }
                Action::Wait(_) if stuck > STUCK => {
                    return Err(GiveUp::Store(format!("node {from} does not get on with an answer")));
                }
                Action::Wait(until) => {
                    // What is done here in between is no silence of the other node.
                    let began = self.clock.boot();
                    let heard = tokio::select! {
                        heard = self.wait(&mut machine, &mut install, &mut stream, until) => heard,
                        () = self.source.past.notified() => Heard::OfAnother,
                    };
                    match heard {
                        Heard::OfAnother if installed => break,
                        Heard::OfAnother => return Err(GiveUp::Store("another node writes it now".into())),
                        _ => {}
                    }
                    let took = self.clock.boot().saturating_sub(began);
                    silent = if heard == Heard::Nothing { silent + took } else { Duration::ZERO };
                    stuck = if heard == Heard::Something { Duration::ZERO } else { stuck + took };
                }
                Action::Again => tokio::task::yield_now().await,
                Action::Installed(position) => {
                    installed = true;
                    tracing::info!(ve = %self.ve, txn = %position.txn, "a whole state is in place");
                }
                Action::Over => break,
                Action::GiveUp(why) => return Err(why),
            }
        }
        self.store.ve(self.ve).map_err(|e| GiveUp::Store(e.to_string()))
    }

    /// Waits for the next answer, or a time.
    async fn wait(
        &self,
        machine: &mut Puller,
        install: &mut LocalInstall,
        stream: &mut Option<(u64, Answers)>,
        until: Duration,
    ) -> Heard {
        let from = self.source.node;
        let patience = until.saturating_sub(self.clock.boot());
        let Some((number, answers)) = stream else {
            tokio::time::sleep(patience).await;
            return Heard::Nothing;
        };
        let number = *number;
        match tokio::time::timeout(patience, answers.next()).await {
            // The machine notices that the time has come.
            Err(_) => Heard::Nothing,
            Ok(Ok(Some(blob))) => match Answer::decode(&blob) {
                Ok(answer) => {
                    let heard = if matches!(answer, Answer::Working) { Heard::Working } else { Heard::Something };
                    block_in_place(|| machine.answer(install, number, answer, self.clock.boot()));
                    heard
                }
                Err(e) => {
                    tracing::warn!(ve = %self.ve, %from, error = %e, "an answer that is none");
                    *stream = None;
                    machine.ended(install, number, self.clock.boot());
                    Heard::Something
                }
            },
            Ok(other) => {
                let ended = other.is_ok();
                if let Err(e) = other {
                    tracing::debug!(ve = %self.ve, %from, error = %e, "a state's stream");
                }
                *stream = None;
                machine.ended(install, number, self.clock.boot());
                if ended { Heard::Something } else { Heard::Nothing }
            }
        }
    }
}
