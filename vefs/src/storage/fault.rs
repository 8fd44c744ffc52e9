//! A disk that fails on request: a wrapper around any storage, and the plan that says what goes wrong and when.
//!
//! The plan is shared by the storage and all its open files and may be changed at any time. A call that fails does not
//! reach the storage below, except for the prefix of a short write. The order in which calls are counted is the order in
//! which they start.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{File, Storage};

/// The kinds of calls, as the plan counts and fails them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Storage::open`].
    Open,
    /// [`Storage::create`].
    Create,
    /// [`Storage::rename`].
    Rename,
    /// [`Storage::remove`].
    Remove,
    /// [`Storage::list`].
    List,
    /// [`Storage::sync_dir`].
    SyncDir,
    /// [`Storage::sync_all`].
    SyncAll,
    /// [`Storage::free_bytes`] and [`File::len`].
    Stat,
    /// [`File::read_at`].
    Read,
    /// [`File::write_at`].
    Write,
    /// [`File::sync`].
    Sync,
    /// [`File::punch`].
    Punch,
}

/// Calls made so far, failed ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// [`File::write_at`].
    pub writes: u64,
    /// Bytes of the writes that were handed on.
    pub bytes: u64,
    /// [`File::sync`].
    pub syncs: u64,
    /// [`Storage::sync_all`].
    pub sync_alls: u64,
    /// [`Storage::sync_dir`].
    pub sync_dirs: u64,
    /// [`Storage::create`].
    pub creates: u64,
    /// [`File::punch`].
    pub punches: u64,
    /// [`File::read_at`].
    pub reads: u64,
}

/// What goes wrong, and when. Calls are numbered from the moment a fault is planned: 1 is the next one of its kind.
#[derive(Debug, Default)]
pub struct FaultPlan {
    plan: Mutex<Plan>,
    /// Held during a flush when flushes exclude each other.
    queue: Mutex<()>,
}

#[derive(Debug, Default)]
struct Plan {
    rules: Vec<Rule>,
    counts: Counts,
    calls: u64,
    /// Calls that still work before none does.
    alive: Option<u64>,
    latency: Duration,
    one_queue: bool,
}

#[derive(Debug)]
struct Rule {
    call: Call,
    /// Calls of this kind that come before the fault.
    before: u64,
    forever: bool,
    /// Bytes that land all the same.
    lands: usize,
    error: ErrorKind,
}

/// A fault that has come due.
struct Fault {
    lands: usize,
    error: io::Error,
}

impl FaultPlan {
    /// A plan in which nothing fails.
    pub fn new() -> Arc<FaultPlan> {
        Arc::default()
    }

    /// The `nth` call of this kind fails, and only that one.
    pub fn fail(&self, call: Call, nth: u64, error: ErrorKind) {
        self.add(call, nth, false, 0, error);
    }

    /// The `nth` call of this kind and every later one fails.
    pub fn fail_from(&self, call: Call, nth: u64, error: ErrorKind) {
        self.add(call, nth, true, 0, error);
    }

    /// Of the `nth` write at most the first `lands` bytes land, then it fails.
    pub fn short_write(&self, nth: u64, lands: usize, error: ErrorKind) {
        self.add(Call::Write, nth, false, lands, error);
    }

    /// After `calls` more calls of any kind the disk is dead: every call fails with EIO.
    pub fn die_after(&self, calls: u64) {
        self.plan.lock().alive = Some(calls);
    }

    /// Forgets all faults, the dead disk included. Latency and counts stay.
    pub fn heal(&self) {
        let mut plan = self.plan.lock();
        plan.rules.clear();
        plan.alive = None;
    }

    /// Every flush (`sync`, `sync_dir`, `sync_all`) takes this much longer; with `one_queue` flushes wait for each other,
    /// as on a device with one queue.
    pub fn flush_latency(&self, latency: Duration, one_queue: bool) {
        let mut plan = self.plan.lock();
        plan.latency = latency;
        plan.one_queue = one_queue;
    }

    /// Calls by kind since the plan was made.
    pub fn counts(&self) -> Counts {
        self.plan.lock().counts
    }

    /// Calls of every kind since the plan was made.
    pub fn calls(&self) -> u64 {
        self.plan.lock().calls
    }

    fn add(&self, call: Call, nth: u64, forever: bool, lands: usize, error: ErrorKind) {
        let before = nth.saturating_sub(1);
        self.plan.lock().rules.push(Rule { call, before, forever, lands, error });
    }

