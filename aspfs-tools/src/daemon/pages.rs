//! Pages that programs dirtied in mappings of followed VEs are fetched from the kernel now and then (promise G6). A helper does it
//! ([`aspfs_holder::push`]): no thread of this process touches a mount.
//!
//! Invariants
//! - One fetch of a mount at a time. While a mount is being unmounted none begins: the helper has its root open meanwhile.
//! - The helper is started when it is needed first, and again when it ended. It ends with this process, by its standard input.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aspfs_holder::push::{Device, parse, show};
use parking_lot::Mutex;

use super::{Daemon, Periodic};

/// How often mounts are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long an ended helper is not started again.
const PAUSE: Duration = Duration::from_secs(10);
/// For how long no fetch begins after somebody asked where the VE is mounted, as who unmounts it does.
const REST: Duration = Duration::from_secs(3);

/// The fetches of one mount.
#[derive(Default)]
pub struct Fetches(Mutex<State>);

#[derive(Default)]
struct State {
    under_way: bool,
    rests_until: Option<Instant>,
    /// Said once.
    complained: bool,
}

/// What came of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The kernel sends the pages.
    Done,
    /// The mount is not in the helper's mount namespace.
    Gone,
    /// Why not.
    Failed(String),
}

impl Fetches {
    /// Whether a fetch begins now, if `due`.
    pub fn begin(&self, due: impl FnOnce() -> bool) -> bool {
        let mut s = self.0.lock();
        if s.under_way || s.rests_until.is_some_and(|until| Instant::now() < until) || !due() {
            return false;
        }
        s.under_way = true;
        true
    }

    /// It ended. Whether what came of it is to be told to people.
    pub fn end(&self, fetched: &Fetched) -> bool {
        let mut s = self.0.lock();
        s.under_way = false;
        let bad = *fetched != Fetched::Done;
        bad && !std::mem::replace(&mut s.complained, bad)
    }

    /// No fetch begins for a while. Whether one is under way.
    pub fn rest(&self) -> bool {
        let mut s = self.0.lock();
        s.rests_until = Some(Instant::now() + REST);
        s.under_way
    }
}

/// The helper's process and what it hears.
struct Helper {
    process: Child,
    line: ChildStdin,
}

impl Helper {
    fn start(daemon: &Arc<Daemon>) -> io::Result<Helper> {
        let mut command = Command::new(&daemon.config.holder);
        command.arg("push").env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn()?;
        let (Some(line), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let daemon = Arc::downgrade(daemon);
        std::thread::Builder::new().name("aspfs-pages-answers".into()).spawn(move || {
            hear(answers, |device, fetched| {
                if let Some(daemon) = daemon.upgrade() {
                    daemon.mounts.fetched(device, &fetched);
                }
            });
            // It ended, and what it was asked has no answer.
            if let Some(daemon) = daemon.upgrade() {
                daemon.mounts.fetches_failed();
            }
        })?;
        Ok(Helper { process, line })
    }

    fn ask(&mut self, device: Device) -> io::Result<()> {
        if let Some(status) = self.process.try_wait()? {
            return Err(io::Error::other(format!("it ended: {status}")));
        }
        self.line.write_all(format!("{}\n", show(device)).as_bytes())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may be waiting for a mount: nobody waits for it.
        let _ = self.process.kill();
        let _ = self.process.try_wait();
    }
}

fn hear(answers: ChildStdout, mut tell: impl FnMut(Device, Fetched)) {
    for line in BufReader::new(answers).lines().map_while(Result::ok) {
        let Some((device, what)) = line.split_once(' ') else { continue };
        let Some(device) = parse(device) else { continue };
        tell(
            device,
            match what {
                "done" => Fetched::Done,
                "gone" => Fetched::Gone,
                why => Fetched::Failed(why.to_owned()),
            },
        );
    }
}

/// Starts the thread that looks at the mounts.
pub fn start(daemon: Arc<Daemon>) -> io::Result<Periodic> {
    let mut helper: Option<Helper> = None;
    let mut not_before = Instant::now();
    Periodic::start("aspfs-pages", LOOK, move || {
        if Instant::now() < not_before {
            return;
        }
        for device in daemon.mounts.fetches() {
            let asked = match &mut helper {
                Some(helper) => helper.ask(device),
                None => Helper::start(&daemon).and_then(|h| helper.insert(h).ask(device)),
            };
            if let Err(e) = asked {
                tracing::error!(error = %e, "the helper that fetches dirty pages");
                helper = None;
                not_before = Instant::now() + PAUSE;
                daemon.mounts.fetches_failed();
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_none_while_it_rests() {
        let fetches = Fetches::default();
        assert!(!fetches.begin(|| false));
        assert!(fetches.begin(|| true));
        assert!(!fetches.begin(|| true));
        assert!(!fetches.end(&Fetched::Done));
        assert!(fetches.begin(|| true));
        // Said once.
        assert!(fetches.end(&Fetched::Gone));
        assert!(fetches.begin(|| true));
        assert!(fetches.rest());
        assert!(!fetches.end(&Fetched::Gone));
        assert!(!fetches.begin(|| true));
        assert!(!fetches.rest());
    }
}
