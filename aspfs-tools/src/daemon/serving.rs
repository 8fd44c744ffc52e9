//! Serving one mount: what this daemon needs of the FUSE adapter.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vefs::fuse::{Figures, Host, Mounted, Options, ServeError};

use super::holder::Held;

/// A mount that is served.
pub struct Serving(Mounted);

impl Serving {
    /// Begins, or goes on where the daemon before stopped.
    pub fn start(host: &Host, ve: Arc<vefs::Ve>, held: Held) -> Result<Serving, ServeError> {
        host.serve(ve, held.device, held.kept, &Options::default()).map(Serving)
    }

    /// Whether it is unmounted.
    pub fn ended(&self) -> bool {
        self.0.ended()
    }

    /// The mount's device and kept state, for a new holder.
    pub fn descriptors(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        self.0.descriptors()
    }

    /// What it counted.
    pub fn figures(&self) -> Figures {
        self.0.figures()
    }

    /// Takes leave of a mount that has ended.
    pub fn finish(self) {
        self.0.wait();
    }

    /// Serves nothing more; the process must end after that.
    pub fn freeze(&self) {
        self.0.freeze();
    }
}
