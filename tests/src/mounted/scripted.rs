//! The bed's stand-in for a VE's window: a file in the bed's folder says what every changing operation is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vefs::Ve;
use vefs::ids::{PayloadId, TxnNo};
use vefs::ve::{Verdict, Watcher};

/// Its name.
pub const FILE: &str = "verdict";

/// Says what the file says: `go`, `wait`, `fenced`, `delay` and milliseconds, or `answers`, with which operations begin and are not answered. Without the
/// file nobody watches.
struct Scripted(PathBuf);

impl Scripted {
    fn says(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }
}

impl Watcher for Scripted {
    fn admit(&self, _bytes: u64) -> Verdict {
        let says = self.says();
        match says.split_once(' ') {
            Some(("delay", millis)) => Verdict::Delay(Duration::from_millis(millis.parse().unwrap_or(0))),
            _ if says == "wait" => Verdict::Wait,
            _ if says == "fenced" => Verdict::Fenced,
            _ => Verdict::Go,
        }
    }

    fn complete(&self) -> Verdict {
        match self.says().as_str() {
            "wait" | "answers" => Verdict::Wait,
            "fenced" => Verdict::Fenced,
            _ => Verdict::Go,
        }
    }

    fn fetch_every(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn accepted(&self, _txn: TxnNo, _bytes: u64) {}
    fn bulk(&self, _id: PayloadId, _len: u64) {}
    fn durable(&self) {}
}

/// Watches a VE, if there is a file.
pub fn watch(file: PathBuf, ve: &Arc<Ve>) {
    if file.exists() {
        ve.set_watcher(Some(Arc::new(Scripted(file))));
    }
}
