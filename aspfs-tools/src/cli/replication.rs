//! Commands about clusters and replication.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster_args::{BranchCommand, ClusterCommand, NodeCommand, ReplicaCommand};
use super::{Failure, Node};
use crate::control::message::{Done, Id, Request};
use crate::control::replication::{BranchRow, BundleText, NodeRow, ReplicaRow, Secret};
use crate::units::{show_duration, show_size};

const NODE_HEAD: &[&str] = &["NAME", "IDENTITY", "ADDRESSES", "CERTIFICATE UNTIL", ""];
const REPLICA_HEAD: &[&str] =
    &["VE", "STATE", "E", "W", "NODE", "STANDS", "BEHIND", "TXNS", "RATE", "VERSION", "REMARK"];
const BRANCH_HEAD: &[&str] = &["NAME", "VERSION", "TIME", "EPOCH"];
/// Longest bundle in bytes.
const BUNDLE_MAX: u64 = 4 << 20;

pub fn cluster(node: &Node<'_>, command: &ClusterCommand) -> Result<(), Failure> {
    let request = match command {
        ClusterCommand::Init { name, node, address } => {
            Request::ClusterInit { name: name.clone(), node: node.clone(), addresses: address.clone() }
        }
        ClusterCommand::Join { bundle } => Request::ClusterJoin { bundle: Secret(read(bundle)?) },
    };
    let rows: Vec<NodeRow> = node.call(&request)?;
    Ok(node.out.table(&rows, NODE_HEAD, node_line)?)
}

fn read(path: &Path) -> Result<String, Failure> {
    let shown = path.display().to_string();
    let failed = |e| Failure::Write(format!("reading {shown}"), e);
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().lock().take(BUNDLE_MAX).read_to_string(&mut text),
        false => std::fs::File::open(path).and_then(|f| f.take(BUNDLE_MAX).read_to_string(&mut text)),
    };
    read.map(|_| text).map_err(failed)
}

pub fn nodes(node: &Node<'_>, command: &NodeCommand) -> Result<(), Failure> {
    // Before anything is asked for: a certificate that cannot be written is lost, and takes the place of one that is in use.
    let file = match command {
        NodeCommand::Add { output: Some(path), .. } | NodeCommand::Renew { output: Some(path), .. } => {
            Some(NewSecret::create(path).map_err(|e| Failure::Write(path.display().to_string(), e))?)
        }
        _ => None,
    };
    let bundle: Option<BundleText> = match command {
        NodeCommand::Add { name, address, .. } => {
            Some(node.call(&Request::NodeAdd { name: name.clone(), addresses: address.clone() })?)
        }
        NodeCommand::Renew { node: which, .. } => node.call(&Request::NodeRenew { node: which.clone() })?,
        NodeCommand::List => {
            let rows: Vec<NodeRow> = node.call(&Request::NodeList {})?;
            return Ok(node.out.table(&rows, NODE_HEAD, node_line)?);
        }
        NodeCommand::Revoke { node: which } => {
            let rows: Vec<NodeRow> = node.call(&Request::NodeRevoke { node: which.clone() })?;
            return Ok(node.out.table(&rows, NODE_HEAD, node_line)?);
        }
        NodeCommand::Address { node: which, address } => {
            let request = Request::NodeAddress { node: which.clone(), addresses: address.clone() };
            let rows: Vec<NodeRow> = node.call(&request)?;
            return Ok(node.out.table(&rows, NODE_HEAD, node_line)?);
        }
    };
    match (bundle, file) {
        (None, _) => Ok(node.out.print(&Done {}, || "this node has a new certificate\n".into())?),
        (Some(bundle), None) => Ok(node.out.print(&bundle, || bundle.bundle.0.clone())?),
        (Some(bundle), Some(file)) => {
            let shown = file.path.display().to_string();
            file.write(&bundle.bundle.0).map_err(|e| Failure::Write(shown.clone(), e))?;
            let text = format!("bring {shown} to the node over a safe way: `aspfs cluster join` takes it\n");
            Ok(node.out.print(&Done {}, || text)?)
        }
    }
}

/// A new file that only its owner can read. It goes again where nothing is written to it.
struct NewSecret {
    path: PathBuf,
    file: std::fs::File,
    written: bool,
}

impl NewSecret {
    fn create(path: &Path) -> std::io::Result<NewSecret> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(NewSecret { path: path.to_owned(), file, written: false })
    }

    fn write(mut self, text: &str) -> std::io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        self.written = true;
        Ok(())
    }
}

