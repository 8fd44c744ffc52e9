//! What can go wrong with a cluster's folder and with changes of its node list.

use std::io;
use std::path::PathBuf;

use super::bundle::PemError;
use super::certificate::Fault;
use super::list::ListError;
use super::names::Name;
use crate::node::{ClusterId, NodeId};

/// Why something was not done. Nothing was changed, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder holds no member of a cluster.
    #[error("{}: this node is not in a cluster", .0.display())]
    NotHere(PathBuf),
    /// The folder holds one already.
    #[error("{}: this node is in a cluster already", .0.display())]
    Taken(PathBuf),
    /// Another process has it open.
    #[error("{}: another process has it open", .0.display())]
    Locked(PathBuf),
    /// A secret that others may read.
    #[error("{}: mode {mode:03o} lets others read this secret; it has to be 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file longer than it may be.
    #[error("{}: longer than {max} bytes", path.display())]
    Large {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: usize,
    },
    /// A file or a bundle that is not in its form.
    #[error("{place}: {source}")]
    Pem {
        /// The file, or `bundle`.
        place: String,
        /// What is wrong with it.
        source: PemError,
    },
    /// A certificate that is not what it should be.
    #[error("{place}: {source}")]
    Certificate {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        source: Fault,
    },
    /// A node list that is not taken.
    #[error("{place}: {source}")]
    List {
        /// Where it came from.
        place: String,
        /// What is wrong with it.
        source: ListError,
    },
    /// Certificates could not be made.
    #[error("making a key or a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// Only the node that has the authority's key can do this.
    #[error("the authority's key is not on this node; nodes are added, changed and revoked where it is")]
    NoAuthority,
    /// There is no such node.
    #[error("no node {0:?} in the cluster")]
    UnknownNode(String),
    /// A node has this name.
    #[error("there is a node {0} already")]
    NameTaken(Name),
    /// The node is revoked, for ever; it has to be added anew.
    #[error("node {0} is revoked")]
    Revoked(NodeId),
    /// The node that has the authority's key cannot revoke itself.
    #[error("this node has the authority's key and cannot revoke itself")]
    Own,
    /// More than a list holds.
    #[error("{what}: at most {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A bundle for another node.
    #[error("the bundle is for node {0}, which is not this one")]
    OtherNode(NodeId),
    /// A bundle of another cluster.
    #[error("the bundle is of another authority than cluster {0} has")]
    OtherCluster(ClusterId),
}
