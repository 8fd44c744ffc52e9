//! What is said on the control socket about clusters and replication.

use serde::{Deserialize, Serialize};

use super::message::Id;

/// What happens when the window would be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AtWindow {
    /// The VE goes on and is `lagging`, loudly
    Degrade,
    /// Changing operations wait
    Stall,
    /// As degrade, and writers are not slowed before either
    Alarm,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NodeRow {
    pub name: String,
    /// 32 hex digits.
    pub id: String,
    pub addresses: Vec<String>,
    pub revoked: bool,
    /// Whether it is the node that answers.
    pub this: bool,
    /// Until when its certificate is good.
    pub expires: String,
}

/// Text that holds a key: it is shown to nobody who shows what contains it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} secret bytes)", self.0.len())
    }
}

/// What a node joins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleText {
    /// The text. It holds the node's key.
    pub bundle: Secret,
}

/// A replicated VE, with one of its replicas where it is written here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ReplicaRow {
    pub ve: Id,
    /// `primary`: it is written here and this row is about one replica; `replica`: it follows another node.
    pub role: String,
    /// The VE's state at its primary: protected, lagging, stalled, unprotected, fenced.
    pub state: String,
    /// The VE's exposure in milliseconds; none: unknown.
    pub exposure_ms: Option<u64>,
    pub window_ms: u64,
    pub at_window: String,
    /// How far it is here, durably.
    pub txn: u64,
    pub epoch: u64,
    /// The other node: a replica, or the primary that is followed.
    pub node: Option<String>,
    pub required: bool,
    /// It is required again once it is back and has everything.
    pub returning: bool,
    /// How this replica stands.
    pub replica_state: Option<String>,
    pub replica_exposure_ms: Option<u64>,
    /// What it lacks; none: unknown.
    pub behind_bytes: Option<u64>,
    pub behind_txns: Option<u64>,
    /// Bytes a second that are sent to it, of late.
    pub rate: u64,
    pub acked_txn: Option<u64>,
    pub connected: bool,
    /// Why the last stream ended, or what was refused last.
    pub reason: Option<String>,
    /// Bytes of history that were sent, and bytes of the frames they took.
    pub carried_bytes: u64,
    pub sent_bytes: u64,
    pub breaches: u64,
    pub breach_ms: u64,
    pub throttle_ms: u64,
    pub stall_ms: u64,
    /// A whole state is being pulled.
    pub pulling: bool,
    /// Of a replica: the version that was compared with the primary's last, and whether they were equal.
    pub compared_txn: Option<u64>,
    pub compared_equal: Option<bool>,
    /// How many comparisons found a difference.
    pub differences: u64,
    /// What is left of the lease that replicas or etcd gave; none: nobody has to give one, or it is written elsewhere.
    pub lease_ms: Option<u64>,
}

#[cfg(test)]
impl ReplicaRow {
    /// One of a VE that is written here.
    pub(crate) fn sample(n: u32) -> ReplicaRow {
        ReplicaRow {
            ve: Id(vefs::ids::VeId(n)),
            role: "primary".into(),
            state: "protected".into(),
            exposure_ms: Some(400),
            window_ms: 30_000,
            at_window: "degrade".into(),
            txn: 1 << 40,
            epoch: 1,
            node: Some("node-in-the-other-room".into()),
            required: true,
            returning: false,
            replica_state: Some("current".into()),
            replica_exposure_ms: Some(400),
            behind_bytes: Some(0),
            behind_txns: Some(0),
            rate: 1 << 20,
            acked_txn: Some(1 << 40),
            connected: true,
            reason: None,
            carried_bytes: 1 << 40,
            sent_bytes: 1 << 40,
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
}

/// What a promotion would lose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct StakesRow {
    pub ve: Id,
    /// How far it is here, and of when that is.
    pub txn: u64,
    pub epoch: u64,
    pub time: Option<String>,
    pub nodes: Vec<StakeRow>,
}

/// What one other node has beyond this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct StakeRow {
    pub node: String,
    /// It is the one that wrote the VE last, as far as is known here.
    pub primary: bool,
    /// Versions, files and bytes; none: it does not answer, and nobody knows.
    pub txns: Option<u64>,
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    /// Files and bytes are at least these.
    pub at_least: bool,
    /// Its history went another way.
    pub diverged: bool,
}

/// A VE is written by another node now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PromotedRow {
    pub ve: Id,
    pub epoch: u64,
    /// The last transaction of the history before.
    pub fork_txn: u64,
    /// When that was sealed: what is newer is lost, or on the old primary only.
    pub fork_time: Option<String>,
    /// The other replicas, with the last transaction that they have where they answered.
    pub others: Vec<(String, Option<u64>)>,
}

/// A former state that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct BranchRow {
    pub name: String,
    pub txn: u64,
    pub epoch: u64,
    pub time: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::Request;

    /// With `--log debug` each request is logged: a node's key went into the journal with it.
    #[test]
    fn keys_are_shown_to_nobody() {
        let bundle = || Secret("PRIVATE KEY".into());
        let shown = format!("{:?} {:?}", Request::ClusterJoin { bundle: bundle() }, BundleText { bundle: bundle() });
        assert!(!shown.contains("PRIVATE") && shown.contains("11 secret bytes"), "{shown}");
        assert_eq!(serde_json::to_string(&BundleText { bundle: bundle() }).unwrap(), r#"{"bundle":"PRIVATE KEY"}"#);
    }
}
