//! Clusters and replication, as clients ask for them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aspfs_replica::cluster::{Address, Bundle, Cluster, ClusterError, NodeList};
use aspfs_replica::node::NodeId;
use aspfs_replica::runtime::{Beyond, NamedBy, OperateError, Runtime, Writers};
use vefs::Ve;
use vefs::change::{self, Need, Policy, ReplicaOf};
use vefs::clock::{SystemClock, Timestamp};

use super::refuse::{Answer, about, refusal};
use super::{Daemon, DaemonError};
use crate::control::message::{Change, Id, Why};
use crate::control::replication::{
    AtWindow, BranchRow, BundleText, NodeRow, PromotedRow, ReplicaRow, Secret, StakeRow, StakesRow,
};
use crate::units::show_time;

/// Why a VE that others follow is not served where they, or an arbiter, name writers.
pub const NOT_REPLICATED: &str = "other nodes follow it, and replication did not start: nobody can allow its writes";
/// The port of replication where no other is named.
pub const PORT: u16 = 7447;

fn failed(e: impl std::fmt::Display) -> crate::control::message::Refusal {
    refusal(Why::Failed, e.to_string())
}

fn in_cluster(e: ClusterError) -> crate::control::message::Refusal {
    let kind = match &e {
        ClusterError::UnknownNode(_) => Why::NotFound,
        ClusterError::NameTaken(_) => Why::Exists,
        _ => Why::Failed,
    };
    refusal(kind, e.to_string())
}

/// The replica that is meant by a name or an identity. One that was revoked, or is in the list no more, can be removed all the same.
fn replica_named(policy: &Policy, list: &NodeList, which: &str) -> Option<NodeId> {
    let nodes = || policy.replicas.iter().map(|r| NodeId(r.node));
    let named = |id: &NodeId, revoked| list.node(*id).is_some_and(|n| n.name.as_str() == which && n.revoked == revoked);
    let found = nodes().find(|id| id.to_string() == which);
    found.or_else(|| nodes().find(|id| named(id, false))).or_else(|| nodes().find(|id| named(id, true)))
}

impl From<OperateError> for crate::control::message::Refusal {
    fn from(e: OperateError) -> Self {
        match e {
            OperateError::Store(e) => e.into(),
            e => refusal(Why::Failed, e.to_string()),
        }
    }
}

impl Daemon {
    fn cluster_folder(&self) -> PathBuf {
        self.config.store.join("cluster")
    }

    /// Goes on with replication where this node is in a cluster.
    pub fn resume_replication(&self) -> Result<(), DaemonError> {
        let folder = self.cluster_folder();
        if !Cluster::is_member(&folder) {
            return Ok(());
        }
        let fail = |why: String| DaemonError::Replication { path: folder.clone(), why };
        let cluster = Cluster::open(&folder, Arc::new(SystemClock)).map_err(|e| fail(e.to_string()))?;
        self.start_replication(Arc::new(cluster)).map_err(|e| fail(e.message))
    }

    fn start_replication(&self, cluster: Arc<Cluster>) -> Answer<()> {
        let list = cluster.list();
        let own = list.list.node(cluster.node()).and_then(|n| n.addresses.first().cloned());
        let listen = match &self.config.listen {
            Some(listen) => *listen,
            None => {
                let port = own.as_ref().and_then(|a| a.as_str().rsplit_once(':')?.1.parse().ok()).unwrap_or(PORT);
                // An address of IPv6 is in brackets; a socket that listens on all of IPv6 takes IPv4, too.
                match own.is_some_and(|a| a.as_str().starts_with('[')) {
                    true => SocketAddr::from(([0u16; 8], port)),
                    false => SocketAddr::from(([0, 0, 0, 0], port)),
                }
            }
        };
        let naming = &self.config.naming;
        let on_promotion = naming.on_promotion.clone().map(super::promoted::program);
        let writers = Writers { by: naming.by.clone(), fail_over: naming.fail_over, on_promotion };
        // Whoever joined a cluster and whoever tries again what the start could not do do it once.
        let mut replication = self.replication.lock();
        if replication.is_none() {
            let runtime = Runtime::start(self.store.clone(), cluster, listen, Arc::new(SystemClock), &writers);
            *replication = Some(Arc::new(runtime.map_err(failed)?));
            tracing::info!(%listen, "replication has started");
        }
        Ok(())
    }

