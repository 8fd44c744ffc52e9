//! The holder's process: one thread, one poll(2) over its listener, the daemon's socket and the daemon's process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::mount::{self, Made};
use crate::packet;
use crate::protocol::{Ask, MOUNTS_MAX, PROTOCOL, Reply, Row, TEXT_MAX};

/// A holder of nothing that no daemon talks to ends after this many seconds.
const IDLE_SECONDS: i64 = 60;

/// Where the holder of a store listens, in the daemon's runtime folder.
pub fn socket_path(runtime: &Path, store: &[u8; 16]) -> PathBuf {
    let name: String = store[..8].iter().map(|b| format!("{b:02x}")).collect();
    runtime.join(format!("holder-{name}.sock"))
}

/// A connected daemon. Without a socket it has closed its end, but its process is still there.
struct Peer {
    socket: Option<OwnedFd>,
    process: OwnedFd,
    pid: Pid,
}

/// What is held of one mount.
struct Entry {
    row: Row,
    device: OwnedFd,
    kept: OwnedFd,
}

struct Holder {
    listener: OwnedFd,
    daemon: Option<Peer>,
    /// A daemon that has come while the one before is still there.
    next: Option<Peer>,
    mounts: Vec<Entry>,
    quit: bool,
}

/// The program `aspfs-holder`: the daemon starts it with its listening socket as standard input. Returns when it has nothing to hold and nobody
/// to serve.
pub fn main() -> io::Result<()> {
    let listener = io::stdin().as_fd().try_clone_to_owned()?;
    if !rustix::net::sockopt::socket_acceptconn(&listener)? {
        return Err(io::Error::other("standard input is no listening socket: aspfsd starts this program"));
    }
    // It belongs to no terminal and to no daemon, stands in no folder that could be unmounted, and is the last to be killed for memory:
    // with it every mount of the node goes. What of this is not allowed is not needed for correctness.
    let _ = rustix::process::setsid();
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    rustix::process::chdir("/")?;
    raise_descriptor_limit();
    // The daemon waits for signals with all its threads' masks shut, and its children inherit that.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    let mut holder = Holder { listener, daemon: None, next: None, mounts: Vec::new(), quit: false };
    while !holder.quit {
        holder.turn()?;
    }
    Ok(())
}

/// Two descriptors a mount: the soft limit of 1,024 is too small for a thousand VEs.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

