//! Fail-over by itself: a replica that has heard nothing of a VE's primary for most of a lease asks to become it. Whether it may, the required replicas or the
//! arbiter say: to suspect too early costs a few questions, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{block_in_place, spawn_blocking};
use vefs::entropy::{Entropy, SystemEntropy};
use vefs::ids::VeId;

use super::super::promotion::Insists;
use super::super::{Following, Inner};
use super::lessors_of;
use crate::arbiter::lease::Terms;

/// Promotions that go on at a time: a node that dies may have been the primary of a thousand VEs.
const AT_ONCE: usize = 64;

/// Since when a primary is silent, and how long that is borne.
struct Wait {
    since: Duration,
    patience: Duration,
    /// Why it was not promoted, as it was said last.
    said: Arc<parking_lot::Mutex<String>>,
}

/// Two thirds of a lease, and up to a third more: two nodes should not ask at the same time again and again.
fn patience(terms: Terms) -> Duration {
    let [a, b, ..] = SystemEntropy.bytes16();
    let part = u32::from(u16::from_le_bytes([a, b]));
    terms.ttl * 2 / 3 + terms.ttl / 3 * part / 65_536
}

/// Looks after every VE that is followed here, for as long as the runtime lasts.
pub(in crate::runtime) async fn fail_over(inner: Weak<Inner>, terms: Terms) {
    let running = Arc::new(Semaphore::new(AT_ONCE));
    let mut waits: BTreeMap<VeId, Wait> = BTreeMap::new();
    let period = (terms.ttl / 12).clamp(Duration::from_millis(50), Duration::from_millis(500));
    loop {
        tokio::time::sleep(period).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.follow_what_was_led();
        let followed = inner.followed.lock().clone();
        waits.retain(|ve, _| followed.contains_key(ve));
        for (id, following) in followed {
            let now = inner.clock.boot();
            let fresh = || Wait { since: now, patience: patience(terms), said: Arc::default() };
            let wait = waits.entry(id).or_insert_with(fresh);
            let figures = following.figures();
            if figures.pulling {
                wait.since = now;
            }
            wait.since = figures.heard.map_or(wait.since, |heard| wait.since.max(heard));
            if now < wait.since + wait.patience || !inner.is_due(&following, now - wait.since, wait.patience) {
                continue;
            }
            // No more at a time: this one's turn comes.
            let Ok(permit) = running.clone().try_acquire_owned() else { continue };
            (wait.since, wait.patience) = (now, patience(terms));
            let (this, said) = (inner.clone(), wait.said.clone());
            tokio::spawn(async move {
                this.promote_by_itself(id, &said).await;
                drop(permit);
            });
        }
    }
}

impl Inner {
    /// A primary that another one's stream has told that it is superseded may be the one with the last word, and is promoted again then.
    fn follow_what_was_led(self: &Arc<Self>) {
        let led: Vec<_> = self.led.lock().values().filter(|l| !l.ve.is_writer()).cloned().collect();
        for led in led {
            if let Err(e) = block_in_place(|| self.refresh(&led.ve)) {
                tracing::error!(ve = %led.ve.id(), error = %e, "following a VE that was written here");
            }
        }
    }

    /// Whether this node is one that may try: those that are not required wait twice as long, since they may lack something.
    fn is_due(&self, following: &Following, silent: Duration, patience: Duration) -> bool {
        let me = self.cluster.node();
        let ve = following.ve();
        block_in_place(|| match ve.policy() {
            Ok(policy) if lessors_of(&policy).contains(&me) => true,
            Ok(policy) => policy.writer != [0; 16] && silent >= patience * 2,
            Err(e) => {
                tracing::error!(ve = %ve.id(), error = %e, "reading a policy");
                false
            }
        })
    }

    async fn promote_by_itself(self: &Arc<Self>, ve: VeId, said: &parking_lot::Mutex<String>) {
        let operating = self.operating(ve);
        let Ok(_one) = operating.try_lock() else { return };
        match self.promote_unless_heard(ve, Insists::default(), true).await {
            Ok(promoted) => {
                tracing::warn!(%ve, epoch = promoted.epoch.0, "its primary was silent: promoted by itself");
                if let Some(tell) = self.promoted.clone() {
                    spawn_blocking(move || tell(ve, promoted.epoch));
                }
            }
            Err(e) => {
                let text = e.to_string();
                let mut said = said.lock();
                if *said != text {
                    tracing::warn!(%ve, why = text, "its primary is silent, and this node is not promoted by itself");
                    *said = text;
                }
            }
        }
    }
}
