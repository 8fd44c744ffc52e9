//! Mounts that were left there while another node wrote their VE: they answer EIO for ever, and make room for the next mount of it. Such a one may be attached in
//! any number of mount namespaces, where nobody can unmount it; so it is cut off by the kernel's list of FUSE connections
//! (Documentation/filesystems/fuse/fuse.rst, "Control filesystem").

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use vefs::ids::VeId;

use super::{Mounts, Row, Slot, Target};

/// What is wrong with a mount that was left there while another node wrote its VE.
pub(super) const WHY: &str =
    "another node has changed it since it was mounted here: the mount answers EIO; mount it again, or unmount it";

impl Mounts {
    /// A VE's mount that was left there while another node wrote the VE.
    pub(in crate::daemon) fn past(&self, ve: VeId) -> Option<Row> {
        match self.slots.lock().get(&Target::live(ve)) {
            Some(Slot::Live(row, serving, _)) if serving.is_past() => Some(row.clone()),
            _ => None,
        }
    }

    /// Cuts such a mount off the kernel, wherever it is attached: what is asked of it fails from then on, and it ends (see [`sweep`](Self::sweep)).
    pub(in crate::daemon) fn abort_past(&self, ve: VeId) -> io::Result<()> {
        let Some(connection) = self.past(ve).map(|row| Connection::open(row.device)).transpose()? else {
            return Ok(());
        };
        // The device's number is this mount's only while the mount is there. It was there when the connection was opened if it still is; and what was opened
        // is of no other connection when this one is gone.
        let is_its = match self.slots.lock().get(&Target::live(ve)) {
            Some(Slot::Live(_, serving, _)) => serving.is_past() && !serving.is_dead(),
            _ => false,
        };
        if is_its { connection.abort() } else { Ok(()) }
    }
}

/// A mount's connection, which can be aborted.
struct Connection {
    abort: OwnedFd,
}

impl Connection {
    /// That of the mount with this device. The list is a file system; it is mounted for this alone, nowhere.
    fn open(device: (u32, u32)) -> io::Result<Connection> {
        let context = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let list = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let abort = openat(&list, name(device), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Connection { abort })
    }

    /// Whatever waits for an answer, and whatever is asked from now on, gets an error (ECONNABORTED, ENOTCONN).
    fn abort(&self) -> io::Result<()> {
        rustix::io::write(&self.abort, b"1")?;
        Ok(())
    }
}

/// Its file in the list: connections are named by the kernel's own number of their device (fs/fuse/control.c, fuse_ctl_add_conn; MINORBITS in
/// include/linux/kdev_t.h).
fn name((major, minor): (u32, u32)) -> String {
    format!("{}/abort", (u64::from(major) << 20) | u64::from(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_the_kernels_number_of_its_device() {
        assert_eq!(name((0, 52)), "52/abort");
        assert_eq!(name((8, 1)), "8388609/abort");
    }
}
