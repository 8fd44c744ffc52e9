//! Serving one mount: what this daemon needs of the FUSE adapter.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vefs::fuse::{Figures, Host, Mounted, Options, ServeError};

use super::holder::Held;
use super::pages::{Fetched, Fetches};

/// A mount that is served.
pub struct Serving {
    mounted: Mounted,
    fetches: Fetches,
}

impl Serving {
    /// Begins, or goes on where the daemon before stopped.
    pub fn start(host: &Host, ve: Arc<vefs::Ve>, held: Held) -> Result<Serving, ServeError> {
        host.serve(ve, held.device, held.kept, &Options::default())
            .map(|mounted| Serving { mounted, fetches: Fetches::default() })
    }

    /// The same for a version.
    pub fn start_version(host: &Host, version: vefs::ve::Snapshot, held: Held) -> Result<Serving, ServeError> {
        host.serve_version(version, held.device, held.kept)
            .map(|mounted| Serving { mounted, fetches: Fetches::default() })
    }

    /// Whether it is unmounted.
    pub fn ended(&self) -> bool {
        self.mounted.ended()
    }

    /// Whether another node has changed the VE since: it answers nothing but errors.
    pub fn is_past(&self) -> bool {
        self.mounted.is_past()
    }

    /// Whether the kernel has given it up.
    pub fn is_dead(&self) -> bool {
        super::mounting::is_dead(&self.mounted.descriptors().0)
    }

    /// The mount's device and kept state, for a new holder.
    pub fn descriptors(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        self.mounted.descriptors()
    }

    /// What it counted.
    pub fn figures(&self) -> Figures {
        self.mounted.figures()
    }

    /// Whether its dirty pages are to be fetched now; then that counts as begun.
    pub fn begin_fetch(&self) -> bool {
        let begins = self.fetches.begin(|| self.mounted.is_fetch_due());
        if begins {
            self.mounted.fetch_begins();
        }
        begins
    }

    /// What came of that. Whether people are to be told.
    pub fn end_fetch(&self, fetched: &Fetched) -> bool {
        if *fetched == Fetched::Done {
            self.mounted.fetch_ended();
        }
        self.fetches.end(fetched)
    }

    /// Begins no fetch for a while. Whether one is under way.
    pub fn rest(&self) -> bool {
        self.fetches.rest()
    }

    /// Takes leave of a mount that has ended.
    pub fn finish(self) {
        self.mounted.wait();
    }

    /// Serves nothing more; the process must end after that.
    pub fn freeze(&self) {
        self.mounted.freeze();
    }
}
