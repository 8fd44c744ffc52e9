//! Serving one mount: what this daemon needs of the FUSE adapter.

use std::sync::Arc;

use super::Daemon;
use super::holder::Held;

/// A mount that is served.
pub struct Serving {}

impl Serving {
    /// Begins, or goes on where the daemon before stopped.
    pub fn start(_daemon: &Daemon, _ve: Arc<vefs::Ve>, _held: Held) -> Result<Serving, String> {
        Err("this build cannot serve mounts".into())
    }

    /// Whether it is unmounted.
    pub fn ended(&self) -> bool {
        true
    }

    /// Ends serving.
    pub fn stop(self) {}
}