    /// Whether it has started.
    pub fn replicates(&self) -> bool {
        self.replication.lock().is_some()
    }

    /// Begins to lead a VE that is about to be mounted, if others follow it. Nothing is written that whoever names writers did not allow: where
    /// replication did not start, such a VE is not mounted (promise G18).
    pub fn lead(&self, ve: &Arc<Ve>) -> Result<(), String> {
        let replication = self.replication.lock().clone();
        match replication {
            Some(replication) => replication.refresh(ve).map_err(|e| e.to_string()),
            None if self.config.naming.by == NamedBy::People => Ok(()),
            None => match ve.policy().map_err(|e| e.to_string())?.writer == [0; 16] {
                true => Ok(()),
                false => Err(NOT_REPLICATED.into()),
            },
        }
    }

    /// Replication; refused where this node is in no cluster.
    pub fn replication(&self) -> Answer<Arc<Runtime>> {
        let why = || match Cluster::is_member(&self.cluster_folder()) {
            true => "this node is in a cluster, and replication did not start: the daemon's log says why",
            false => "this node is in no cluster: `aspfs cluster init` begins one, `aspfs cluster join` joins one",
        };
        self.replication.lock().clone().ok_or_else(|| refusal(Why::NotFound, why()))
    }

    fn no_cluster_yet(&self) -> Answer<()> {
        match Cluster::is_member(&self.cluster_folder()) {
            true => Err(refusal(
                Why::Exists,
                format!("this node is in a cluster already ({})", self.cluster_folder().display()),
            )),
            false => Ok(()),
        }
    }

    pub fn cluster_init(&self, name: &str, node: &str, addresses: &[String]) -> Answer<Vec<NodeRow>> {
        self.no_cluster_yet()?;
        let (name, node) = (word(name)?, word(node)?);
        let clock = Arc::new(SystemClock);
        let cluster = Cluster::init(&self.cluster_folder(), &name, &node, &parse_addresses(addresses)?, clock);
        self.start_replication(Arc::new(cluster.map_err(in_cluster)?))?;
        self.nodes()
    }

    pub fn cluster_join(&self, text: &str) -> Answer<Vec<NodeRow>> {
        let bundle =
            Bundle::parse(text.as_bytes()).map_err(|e| refusal(Why::Usage, format!("not a node's bundle: {e}")))?;
        // A node that is in already takes a new certificate.
        if let Some(runtime) = &*self.replication.lock() {
            runtime.cluster().install(&bundle).map_err(in_cluster)?;
        } else {
            self.no_cluster_yet()?;
            let cluster = Cluster::join(&self.cluster_folder(), &bundle, Arc::new(SystemClock)).map_err(in_cluster)?;
            self.start_replication(Arc::new(cluster))?;
        }
        self.nodes()
    }

    pub fn node_add(&self, name: &str, addresses: &[String]) -> Answer<BundleText> {
        let runtime = self.replication()?;
        let bundle = runtime.cluster().add_node(&word(name)?, &parse_addresses(addresses)?).map_err(in_cluster)?;
        Ok(BundleText { bundle: Secret(bundle.to_text()) })
    }

    pub fn node_renew(&self, node: &str) -> Answer<Option<BundleText>> {
        let runtime = self.replication()?;
        let cluster = runtime.cluster();
        if self.node_of(&runtime, node)? == cluster.node() {
            cluster.renew_own().map_err(in_cluster)?;
            return Ok(None);
        }
        Ok(Some(BundleText { bundle: Secret(cluster.renew(node).map_err(in_cluster)?.to_text()) }))
    }

    pub fn node_revoke(&self, node: &str) -> Answer<Vec<NodeRow>> {
        self.replication()?.cluster().revoke(node).map_err(in_cluster)?;
        self.nodes()
    }

    pub fn node_addresses(&self, node: &str, addresses: &[String]) -> Answer<Vec<NodeRow>> {
        self.replication()?.cluster().set_addresses(node, &parse_addresses(addresses)?).map_err(in_cluster)?;
        self.nodes()
    }

