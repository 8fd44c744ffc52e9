//! How VEs get their writers, as a node is told.

use std::sync::Arc;
use std::time::Duration;

use vefs::ids::{Epoch, VeId};

use super::govern::ArbiterSettings;

/// Who says which node writes a VE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NamedBy {
    /// People.
    #[default]
    People,
    /// The required replicas: a lease of theirs is so long.
    Replicas(Duration),
    /// An etcd.
    Etcd(ArbiterSettings),
}

/// Whoever is told that this node was promoted by itself, and in which epoch.
pub type OnPromotion = Arc<dyn Fn(VeId, Epoch) + Send + Sync>;

/// How VEs get their writers. The same on every node of a cluster.
#[derive(Clone, Default)]
pub struct Writers {
    /// Who names them.
    pub by: NamedBy,
    /// Whether a replica that hears of no primary asks to become it by itself. People have to be asked.
    pub fail_over: bool,
    /// Is told of it.
    pub on_promotion: Option<OnPromotion>,
}
