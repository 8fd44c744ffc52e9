//! Making a mount that is attached nowhere: an open `/dev/fuse`, a file system over it, a mount of that (fsopen(2), fsmount(2)).
//!
//! Nothing here waits for whoever serves the mount: the kernel queues its first request and goes on, and the device number is asked for
//! in a way that lets the kernel answer alone (`AT_STATX_DONT_SYNC`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, StatxFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::protocol::MountFlags;

/// A new mount.
pub struct Made {
    /// The open `/dev/fuse`.
    pub device: OwnedFd,
    /// Memory for the mount's volatile state.
    pub kept: OwnedFd,
    /// The mount, attached nowhere: it ends when the last descriptor of it is closed.
    pub mount: OwnedFd,
    /// Major and minor number of the file system's device.
    pub number: (u32, u32),
}

/// Largest read that the kernel asks for.
const READ_MAX: &str = "1048576";

/// Makes a mount of type `fuse.vefs`; of a `fixed` tree the file system is read-only.
pub fn make(name: &str, source: &str, flags: &MountFlags, fixed: bool) -> Result<Made, (&'static str, io::Error)> {
    let at = |what| move |e: rustix::io::Errno| (what, io::Error::from(e));
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(at("opening /dev/fuse"))?;
    let kept = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(at("making memory for a mount's state"))?;
    let context =
        rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("preparing a mount of type fuse"))?;
    let number = device.as_raw_fd().to_string();
    let settings = [
        ("source", source),
        ("subtype", "vefs"),
        ("fd", number.as_str()),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
        ("max_read", READ_MAX),
    ];
    for (key, value) in settings {
        rustix::mount::fsconfig_set_string(&context, key, value).map_err(at("preparing a mount"))?;
    }
    for key in ["default_permissions", "allow_other"] {
        rustix::mount::fsconfig_set_flag(&context, key).map_err(at("preparing a mount"))?;
    }
    if fixed {
        rustix::mount::fsconfig_set_flag(&context, "ro").map_err(at("preparing a mount"))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(at("making a file system"))?;
    let mount =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(flags)).map_err(at("mounting"))?;
    let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(&mount, "", how, StatxFlags::empty()).map_err(at("asking for a mount's device"))?;
    Ok(Made { device, kept, mount, number: (stat.stx_dev_major, stat.stx_dev_minor) })
}

/// The attributes of the mount. Access times are never kept by the file system: `noatime` says so.
pub fn attributes(flags: &MountFlags) -> MountAttrFlags {
    let mut out = MountAttrFlags::MOUNT_ATTR_NOATIME;
    for (set, attribute) in [
        (flags.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (flags.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (flags.nodev, MountAttrFlags::MOUNT_ATTR_NODEV),
        (flags.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (flags.nosymfollow, MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
    ] {
        if set {
            out |= attribute;
        }
    }
    out
}
