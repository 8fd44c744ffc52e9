//! How replicas stand, as clients are shown it.

use aspfs_replica::runtime::{Runtime, VeFigures};
use aspfs_replica::window::Exposure;
use vefs::change::{Need, Policy};
use vefs::ids::VeId;

use super::Daemon;
use super::replication::at_window;
use crate::control::message::Id;
use crate::control::replication::ReplicaRow;

fn millis(exposure: Exposure) -> Option<u64> {
    match exposure {
        Exposure::Unknown => None,
        Exposure::Known(age) => Some(age.as_millis() as u64),
    }
}

/// The rows of a VE: one for each replica where it is written, one where it follows.
pub fn rows_of(runtime: &Runtime, figures: &VeFigures, policy: &Policy, rows: &mut Vec<ReplicaRow>) {
    let blank = |ve: VeId, role: &str| blank(ve, role, figures, policy);
    for (standing, r) in figures.led.iter().flat_map(|(s, all)| all.iter().map(move |r| (s, r))) {
        rows.push(ReplicaRow {
            state: standing.state.name().into(),
            exposure_ms: millis(standing.exposure),
            node: Some(Daemon::name_of(runtime, r.status.node)),
            required: r.status.required,
            returning: policy.replicas.iter().any(|of| of.node == r.status.node.0 && of.need == Need::Returning),
            replica_state: Some(r.status.state.name().into()),
            replica_exposure_ms: millis(r.status.exposure),
            behind_bytes: r.status.behind.map(|b| b.0),
            behind_txns: r.status.behind.map(|b| b.1),
            rate: r.link.rate,
            acked_txn: r.status.acked.map(|t| t.0),
            connected: r.link.connected.is_some(),
            reason: r.link.last_error.clone(),
            carried_bytes: r.link.carried,
            sent_bytes: r.link.sent,
            breaches: standing.counters.breaches,
            breach_ms: standing.counters.breached.as_millis() as u64,
            throttle_ms: standing.counters.throttled.as_millis() as u64,
            stall_ms: standing.counters.stalled.as_millis() as u64,
            lease_ms: standing.lease.map(|left| left.as_millis() as u64),
            ..blank(figures.ve, "primary")
        });
    }
    if let Some(followed) = &figures.followed {
        rows.push(ReplicaRow {
            state: "follows".into(),
            node: followed.primary.map(|n| Daemon::name_of(runtime, n)),
            connected: followed.connected,
            reason: followed.refusal.map(|r| r.name().to_owned()),
            pulling: followed.pulling,
            compared_txn: followed.compared.map(|c| c.0.0),
            compared_equal: followed.compared.map(|c| c.1),
            differences: followed.differences,
            ..blank(figures.ve, "replica")
        });
    }
}

fn blank(ve: VeId, role: &str, figures: &VeFigures, policy: &Policy) -> ReplicaRow {
    ReplicaRow {
        ve: Id(ve),
        role: role.into(),
        state: String::new(),
        exposure_ms: None,
        window_ms: policy.window_ms.into(),
        at_window: at_window(policy).into(),
        txn: figures.position.txn.0,
        epoch: figures.position.epoch.0,
        node: None,
        required: false,
        returning: false,
        replica_state: None,
        replica_exposure_ms: None,
        behind_bytes: None,
        behind_txns: None,
        rate: 0,
        acked_txn: None,
        connected: false,
        reason: None,
        carried_bytes: 0,
        sent_bytes: 0,
        breaches: 0,
        breach_ms: 0,
        throttle_ms: 0,
        stall_ms: 0,
        pulling: false,
        compared_txn: None,
        compared_equal: None,
        differences: 0,
        lease_ms: None,
    }
}
