//! The administrator's program that is run when this node was promoted by itself: it mounts and starts the VE.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use aspfs_replica::runtime::OnPromotion;

/// Runs a program with the VE's identifier and the epoch, and says how it ended. Promotions do not wait for it.
pub fn program(path: PathBuf) -> OnPromotion {
    Arc::new(move |ve, epoch| {
        let mut command = Command::new(&path);
        command.arg(ve.to_string()).arg(epoch.0.to_string());
        let program = path.display().to_string();
        match command.stdin(Stdio::null()).stdout(Stdio::null()).status() {
            Ok(status) if status.success() => tracing::info!(%ve, program, "ran after a promotion"),
            Ok(status) => tracing::error!(%ve, program, %status, "the program that is run after a promotion failed"),
            Err(e) => {
                tracing::error!(%ve, program, error = %e, "the program that is run after a promotion cannot be run")
            }
        }
    })
}
