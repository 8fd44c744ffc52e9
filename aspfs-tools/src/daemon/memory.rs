//! Memory that VEs gave back goes on to the system, where the allocator would keep it between what is still used.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Daemon, Periodic};

/// Time between looks.
const PERIOD: Duration = Duration::from_secs(5);
/// Bytes given back from which on it is worth looking through the heaps.
const WORTH: u64 = 16 << 20;

/// Starts the thread.
pub fn start(daemon: Arc<Daemon>) -> io::Result<Periodic> {
    let mut bytes = 0;
    Periodic::start("aspfs-memory", PERIOD, move || {
        bytes += daemon.store.take_given_back();
        if bytes >= WORTH {
            bytes = 0;
            crate::sys::give_memory_back();
        }
    })
}