    pub fn nodes(&self) -> Answer<Vec<NodeRow>> {
        let runtime = self.replication()?;
        let cluster = runtime.cluster();
        let row = |n: &aspfs_replica::cluster::Node| NodeRow {
            name: n.name.to_string(),
            id: n.id.to_string(),
            addresses: n.addresses.iter().map(ToString::to_string).collect(),
            revoked: n.revoked,
            this: n.id == cluster.node(),
            expires: show_time(Timestamp { secs: i64::try_from(n.not_after()).unwrap_or(i64::MAX), nanos: 0 }),
        };
        Ok(cluster.list().list.nodes.iter().map(row).collect())
    }

    fn node_of(&self, runtime: &Runtime, which: &str) -> Answer<NodeId> {
        let list = runtime.cluster().list();
        let node = list.list.find(which).filter(|n| !n.revoked).map(|n| n.id);
        node.ok_or_else(|| refusal(Why::NotFound, format!("there is no node {which:?} in the cluster")))
    }

    pub(super) fn name_of(runtime: &Runtime, node: NodeId) -> String {
        let list = runtime.cluster().list();
        list.list.node(node).map_or_else(|| node.to_string(), |n| n.name.to_string())
    }

    /// Changes how a VE is replicated; durable when it returns, and in force.
    pub fn set_policy(&self, ve: &Arc<Ve>, policy: Policy) -> Answer<()> {
        let runtime = self.replication.lock().clone();
        if let Some(runtime) = runtime {
            return Ok(runtime.change_policy(ve, policy)?);
        }
        let at = || about(format!("policy of VE {}", ve.id()));
        ve.set_policy(policy).map_err(at())?;
        ve.sync().map_err(at())
    }

    pub fn replica_add(&self, id: Id, node: &str, required: bool, bandwidth: u64) -> Answer<Vec<ReplicaRow>> {
        let runtime = self.replication()?;
        let ve = self.ve(id.0)?;
        let node = self.node_of(&runtime, node)?;
        if node == runtime.cluster().node() {
            return Err(refusal(Why::Usage, "a node is not its own replica"));
        }
        let policy = ve.policy().map_err(about(format!("VE {id}")))?;
        if policy.replicas.len() >= vefs::limits::REPLICAS_MAX && !policy.replicas.iter().any(|r| r.node == node.0) {
            return Err(refusal(
                Why::Usage,
                format!("VE {id} has {} replicas, the most there are", policy.replicas.len()),
            ));
        }
        let need = if required { Need::Required } else { Need::Optional };
        runtime.set_replica(&ve, ReplicaOf { node: node.0, need, bandwidth })?;
        self.replica_status(Some(id))
    }

    pub fn replica_remove(&self, id: Id, node: &str, is_off: bool) -> Answer<()> {
        let runtime = self.replication()?;
        let ve = self.ve(id.0)?;
        let policy = ve.policy().map_err(about(format!("VE {id}")))?;
        let found = replica_named(&policy, &runtime.cluster().list().list, node);
        let Some(node) = found else {
            // A name that nobody has is told from a node that is none of its replicas.
            let node = self.node_of(&runtime, node)?;
            return Err(refusal(Why::NotFound, format!("{} is no replica of VE {id}", Self::name_of(&runtime, node))));
        };
        Ok(runtime.remove_replica(&ve, node, is_off)?)
    }

    pub fn replica_status(&self, id: Option<Id>) -> Answer<Vec<ReplicaRow>> {
        let runtime = self.replication()?;
        let all = match id {
            Some(id) => {
                self.ve(id.0)?;
                runtime.figures(id.0).into_iter().collect()
            }
            None => runtime.all_figures(),
        };
        let mut rows = Vec::new();
        for figures in all {
            let Ok(ve) = self.store.ve(figures.ve) else { continue };
            let policy = ve.policy().map_err(about(format!("VE {}", figures.ve)))?;
            super::replicas::rows_of(&runtime, &figures, &policy, &mut rows);
        }
        Ok(rows)
    }

    pub fn promote(&self, id: Id, old_primary_is_off: bool, force: bool) -> Answer<PromotedRow> {
        let runtime = self.replication()?;
        let done = runtime.promote(id.0, old_primary_is_off, force)?;
        let ve = self.ve(id.0)?;
        let time = ve.versions().ok().and_then(|all| all.into_iter().find(|v| v.position.txn == done.fork.txn));
        let others = done.others.iter().map(|(n, p)| (Self::name_of(&runtime, *n), p.map(|p| p.txn.0))).collect();
        let fork_time = time.map(|v| show_time(v.time));
        Ok(PromotedRow { ve: id, epoch: done.epoch.0, fork_txn: done.fork.txn.0, fork_time, others })
    }