impl Holder {
    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> io::Result<()> {
        let idle = self.mounts.is_empty() && self.daemon.is_none();
        let timeout = idle.then_some(Timespec { tv_sec: IDLE_SECONDS, tv_nsec: 0 });
        let sources: Vec<(What, BorrowedFd<'_>)> = [(What::Listener, self.listener.as_fd())]
            .into_iter()
            .chain(self.daemon.iter().map(|p| (What::DaemonEnded, p.process.as_fd())))
            .chain(self.daemon.iter().filter_map(|p| p.socket.as_ref()).map(|s| (What::Daemon, s.as_fd())))
            .chain(self.next.iter().map(|p| (What::NextEnded, p.process.as_fd())))
            .collect();
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => {
                self.quit = idle;
                return Ok(());
            }
            Err(Errno::INTR) => return Ok(()),
            other => other.map_err(io::Error::from)?,
        };
        let ready: Vec<What> =
            sources.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|((what, _), _)| *what).collect();
        // The end of a daemon comes before a new one, and its last words before its end.
        for what in [What::Daemon, What::DaemonEnded, What::NextEnded, What::Listener] {
            if ready.contains(&what) {
                self.happened(what);
            }
        }
        Ok(())
    }

    fn happened(&mut self, what: What) {
        match what {
            What::Listener => self.accept(),
            What::NextEnded => self.next = None,
            What::DaemonEnded => self.daemon = self.next.take(),
            What::Daemon => {
                if self.hear().is_err()
                    && let Some(daemon) = &mut self.daemon
                {
                    daemon.socket = None;
                }
            }
        }
    }

    /// A new connection: of an allowed user, whose process is still there.
    fn accept(&mut self) {
        let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC) else { return };
        if crate::peer_is_allowed(&socket).is_err() {
            return;
        }
        let Ok(pid) = rustix::net::sockopt::socket_peercred(&socket).map(|peer| peer.pid) else { return };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        let peer = Peer { socket: Some(socket), process, pid };
        match &self.daemon {
            // The same process again, after it closed its first connection.
            Some(daemon) if daemon.socket.is_some() || daemon.pid != pid => match &self.next {
                Some(_) => refuse(&peer, "another daemon is waiting for this holder already"),
                None => self.next = Some(peer),
            },
            _ => self.daemon = Some(peer),
        }
    }

    /// Reads one question of the daemon and answers it. An error ends the connection.
    fn hear(&mut self) -> io::Result<()> {
        let Some(socket) = self.daemon.as_ref().and_then(|d| d.socket.as_ref()) else { return Ok(()) };
        let socket = socket.try_clone()?;
        let Some((ask, fds)) = packet::recv::<Ask>(&socket)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        match ask {
            Ask::Hello { .. } => {
                packet::send(&socket, &Reply::Hello { protocol: PROTOCOL, pid: std::process::id() }, &[])
            }
            Ask::List => {
                for entry in &self.mounts {
                    let reply = Reply::Mount(entry.row.clone());
                    packet::send(&socket, &reply, &[entry.device.as_fd(), entry.kept.as_fd()])?;
                }
                packet::send(&socket, &Reply::End, &[])
            }
            Ask::Mount(row) => match self.mount(row) {
                Ok((entry, mount)) => {
                    let fds = [entry.device.as_fd(), entry.kept.as_fd(), mount.as_fd()];
                    let sent = packet::send(&socket, &Reply::Mount(entry.row.clone()), &fds);
                    self.mounts.push(entry);
                    sent
                }
                Err(why) => packet::send(&socket, &Reply::Refused(why), &[]),
            },
            Ask::Forget { ve, version } => {
                self.mounts.retain(|entry| entry.row.ve != ve || entry.row.version != version);
                packet::send(&socket, &Reply::Done, &[])
            }
            Ask::Quit if self.mounts.is_empty() => {
                self.quit = true;
                packet::send(&socket, &Reply::Done, &[])
            }
            Ask::Quit => packet::send(&socket, &Reply::Refused(format!("{} mounts are held", self.mounts.len())), &[]),
            Ask::Adopt(row) => {
                let reply = self.adopt(row, fds).map_or_else(Reply::Refused, |()| Reply::Done);
                packet::send(&socket, &reply, &[])
            }
        }
    }

    fn adopt(&mut self, row: Row, fds: Vec<OwnedFd>) -> Result<(), String> {
        if self.holds(&row) {
            return Ok(());
        }
        self.check_room(&row)?;
        let mut fds = fds.into_iter();
        let (Some(device), Some(kept)) = (fds.next(), fds.next()) else {
            return Err("a mount without its descriptors".into());
        };
        self.mounts.push(Entry { row, device, kept });
        Ok(())
    }

    fn holds(&self, row: &Row) -> bool {
        self.mounts.iter().any(|entry| entry.row.ve == row.ve && entry.row.version == row.version)
    }

    fn check_room(&self, row: &Row) -> Result<(), String> {
        let label = row.version.as_ref().map_or(0, |v| v.label.len());
        if [row.dir.len(), row.source.len(), label].into_iter().any(|len| len > TEXT_MAX) {
            return Err("a path, a source or a version's label is too long".into());
        }
        if self.mounts.len() >= MOUNTS_MAX {
            return Err(format!("{MOUNTS_MAX} mounts are the most that one holder holds"));
        }
        Ok(())
    }

    fn mount(&self, mut row: Row) -> Result<(Entry, OwnedFd), String> {
        if self.holds(&row) {
            return Err(format!("VE {:08X} is held already", row.ve));
        }
        self.check_room(&row)?;
        let name = format!("aspfs-{:08X}", row.ve);
        // Of a version the file system itself is read-only: no remount makes it anything else.
        let fixed = row.version.is_some();
        let Made { device, kept, mount, number } =
            mount::make(&name, &row.source, &row.flags, fixed).map_err(|(what, e)| format!("{what}: {e}"))?;
        row.device = number;
        Ok((Entry { row, device, kept }, mount))
    }
}

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Listener,
    /// The daemon said something, or closed its end.
    Daemon,
    DaemonEnded,
    NextEnded,
}

fn refuse(peer: &Peer, why: &str) {
    if let Some(socket) = &peer.socket {
        let _ = packet::send(socket, &Reply::Refused(why.into()), &[]);
    }
}