    /// Counts a call and says whether it goes wrong.
    fn start(&self, call: Call, bytes: usize) -> Result<(), Fault> {
        let mut plan = self.plan.lock();
        let fault = plan.next_fault(call);
        plan.count(call, fault.as_ref().map_or(bytes, |fault| fault.lands.min(bytes)));
        fault.map_or(Ok(()), Err)
    }

    fn check(&self, call: Call) -> io::Result<()> {
        self.start(call, 0).map_err(|fault| fault.error)
    }

    /// A flush takes its time whether it fails or not.
    fn flush(&self, call: Call, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let (latency, one_queue) = {
            let plan = self.plan.lock();
            (plan.latency, plan.one_queue)
        };
        let _turn = one_queue.then(|| self.queue.lock());
        let verdict = self.check(call);
        if !latency.is_zero() {
            std::thread::sleep(latency);
        }
        verdict?;
        flush()
    }
}

impl Plan {
    fn next_fault(&mut self, call: Call) -> Option<Fault> {
        self.calls += 1;
        let dead = match &mut self.alive {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        // Every rule counts every call of its kind, also one that another rule fails.
        let mut due = None;
        self.rules.retain_mut(|rule| {
            if rule.call != call {
                return true;
            }
            if rule.before > 0 {
                rule.before -= 1;
                return true;
            }
            due.get_or_insert(Fault { lands: rule.lands, error: rule.error.into() });
            rule.forever
        });
        if dead {
            let error = io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
            return Some(Fault { lands: 0, error });
        }
        due
    }

    fn count(&mut self, call: Call, bytes: usize) {
        let counts = &mut self.counts;
        match call {
            Call::Write => {
                counts.writes += 1;
                counts.bytes += bytes as u64;
            }
            Call::Sync => counts.syncs += 1,
            Call::SyncAll => counts.sync_alls += 1,
            Call::SyncDir => counts.sync_dirs += 1,
            Call::Create => counts.creates += 1,
            Call::Punch => counts.punches += 1,
            Call::Read => counts.reads += 1,
            Call::Open | Call::Rename | Call::Remove | Call::List | Call::Stat => {}
        }
    }
}

/// A storage whose calls fail by plan.
pub struct FaultStorage {
    below: Arc<dyn Storage>,
    plan: Arc<FaultPlan>,
}

impl FaultStorage {
    /// Puts a plan before a storage.
    pub fn new(below: Arc<dyn Storage>, plan: Arc<FaultPlan>) -> FaultStorage {
        FaultStorage { below, plan }
    }

    fn wrap(&self, below: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(FaultFile { below, plan: Arc::clone(&self.plan) })
    }
}

impl Storage for FaultStorage {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.plan.check(Call::Open)?;
        Ok(self.wrap(self.below.open(path)?))
    }

    fn create(&self, path: &str, zeros: u64) -> io::Result<Arc<dyn File>> {
        self.plan.check(Call::Create)?;
        Ok(self.wrap(self.below.create(path, zeros)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.plan.check(Call::Rename)?;
        self.below.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.plan.check(Call::Remove)?;
        self.below.remove(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.plan.check(Call::List)?;
        self.below.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.plan.flush(Call::SyncDir, || self.below.sync_dir(dir))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.plan.flush(Call::SyncAll, || self.below.sync_all())
    }

    fn forget_cached(&self, path: &str) -> io::Result<()> {
        self.below.forget_cached(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.plan.check(Call::Stat)?;
        self.below.free_bytes()
    }
}

struct FaultFile {
    below: Arc<dyn File>,
    plan: Arc<FaultPlan>,
}

impl File for FaultFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.plan.check(Call::Read)?;
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let total = parts.iter().map(|part| part.len()).sum();
        let Err(fault) = self.plan.start(Call::Write, total) else { return self.below.write_at(parts, offset) };
        if fault.lands > 0 {
            self.below.write_at(&first_bytes(parts, fault.lands), offset)?;
        }
        Err(fault.error)
    }

    fn sync(&self) -> io::Result<()> {
        self.plan.flush(Call::Sync, || self.below.sync())
    }

    fn len(&self) -> io::Result<u64> {
        self.plan.check(Call::Stat)?;
        self.below.len()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.plan.check(Call::Punch)?;
        self.below.punch(offset, len)
    }
}

fn first_bytes<'a>(parts: &'a [IoSlice<'_>], mut bytes: usize) -> Vec<IoSlice<'a>> {
    let mut first = Vec::new();
    for part in parts {
        let here = part.len().min(bytes);
        first.push(IoSlice::new(&part[..here]));
        bytes -= here;
    }
    first
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
