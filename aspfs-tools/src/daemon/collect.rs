//! Garbage collection by the clock.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Daemon, Periodic};

/// Starts the thread; with no interval it has nothing to do.
pub fn start(daemon: Arc<Daemon>) -> io::Result<Periodic> {
    let interval = daemon.config.gc_interval;
    Periodic::start("aspfs-gc", interval.unwrap_or(Duration::from_secs(3600)), move || {
        if interval.is_none() {
            return;
        }
        match daemon.store.collect_garbage(&daemon.config.retention) {
            Ok(done) => tracing::debug!(versions = done.ves.versions, objects = done.objects, "garbage collected"),
            Err(e) => tracing::error!(error = %e, "garbage collection"),
        }
    })
}
