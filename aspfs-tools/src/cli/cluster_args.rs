//! The command line about clusters and replication.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vefs::ids::VeId;

use crate::units;

/// Commands about the cluster.
#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// Begin a cluster with this node as its first
    ///
    /// Its authority's key is on this node, in the store's folder `cluster`: keep a copy in a safe place.
    #[command(after_help = "Example:\n  aspfs cluster init hosting --node node-1 --address 10.0.0.1")]
    Init {
        /// Its name: 1 to 64 of a-z, 0-9, '.' and '-'
        name: String,
        /// The name of this node
        #[arg(long, value_name = "NAME")]
        node: String,
        /// Where other nodes reach this one: HOST or HOST:PORT (7447)
        #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
        address: Vec<String>,
    },
    /// Join a cluster with what `aspfs node add` gave, or take a new certificate
    #[command(after_help = "Example:\n  aspfs cluster join node-2.pem")]
    Join {
        /// The file; - for standard input
        bundle: PathBuf,
    },
}

/// Commands about nodes.
#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// Add a node, on the node that began the cluster; gives a file with which it joins
    #[command(after_help = "Examples:
  aspfs node add node-2 --address 10.0.0.2 --output node-2.pem
  aspfs node add node-2 --address 10.0.0.2 | ssh node-2 aspfs cluster join -")]
    Add {
        /// Its name
        name: String,
        /// Where other nodes reach it: HOST or HOST:PORT (7447)
        #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
        address: Vec<String>,
        /// A new file for what it joins with, readable for its owner only; else standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List all nodes
    List,
    /// Throw a node out, for ever: no other one speaks to it any more
    Revoke {
        /// Its name or identity
        node: String,
    },
    /// Make a new certificate for a node, which takes it with `aspfs cluster join`; this node takes it at once
    Renew {
        /// Its name or identity
        node: String,
        /// A new file for it
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Change where a node is reached
    Address {
        /// Its name or identity
        node: String,
        /// HOST or HOST:PORT (7447)
        #[arg(value_name = "HOST:PORT", required = true)]
        address: Vec<String>,
    },
}

/// Commands about replicas.
#[derive(Subcommand, Debug)]
pub enum ReplicaCommand {
    /// Have a VE followed by another node
    ///
    /// What the node lacks goes over, without stopping the VE. The window counts required replicas only.
    #[command(after_help = "Examples:
  aspfs replica add 0000002A node-2 --required
  aspfs replica add 0000002A backup --bandwidth 2M
  aspfs ve set 0000002A --window 10s --at-window stall")]
    Add {
        /// The VE, which is written here
        #[arg(value_name = "VEID")]
        ve: VeId,
        /// The node
        node: String,
        /// Its acknowledgement is what the VE's exposure counts
        #[arg(long)]
        required: bool,
        /// Most bytes a second that are sent to it
        #[arg(long, value_name = "SIZE", value_parser = units::parse_limit)]
        bandwidth: Option<u64>,
    },
    /// Have it followed no more
    Remove {
        /// The VE
        #[arg(value_name = "VEID")]
        ve: VeId,
        /// The node
        node: String,
        /// The administrator's word that the node does not run, and is not promoted as it is. Needed where the required replicas say who writes
        /// and too few of the others are there
        #[arg(long)]
        node_is_off: bool,
    },
    /// Show how VEs are replicated: state, exposure (E) against the window (W), and what each replica lacks
    Status {
        /// One VE; else all
        #[arg(value_name = "VEID")]
        ve: Option<VeId>,
        /// Again every second
        #[arg(long)]
        watch: bool,
    },
}

/// What to promote.
#[derive(Args, Debug)]
pub struct PromoteArgs {
    /// The VE
    #[arg(value_name = "VEID")]
    pub ve: VeId,
    /// The administrator's word that the node that wrote the VE so far does not run. Not needed where replicas or etcd say who writes: then the lease is waited for
    #[arg(long)]
    pub old_primary_is_off: bool,
    /// Also where another replica has more, or the old primary seems to live: what is beyond is lost. It is listed first, and you are asked
    #[arg(long)]
    pub force: bool,
    /// Do not ask whether it may be lost
    #[arg(long, requires = "force")]
    pub yes: bool,
}

/// What to hand over to whom.
#[derive(Args, Debug)]
pub struct SwitchoverArgs {
    /// The VE, which is written here
    #[arg(value_name = "VEID")]
    pub ve: VeId,
    /// One of its replicas
    pub node: String,
}

/// Commands about branches.
#[derive(Subcommand, Debug)]
pub enum BranchCommand {
    /// List them
    List {
        /// The VE
        #[arg(value_name = "VEID")]
        ve: VeId,
    },
    /// Remove one with all its bytes
    Remove {
        /// The VE
        #[arg(value_name = "VEID")]
        ve: VeId,
        /// The branch's name
        name: String,
    },
}
