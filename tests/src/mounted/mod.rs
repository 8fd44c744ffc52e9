//! A store, its daemon and mounted VEs, for tests of what a program in a VE sees. Linux, root and `/dev/fuse` only.
//!
//! A [`Bed`] is a temporary folder with everything in it. The daemon, the holder and the client are processes of their own (one program
//! under several names, see [`program`]), so the test's own threads may touch the mounts. They cannot hang for ever: a janitor process
//! ends daemon and holder when the bed's time is up, which fails every operation on its mounts, and cleans up also when the test's process
//! is killed.
#![allow(clippy::unwrap_used)]

pub mod child;
mod janitor;
pub mod program;
mod scripted;
pub mod system;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;

use aspfs_tools::client::Client;
use aspfs_tools::control::message::{Counted, Id, Released, Request, Status};
use janitor::Janitor;

/// For a command that has little to do.
const SHORT: Duration = Duration::from_secs(60);

/// Why no VE can be mounted here, if so.
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root to mount".into());
    }
    OpenOptions::new().read(true).write(true).open("/dev/fuse").err().map(|e| format!("needs /dev/fuse: {e}"))
}

/// A folder on ext4, which says what is right.
pub fn reference() -> Option<TempDir> {
    let dir = TempDir::with_prefix("aspfs-ext4-").unwrap();
    let kind = rustix::fs::statfs(dir.path()).unwrap().f_type;
    if kind == EXT4 {
        return Some(dir);
    }
    eprintln!("skipped: {} is not on ext4, which says what is right", dir.path().display());
    None
}

/// `EXT4_SUPER_MAGIC` of statfs(2).
const EXT4: i64 = 0xEF53;

/// A store with its daemon.
pub struct Bed {
    // Order of fields is order of dropping: the folder goes last.
    janitor: Mutex<Janitor>,
    daemon: Mutex<Option<Child>>,
    holder: Mutex<u32>,
    mounted: Mutex<Vec<String>>,
    dir: TempDir,
}

impl Bed {
    /// A bed whose daemon does not run yet. `program` is the bed's program; after `limit` everything ends. `None`, with a word on why, where it
    /// cannot be.
    pub fn make(program: &str, limit: Duration) -> Option<Bed> {
        if let Some(why) = obstacle() {
            eprintln!("skipped: {why}");
            return None;
        }
        let dir = TempDir::with_prefix("aspfs-bed-").unwrap();
        for name in program::NAMES {
            std::os::unix::fs::symlink(program, dir.path().join(name)).unwrap();
        }
        let janitor = Janitor::start(Path::new(program), dir.path(), limit);
        Some(Bed {
            janitor: Mutex::new(janitor),
            daemon: Mutex::default(),
            holder: Mutex::default(),
            mounted: Mutex::default(),
            dir,
        })
    }

    /// A bed whose daemon runs.
    pub fn start(program: &str, limit: Duration) -> Option<Bed> {
        let bed = Bed::make(program, limit)?;
        bed.run();
        Some(bed)
    }

    /// A path in the bed's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes VEs over a copy of a folder's tree. The daemon must not run.
    pub fn import(&self, source: &Path, ves: &[&str]) {
        let mut command = Command::new(self.path("aspfs-child"));
        command.arg("import").arg(self.path("store")).arg(source).args(ves);
        expect(&mut command, SHORT);
    }

    /// Starts the daemon.
    pub fn spawn(&self) {
        self.spawn_by(Command::new(self.path("aspfsd")));
    }

    /// Starts a daemon that is killed when one of its threads is about to give its `nth` answer to the kernel: what was asked is done by then. Needs
    /// strace(1).
    pub fn spawn_to_die_answering(&self, nth: u64) {
        let mut command = Command::new("strace");
        // -D: strace is not the parent. All the daemon writes with writev(2) is its answers.
        command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=writev", "-e"]);
        command.arg(format!("inject=writev:signal=KILL:when={nth}")).arg(self.path("aspfsd"));
        self.spawn_by(command);
    }

