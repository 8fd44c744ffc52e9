//! Who asks: what is kept of a request's header, since fuser's own lives only as long as its handler.

use std::time::Duration;

use fuser::Request;

use super::nodes::RESENT;

/// The sender of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// The kernel's number of the request, [`RESENT`] included.
    pub unique: u64,
    /// The user; of no meaning where nothing is created (idmapped mounts).
    pub uid: u32,
    /// The group; the same holds.
    pub gid: u32,
    /// The thread that waits for the answer, as the mount's maker sees it; 0 for the kernel's own doing, such as writing pages back.
    pub pid: u32,
    /// Since when a change may be thought of as made, where that is not now (`CLOCK_BOOTTIME`).
    pub since: Option<Duration>,
}

impl Asker {
    /// The sender of this one.
    pub fn of(req: &Request) -> Asker {
        Asker { unique: req.unique().0, uid: req.uid(), gid: req.gid(), pid: req.pid(), since: None }
    }

    /// The request's number, whether it comes for the first time or again.
    pub fn number(self) -> u64 {
        self.unique & !RESENT
    }

    /// Whether the kernel has sent it before, to a daemon that is dead.
    pub fn again(self) -> bool {
        self.unique & RESENT != 0
    }

    /// Whether the thread that waits was killed. It cannot end before it has its answer (kernel `fs/fuse/dev.c`, request_wait_answer), and since the
    /// kernel was told that nothing can be interrupted here, it tells nobody.
    pub fn is_killed(self) -> bool {
        // Not the thread that asked, where that one did not wait: then it may be gone, and nobody has its number or somebody else.
        self.pid != 0 && std::fs::read_to_string(format!("/proc/{}/status", self.pid)).is_ok_and(|s| has_kill(&s))
    }
}

/// Whether SIGKILL is pending, by proc_pid_status(5).
fn has_kill(status: &str) -> bool {
    const SIGKILL: u64 = 1 << (9 - 1);
    let sets = status.lines().filter_map(|l| l.strip_prefix("SigPnd:").or_else(|| l.strip_prefix("ShdPnd:")));
    sets.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok()).any(|set| set & SIGKILL != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_kill_is_seen() {
        let status = |own: &str, shared: &str| {
            format!("Name:\tx\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0000000000000100\n")
        };
        assert!(has_kill(&status("0000000000000100", "0000000000000000")));
        assert!(has_kill(&status("0000000000000000", "0000000000004100")));
        assert!(!has_kill(&status("0000000000004000", "0000000000000002")));
        assert!(!has_kill("nothing of the kind\nSigPnd:\tno number\n"));
        assert!(!Asker { pid: std::process::id(), ..Asker::default() }.is_killed());
        assert!(!Asker::default().is_killed());
    }
}
