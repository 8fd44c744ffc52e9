//! A primary whose VE another node was given: it stops at once, and follows whoever writes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::block_in_place;
use vefs::Ve;
use vefs::format::role::RoleKind;
use vefs::ids::Epoch;

use super::{Exposed, Inner, Led};

/// The pause before a step-down that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// This node writes the VE no more: another one was promoted (promises G18, G20). Whoever was it greets, and then this node follows.
pub(super) fn superseded(ve: &Ve, exposed: &Exposed, epoch: Epoch) {
    // It may have greeted this node already.
    if !ve.is_writer() {
        return;
    }
    tracing::error!(ve = %ve.id(), epoch = epoch.0, "ALARM: another node was promoted: this one writes the VE no more");
    exposed.set_fenced(true);
    ve.fence("another node took it over");
    if let Err(e) = ve.step_down(RoleKind::Superseded, epoch) {
        tracing::error!(ve = %ve.id(), error = %e, "writing down that the VE was taken over");
    }
}

/// There is a higher epoch: nothing is written here any more, and this node is one that may be promoted in a higher one yet. Whoever has that epoch may not
/// have got as far as its role: a node that neither writes nor follows would leave the VE without a writer then.
pub(super) async fn fence(inner: &Weak<Inner>, led: &Arc<Led>, epoch: Epoch, why: &str) {
    let leads = || inner.upgrade().filter(|inner| inner.leads(led));
    if leads().is_none() {
        return;
    }
    let ve = &led.ve;
    tracing::error!(ve = %ve.id(), epoch = epoch.0, why, "ALARM: there is a higher epoch: fenced");
    led.exposed.right().set_until(None);
    ve.fence(why);
    led.exposed.set_fenced(true);
    while let Some(inner) = leads().filter(|_| ve.is_writer()) {
        let follows = block_in_place(|| {
            ve.step_down(RoleKind::Replica, epoch)?;
            inner.refresh(ve)
        });
        drop(inner);
        let Err(e) = follows else { return };
        tracing::error!(ve = %ve.id(), error = %e, "stepping down");
        tokio::time::sleep(AGAIN).await;
    }
}