impl Drop for NewSecret {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn node_line(row: &NodeRow) -> Vec<String> {
    let note = match (row.revoked, row.this) {
        (true, _) => "revoked",
        (_, true) => "this node",
        _ => "",
    };
    vec![row.name.clone(), row.id.clone(), row.addresses.join(","), row.expires.clone(), note.into()]
}

pub fn replicas(node: &Node<'_>, command: &ReplicaCommand) -> Result<(), Failure> {
    match command {
        ReplicaCommand::Add { ve, node: which, required, bandwidth } => {
            let (required, bandwidth) = (*required, bandwidth.filter(|b| *b != u64::MAX).unwrap_or(0));
            let request = Request::ReplicaAdd { ve: Id(*ve), node: which.clone(), required, bandwidth };
            let rows: Vec<ReplicaRow> = node.call(&request)?;
            Ok(node.out.table(&rows, REPLICA_HEAD, replica_line)?)
        }
        ReplicaCommand::Remove { ve, node: which, node_is_off } => {
            let (which, node_is_off) = (which.clone(), *node_is_off);
            let done: Done = node.call(&Request::ReplicaRemove { ve: Id(*ve), node: which, node_is_off })?;
            Ok(node.out.print(&done, String::new)?)
        }
        ReplicaCommand::Status { ve, watch } => loop {
            let rows: Vec<ReplicaRow> = node.rows(&Request::ReplicaStatus { ve: ve.map(Id) })?;
            if *watch && node.out.is_terminal() {
                // Home, and clear what was there.
                print!("\x1b[H\x1b[2J");
            }
            node.out.table(&rows, REPLICA_HEAD, replica_line)?;
            if !watch {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        },
    }
}

fn age(ms: Option<u64>) -> String {
    ms.map_or_else(|| "unknown".into(), |ms| format!("{:.1}s", ms as f64 / 1000.0))
}

fn replica_line(r: &ReplicaRow) -> Vec<String> {
    let follows = r.role == "replica";
    let remark = match () {
        () if r.lease_ms == Some(0) && r.state != "fenced" => {
            "no lease: etcd, or too many required replicas, do not answer".into()
        }
        () if r.pulling => "pulling a whole state".into(),
        () if r.compared_equal == Some(false) => "it was not what its primary had: replaced, see aspfs branch".into(),
        () if !r.connected => r.reason.clone().unwrap_or_else(|| "not connected".into()),
        () => r.reason.clone().unwrap_or_default(),
    };
    let exposure = if follows { "-".into() } else { age(r.exposure_ms) };
    let stands = match (&r.replica_state, follows) {
        (_, true) => if r.connected { "primary" } else { "primary?" }.to_owned(),
        (Some(state), _) if r.required => state.clone(),
        (Some(state), _) => format!("{state} ({})", if r.returning { "returning" } else { "optional" }),
        _ => "-".into(),
    };
    vec![
        r.ve.to_string(),
        r.state.clone(),
        exposure,
        show_duration(r.window_ms),
        r.node.clone().unwrap_or_else(|| "-".into()),
        stands,
        r.behind_bytes.map_or_else(|| "-".into(), show_size),
        r.behind_txns.map_or_else(|| "-".into(), |t| t.to_string()),
        if follows { "-".into() } else { format!("{}/s", show_size(r.rate)) },
        if follows { r.txn.to_string() } else { r.acked_txn.map_or_else(|| "-".into(), |t| t.to_string()) },
        remark,
    ]
}

pub fn branches(node: &Node<'_>, command: &BranchCommand) -> Result<(), Failure> {
    match command {
        BranchCommand::List { ve } => {
            let rows: Vec<BranchRow> = node.call(&Request::BranchList { ve: Id(*ve) })?;
            let line = |r: &BranchRow| vec![r.name.clone(), r.txn.to_string(), r.time.clone(), r.epoch.to_string()];
            Ok(node.out.table(&rows, BRANCH_HEAD, line)?)
        }
        BranchCommand::Remove { ve, name } => {
            let done: Done = node.call(&Request::BranchRemove { ve: Id(*ve), name: name.clone() })?;
            Ok(node.out.print(&done, String::new)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::Output;
    use super::*;
    use crate::client::Client;

    /// The list was one frame of at most 256 KiB: from some 500 rows on, which 250 VEs with two replicas make, it was refused, and nobody
    /// could see how anything was replicated.
    #[test]
    fn thousands_of_replicas_are_listed() {
        let rows: Vec<ReplicaRow> = (1..=3000).map(ReplicaRow::sample).collect();
        let heard: Vec<ReplicaRow> = Client::that_hears(rows.clone(), Done {}, |client| {
            client.ask::<_, Done>(&Request::ReplicaStatus { ve: None }).unwrap().0
        });
        assert_eq!(heard, rows);
        let json = Output::new(true).text(&heard, String::new).unwrap();
        assert_eq!(serde_json::from_str::<Vec<ReplicaRow>>(&json).unwrap(), rows);
        let table = Output::new(false).lines(&heard, REPLICA_HEAD, replica_line);
        assert_eq!(table.lines().count(), 3001);
        assert!(table.contains(&rows[2999].ve.to_string()));
    }
}
