//! A node for tests: a folder with a store, a daemon on it, its holder. Whatever a test does, its mounts and processes end with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aspfs_tools::client::{Client, mountinfo};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder with the programs, which are built if they are not up to date.
pub fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let exe = std::env::current_exe().expect("this program has a name");
        let profile = exe.parent().and_then(Path::parent).expect("tests lie in PROFILE/deps").to_owned();
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies below the top");
        let mut build = Command::new(env!("CARGO"));
        // Of the whole workspace, as the tests are: of two packages alone nearly everything is built once more, with other features.
        build.args(["build", "--quiet", "--locked", "--workspace", "--bins"]).current_dir(top);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        // What cargo tells a test of its package is nothing to this build: a dependency's build script that looks at it would have everything
        // above it built once more, here and then by whoever builds next.
        let told = |name: &str| {
            ["CARGO_MANIFEST", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|p| name.starts_with(p))
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
            build.env_remove(name);
        }
        build.env("CARGO_TARGET_DIR", profile.parent().expect("PROFILE lies in the target folder"));
        assert!(build.status().expect("cargo").success(), "the programs do not build");
        profile
    })
}

/// Why nothing can be mounted here, if so.
pub fn cannot_mount() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".into());
    }
    std::fs::File::options().read(true).write(true).open("/dev/fuse").err().map(|e| format!("/dev/fuse: {e}"))
}

/// Ends a test that needs mounts where there can be none.
#[macro_export]
macro_rules! needs_mounts {
    () => {
        if let Some(why) = $crate::node::cannot_mount() {
            eprintln!("skipped: {why}");
            return;
        }
    };
}

/// A node.
pub struct Node {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
    holders: Vec<u32>,
    flags: Vec<String>,
    /// What the daemon's command begins with.
    prefix: Vec<String>,
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Exit status; -1 for a signal.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Its output, if all went well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// It failed with this status, and said all of this.
    #[track_caller]
    pub fn fails(self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        assert!(parts.iter().all(|p| self.err.contains(p)), "{:?} does not say {parts:?}", self.err);
    }
}

/// Unmounts what nobody works in, with umount(2).
///
/// Tests share a process, and one that starts a program shares the descriptors of all of them with it until it is
/// executed: what a test has closed may be open for a moment more, and the mount busy.
#[track_caller]
pub fn unmount(dir: &Path) {
    use rustix::mount::{UnmountFlags, unmount};
    let until = Instant::now() + PATIENCE;
    loop {
        match unmount(dir, UnmountFlags::empty()) {
            Err(rustix::io::Errno::BUSY) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            done => return done.unwrap_or_else(|e| panic!("umount {}: {e}", dir.display())),
        }
    }
}

impl Node {
    /// A node with a running daemon.
    pub fn start() -> Node {
        Node::with(&[])
    }

    /// What its daemon is given besides, from the next start on.
    pub fn flags(&mut self) -> &mut Vec<String> {
        &mut self.flags
    }

    /// A node whose daemon is given these flags besides.
    pub fn with(flags: &[&str]) -> Node {
        let mut node = Node::stopped();
        node.flags = flags.iter().map(|f| (*f).to_owned()).collect();
        node.up();
        node
    }

    /// A node with a running daemon, begun with these words, which enter a namespace, and given these flags
    /// besides.
    pub fn on(prefix: Vec<String>, flags: &[String]) -> Node {
        let mut node = Node::stopped();
        node.prefix = prefix;
        node.flags = flags.to_vec();
        node.up();
        node
    }

    /// A node without a daemon so far.
    pub fn stopped() -> Node {
        let dir = tempfile::Builder::new().prefix("aspfs-node-").tempdir().expect("a temporary folder");
        Node { dir, daemon: None, holders: Vec::new(), flags: Vec::new(), prefix: Vec::new() }
    }

    /// A path in the node's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    /// A new folder in the node's folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).expect("a folder");
        path
    }

    /// The daemon's command, not started.
    pub fn daemon_command(&self) -> Command {
        let program = programs().join("aspfsd");
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.env_remove("ASPFS_SOCKET");
        for (flag, name) in [("--store", "store"), ("--socket", "control.sock"), ("--runtime-dir", "run")] {
            command.arg(flag).arg(self.path(name));
        }
        command.args(&self.flags);
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn up(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let daemon = self.daemon_command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.daemon = Some(daemon.expect("a daemon"));
        let status = self.wait_for("the daemon", |node| {
            let daemon = node.daemon.as_mut().expect("was started");
            if let Some(status) = daemon.try_wait().expect("a child can be waited for") {
                panic!(
                    "the daemon ended with {status}: {}",
                    std::fs::read_to_string(node.path("log")).unwrap_or_default()
                );
            }
            Client::connect(&node.socket()).ok()?.status().ok()
        });
        self.holders.push(status.holder);
    }

    /// Waits until something is there.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, mut look: impl FnMut(&mut Node) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "{what} did not come");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// The last holder's process.
    pub fn holder(&self) -> u32 {
        *self.holders.last().expect("a daemon ran")
    }

    /// Kills the daemon and does not wait for its end.
    pub fn kill_and_run(&mut self) -> Option<Child> {
        let mut daemon = self.daemon.take()?;
        let _ = daemon.kill();
        Some(daemon)
    }

    /// Kills the daemon, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Stops the daemon with SIGTERM; its exit status.
    pub fn term(&mut self) -> i32 {
        let pid = Pid::from_raw(self.pid() as i32).expect("a process");
        rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
        self.ended()
    }

    /// Waits until the daemon has ended by itself; its exit status.
    pub fn ended(&mut self) -> i32 {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.wait().expect("a child can be waited for").code().unwrap_or(-1)
    }

    /// Whether a process runs (and is not only a remnant that nobody has waited for).
    pub fn runs(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    /// The client's command, not started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(programs().join("aspfs"));
        command.env("ASPFS_SOCKET", self.socket()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs the client.
    pub fn aspfs(&self, args: &[&str]) -> Said {
        self.command(args).output().expect("the client runs").into()
    }

    /// Unmounts what nobody works in.
    ///
    /// It may be busy for a moment after its last use, as [`unmount`] says.
    #[track_caller]
    pub fn umount(&self, what: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = self.aspfs(&["umount", what]);
            if said.status == 0 || !said.err.contains(": busy: ") || Instant::now() > until {
                said.ok();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A VE over an empty tree, mounted.
    pub fn mounted(&self, ve: &str) -> PathBuf {
        self.aspfs(&["ve", "create", ve, "--quota", "1G"]).ok();
        let dir = self.folder(&format!("mnt-{ve}"));
        self.aspfs(&["mount", ve, dir.to_str().expect("UTF-8")]).ok();
        dir
    }

    /// A conversation with the daemon.
    pub fn client(&self) -> Client {
        Client::connect(&self.socket()).expect("the daemon listens")
    }

    /// Everything that is mounted in the node's folder.
    pub fn mounts(&self) -> Vec<mountinfo::Line> {
        let all = mountinfo::read().expect("mountinfo");
        all.into_iter().filter(|line| line.dir.starts_with(self.dir.path())).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Detached first, while somebody serves them; a daemon that is gone has no say in it.
        for line in self.mounts().iter().rev() {
            let _ = rustix::mount::unmount(&line.dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
        self.kill();
        for holder in &self.holders {
            let is_ours =
                std::fs::read_link(format!("/proc/{holder}/exe")).is_ok_and(|exe| exe.ends_with("aspfs-holder"));
            if let Some(pid) = Pid::from_raw(*holder as i32).filter(|_| is_ours) {
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
        }
    }
}