    fn spawn_by(&self, mut command: Command) {
        let log = OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        command.arg("--store").arg(self.path("store")).arg("--socket").arg(self.path("socket"));
        command.arg("--runtime-dir").arg(self.path("run")).arg("--holder").arg(self.path("aspfs-holder"));
        command.args(["--gc-interval", "5s"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        self.janitor.lock().process(child.id());
        *self.daemon.lock() = Some(child);
    }

    /// Waits until the daemon ends by itself; tells what its mounts had counted when they were asked last.
    pub fn outlive(&self, limit: Duration) -> Counted {
        let mut child = self.daemon.lock().take().unwrap();
        let until = Instant::now() + limit;
        let mut counted = Counted::default();
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the daemon lives\n{}", self.log());
            if let Ok(mut client) = Client::connect(&self.path("socket"))
                && let Ok(status) = client.status()
            {
                counted = status.counted;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        counted
    }

    /// Starts the daemon and waits until it hears.
    pub fn run(&self) {
        self.spawn();
        let until = Instant::now() + SHORT;
        while Client::connect(&self.path("socket")).is_err() {
            let ended = self.daemon.lock().as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "the daemon did not start: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        let holder = self.status().holder;
        if std::mem::replace(&mut *self.holder.lock(), holder) != holder {
            self.janitor.lock().process(holder);
        }
    }

    /// kill -9.
    pub fn kill(&self) {
        let mut child = self.daemon.lock().take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Lets the daemon end in order.
    pub fn stop(&self) -> ExitStatus {
        let mut child = self.daemon.lock().take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait(&mut child, SHORT).unwrap_or_else(|| panic!("the daemon does not end\n{}", self.log()))
    }

    /// The daemon's process.
    pub fn daemon(&self) -> u32 {
        self.daemon.lock().as_ref().unwrap().id()
    }

    /// Ends everything at once, after a failure: whatever waits for the mounts gets an error.
    pub fn abort(&self) {
        self.janitor.lock().clean();
    }

    /// What the daemon says of itself.
    pub fn status(&self) -> Status {
        Client::connect(&self.path("socket")).unwrap().status().unwrap()
    }

    /// What every changing operation in a VE is told from now on: see [`scripted`]. To be said before the VE is mounted.
    pub fn verdict(&self, says: &str) {
        // At once: a file that is half written says nothing.
        fs::write(self.path("verdict.new"), says).unwrap();
        fs::rename(self.path("verdict.new"), self.path(scripted::FILE)).unwrap();
    }

    /// Waits until so many requests wait for a window.
    pub fn until_parked(&self, requests: u64) {
        let until = Instant::now() + SHORT;
        while self.counted().parked != requests {
            assert!(Instant::now() < until, "{} requests wait, not {requests}", self.counted().parked);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the mounts have counted since the daemon runs.
    pub fn counted(&self) -> Counted {
        self.status().counted
    }

    /// Runs the client, which must succeed; gives its output.
    pub fn aspfs(&self, args: &[&str]) -> String {
        let mut command = Command::new(self.path("aspfs"));
        command.arg("--socket").arg(self.path("socket")).args(args);
        expect(&mut command, SHORT)
    }

    /// Creates a VE over the empty tree, with settings, and mounts it.
    pub fn ve(&self, ve: &str, settings: &[&str]) -> PathBuf {
        self.aspfs(&[&["ve", "create", ve], settings].concat());
        self.mount(ve, &[])
    }

    /// Mounts a VE.
    pub fn mount(&self, ve: &str, options: &[&str]) -> PathBuf {
        let dir = self.path(&format!("ve-{ve}"));
        fs::create_dir_all(&dir).unwrap();
        self.janitor.lock().mount(&dir);
        self.aspfs(&[&["mount", ve, dir.to_str().unwrap()], options].concat());
        self.mounted.lock().push(ve.to_owned());
        dir
    }

    /// Unmounts a VE nobody works in.
    ///
    /// Tests share a process, and one that starts a program shares the descriptors of all of them with it until it is
    /// executed: what a test has closed may be open for a moment more, and the mount busy.
    pub fn umount(&self, ve: &str) {
        let until = Instant::now() + SHORT;
        loop {
            let mut command = Command::new(self.path("aspfs"));
            command.arg("--socket").arg(self.path("socket")).args(["umount", ve]);
            let done = outcome(&mut command, SHORT).unwrap_or_else(|e| panic!("{command:?}: {e}"));
            if done.status.success() {
                break;
            }
            let passing = done.stderr.contains(": busy: ") && Instant::now() < until;
            assert!(passing, "{command:?}: {}\n{}{}", done.status, done.stdout, done.stderr);
            std::thread::sleep(Duration::from_millis(10));
        }
        self.mounted.lock().retain(|m| m != ve);
    }

    /// Detaches a VE's mount from below its users (umount -l); `force` ends what they wait for before (umount -f).
    pub fn detach(&self, ve: &str, force: bool) {
        use rustix::mount::{UnmountFlags, unmount};
        let dir = self.path(&format!("ve-{ve}"));
        if force {
            // The kernel says that the mount is in use, and ends its requests all the same.
            let _ = unmount(&dir, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
        }
        unmount(&dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).unwrap();
        self.mounted.lock().retain(|m| m != ve);
    }

    /// Waits until a detached mount is gone.
    pub fn until_released(&self, ve: &str) {
        let until = Instant::now() + SHORT;
        let ask = Request::Unmounted { ve: Id(ve.parse().unwrap()), version: None, wait_ms: 1000 };
        while !Client::connect(&self.path("socket")).unwrap().call::<Released>(&ask).unwrap().released {
            assert!(Instant::now() < until, "the mount of VE {ve} stays\n{}", self.log());
        }
    }

    /// A program of this bed that does what [`child`] says under this name.
    pub fn child(&self, what: &str) -> Command {
        let mut command = Command::new(self.path("aspfs-child"));
        command.arg(what);
        command
    }

    /// What the daemons have said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Unmounts all, ends the daemon in order, and looks whether it complained.
    pub fn finish(self) {
        let mounted = self.mounted.lock().clone();
        mounted.iter().for_each(|ve| self.umount(ve));
        assert!(self.stop().success(), "{}", self.log());
        let log = self.log();
        let complaints: Vec<&str> = log.lines().filter(|l| l.contains(" ERROR ") || l.contains("panicked")).collect();
        assert!(complaints.is_empty(), "the daemon complained:\n{}", complaints.join("\n"));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the daemon said last:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        self.janitor.lock().clean();
        if let Some(mut child) = self.daemon.lock().take() {
            let _ = child.wait();
        }
    }
}

/// Waits for a process, at most so long.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return Some(status),
            None if Instant::now() >= until => return None,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// What a program did.
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// Runs a program to its end, killing it after `limit`. Its output goes through files, so that nothing it leaves running can hold us up.
pub fn outcome(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    let (out, err) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    command.stdin(Stdio::null()).stdout(File::create(out.path())?).stderr(File::create(err.path())?);
    let mut child = command.spawn()?;
    let Some(status) = wait(&mut child, limit) else {
        child.kill()?;
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{command:?}: killed after {limit:?}")));
    };
    let text = |file: &Path| fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Outcome { status, stdout: text(out.path())?, stderr: text(err.path())? })
}

/// As [`outcome`], for what must succeed; gives the output.
pub fn expect(command: &mut Command, limit: Duration) -> String {
    let done = outcome(command, limit).unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(done.status.success(), "{command:?}: {}\n{}{}", done.status, done.stdout, done.stderr);
    done.stdout
}
