//! Replication goes on when the daemon starts. Where it cannot, for instance since the node's address is not there yet, it is tried again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Daemon, Periodic};

/// Time between two attempts.
const AGAIN: Duration = Duration::from_secs(5);

/// Goes on with replication, now or as soon as it can be had; then there is a thread that sees to it. Mounts that could not be served without it are
/// served then.
pub fn begin(daemon: &Arc<Daemon>) -> io::Result<Option<Periodic>> {
    let Err(e) = daemon.resume_replication() else { return Ok(None) };
    let mut said = e.to_string();
    tracing::error!(error = said, "ALARM: VEs are not replicated");
    let daemon = daemon.clone();
    let again = Periodic::start("aspfs-resume", AGAIN, move || {
        if daemon.replicates() {
            // Those, too, that were looked at by the start when it had not begun.
            return daemon.serve_broken();
        }
        match daemon.resume_replication() {
            Ok(()) => {
                tracing::info!("VEs are replicated again");
                daemon.serve_broken();
            }
            Err(e) if e.to_string() != said => {
                said = e.to_string();
                tracing::error!(error = said, "ALARM: VEs are not replicated");
            }
            Err(_) => {}
        }
    })?;
    Ok(Some(again))
}
