//! Whether idle processors of this virtual machine halt at once (kernel: Documentation/virt/guest-halt-polling.rst). Then each request on a mount waits
//! for a processor to be started again, or two: several times as long as the request takes.

use std::path::Path;

/// Where the kernel shows how processors idle, below the root of sysfs.
const GOVERNOR: &str = "devices/system/cpu/cpuidle/current_governor";
/// For how many nanoseconds a guest polls before it halts.
const POLL: &str = "module/haltpoll/parameters/guest_halt_poll_ns";

/// Whether that is so, by the sysfs that is mounted there.
pub fn halts_at_once(sys: &Path) -> bool {
    let is = |file: &str, value: &str| std::fs::read_to_string(sys.join(file)).is_ok_and(|text| text.trim() == value);
    is(GOVERNOR, "haltpoll") && is(POLL, "0")
}

/// Says so in the log.
pub fn advise() {
    if halts_at_once(Path::new("/sys")) {
        tracing::warn!(
            "idle processors halt at once, requests on mounts take several times as long as they need: set /sys/{POLL} to 200000, the kernel's default"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_guest_that_polls_for_no_time_is_told() {
        let sys = tempfile::tempdir().unwrap();
        assert!(!halts_at_once(sys.path()), "no such files");
        for (file, text) in [(GOVERNOR, "haltpoll\n"), (POLL, "0\n")] {
            let path = sys.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert!(halts_at_once(sys.path()));
        std::fs::write(sys.path().join(POLL), "200000\n").unwrap();
        assert!(!halts_at_once(sys.path()));
        std::fs::write(sys.path().join(POLL), "0\n").unwrap();
        std::fs::write(sys.path().join(GOVERNOR), "menu\n").unwrap();
        assert!(!halts_at_once(sys.path()), "that one does not ask how long");
    }
}
