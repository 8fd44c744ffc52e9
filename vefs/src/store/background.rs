//! The threads of a running store: the tick, housekeeping, and those that publish, hash and prepare journal segments. Everything they do can be called without them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Store;

/// Time between looks for quiet files, and how long a file must not have been written.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(10);
/// Time between commits of a VE that somebody follows.
const FOLLOWED: Duration = Duration::from_millis(200);

/// The running threads; they end when this is dropped.
pub struct Background {
    store: Arc<Store>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Background {
    /// Starts them. `period` is the time between commit ticks.
    pub fn start(store: Arc<Store>, period: Duration) -> std::io::Result<Background> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let (publish, to_publish) = mpsc::channel();
        let (prepare, to_prepare) = mpsc::channel();
        *store.shared.publisher.lock() = Some(publish);
        *store.shared.preparer.lock() = Some(prepare);
        store.shared.hashes.open();
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(format!("vefs-{name}")).spawn(body)
        };
        let (s, stopped) = (store.clone(), stop.clone());
        threads.push(spawn(
            "tick",
            Box::new(move || {
                let mut last = Instant::now();
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(period.min(FOLLOWED));
                    let full = last.elapsed() >= period;
                    if full {
                        last = Instant::now();
                    }
                    if let Err(e) = if full { s.tick() } else { s.tick_followed() } {
                        tracing::error!(error = %e, "commit tick");
                    }
                }
            }),
        )?);
        let (s, stopped) = (store.clone(), stop.clone());
        threads.push(spawn(
            "housekeep",
            Box::new(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(HOUSEKEEPING);
                    if let Err(e) = s.housekeep(QUIET) {
                        tracing::error!(error = %e, "housekeeping");
                    }
                }
            }),
        )?);
        let s = store.clone();
        threads.push(spawn(
            "publish",
            Box::new(move || {
                while let Ok(id) = to_publish.recv() {
                    if let Err(e) = s.ve(id).and_then(|ve| ve.publish_pending()) {
                        tracing::error!(ve = %id, error = %e, "publishing");
                    }
                }
            }),
        )?);
        let s = store.clone();
        threads.push(spawn(
            "prepare",
            Box::new(move || {
                while let Ok(id) = to_prepare.recv() {
                    if let Some(ve) = s.opened().into_iter().find(|ve| ve.slot == id) {
                        ve.prepare_spare();
                    }
                }
            }),
        )?);
        let s = store.clone();
        threads.push(spawn("hash", Box::new(move || s.shared.hashes.run()))?);
        Ok(Background { store, stop, threads })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        *self.store.shared.publisher.lock() = None;
        *self.store.shared.preparer.lock() = None;
        self.store.shared.hashes.close();
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("a background thread panicked");
            }
        }
    }
}