    pub fn stakes(&self, id: Id) -> Answer<StakesRow> {
        let runtime = self.replication()?;
        let stakes = runtime.stakes(id.0)?;
        let ve = self.ve(id.0)?;
        let policy = ve.policy().map_err(about(format!("VE {id}")))?;
        let row = |(node, beyond): &(NodeId, Option<Beyond>)| StakeRow {
            node: Self::name_of(&runtime, *node),
            primary: policy.writer == node.0,
            txns: beyond.map(|b| b.txns),
            files: beyond.map(|b| b.files),
            bytes: beyond.map(|b| b.bytes),
            at_least: beyond.is_some_and(|b| !b.whole),
            diverged: beyond.is_some_and(|b| b.diverged),
        };
        let (txn, epoch) = (stakes.here.txn.0, stakes.here.epoch.0);
        let nodes = stakes.others.iter().map(row).collect();
        Ok(StakesRow { ve: id, txn, epoch, time: Some(show_time(ve.time())), nodes })
    }

    pub fn switchover(&self, id: Id, node: &str) -> Answer<PromotedRow> {
        let runtime = self.replication()?;
        let node = self.node_of(&runtime, node)?;
        let epoch = runtime.switchover(id.0, node)?;
        let fork_txn = self.ve(id.0)?.position().txn.0;
        Ok(PromotedRow { ve: id, epoch: epoch.0, fork_txn, fork_time: None, others: vec![] })
    }

    pub fn branches(&self, id: Id) -> Answer<Vec<BranchRow>> {
        self.ve(id.0)?;
        let mut rows = Vec::new();
        for name in self.store.branch_names(id.0)? {
            let branch = self.store.branch(id.0, &name)?;
            let position = branch.position();
            let time = show_time(branch.time());
            rows.push(BranchRow { name, txn: position.txn.0, epoch: position.epoch.0, time });
        }
        Ok(rows)
    }

    pub fn branch_remove(&self, id: Id, name: &str) -> Answer<()> {
        self.ve(id.0)?;
        if !self.store.branch_names(id.0)?.iter().any(|n| n == name) {
            return Err(refusal(Why::NotFound, format!("VE {id} has no branch {name:?}")));
        }
        Ok(self.store.remove_branch(id.0, name)?)
    }

    /// Destroys a VE here, then, where it is written here, at its replicas.
    pub fn destroy_everywhere(&self, ve: Arc<Ve>) -> vefs::Result<()> {
        let id = ve.id();
        let Some(runtime) = self.replication.lock().clone() else {
            return if ve.is_writer() { self.store.destroy_ve(id) } else { self.store.destroy_copy(id) };
        };
        for (node, outcome) in runtime.destroy(ve)? {
            if let Err(why) = outcome {
                let node = Self::name_of(&runtime, node);
                tracing::warn!(ve = %id, node, why, "a replica was not told that the VE is destroyed; it will ask");
            }
        }
        Ok(())
    }
}

fn word<T: std::str::FromStr>(text: &str) -> Answer<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| refusal(Why::Usage, format!("{text:?}: {e}")))
}

fn parse_addresses(texts: &[String]) -> Answer<Vec<Address>> {
    let with_port = |text: &String| match text.rsplit_once(':') {
        Some((_, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => text.clone(),
        _ => format!("{text}:{PORT}"),
    };
    texts.iter().map(|text| word(&with_port(text))).collect()
}

/// The policy with what a client wants changed.
pub fn changed_policy(policy: &Policy, change: &Change) -> Policy {
    Policy {
        window_ms: change.window_ms.unwrap_or(policy.window_ms),
        at_window: change.at_window.map_or(policy.at_window, |at| match at {
            AtWindow::Degrade => change::AtWindow::Degrade,
            AtWindow::Stall => change::AtWindow::Stall,
            AtWindow::Alarm => change::AtWindow::Alarm,
        }),
        weight: change.priority.unwrap_or(policy.weight),
        ..policy.clone()
    }
}

/// The name of what happens at the window.
pub fn at_window(policy: &Policy) -> &'static str {
    match policy.at_window {
        change::AtWindow::Degrade => "degrade",
        change::AtWindow::Stall => "stall",
        change::AtWindow::Alarm => "alarm",
    }
}
