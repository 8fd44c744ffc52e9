//! What is agreed with the kernel at FUSE_INIT (fuse(4), linux/fuse.h).

use std::io;

use fuser::{InitFlags, KernelConfig};

/// Largest write request in bytes. So much of each session thread's buffer is in memory for as long as the thread lives, two for a mount.
pub const WRITE_MAX: u32 = 128 << 10;
/// How much the kernel reads ahead.
const READ_AHEAD: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background.
const BACKGROUND: u16 = 512;

/// Without these the promises cannot be kept.
const NEEDED: InitFlags = InitFlags::FUSE_HANDLE_KILLPRIV_V2
    .union(InitFlags::FUSE_DONT_MASK)
    .union(InitFlags::FUSE_POSIX_ACL)
    .union(InitFlags::FUSE_EXPORT_SUPPORT)
    .union(InitFlags::FUSE_HAS_RESEND);

/// These make it faster, or add what a local file system has.
const WANTED: [InitFlags; 10] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_PASSTHROUGH,
    InitFlags::FUSE_ALLOW_IDMAP,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// Asks for what is needed and wanted. Deliberately not: write-back cache (excludes passthrough), POSIX and flock locks (the kernel's own are
/// right for one writer and outlive the daemon), ATOMIC_O_TRUNC (the kernel asks for `O_RDONLY | O_TRUNC` before it looks whether the program is
/// running, and would refuse only when its file is already empty), SETXATTR_EXT, SECURITY_CTX and CREATE_SUPP_GROUP (whose requests fuser misreads).
pub fn negotiate(config: &mut KernelConfig) -> io::Result<()> {
    config.add_capabilities(NEEDED).map_err(|missing| {
        io::Error::new(io::ErrorKind::Unsupported, format!("this kernel's FUSE lacks {missing:?}"))
    })?;
    for flag in WANTED {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "not offered by this kernel");
        }
    }
    let out_of_range = |e| io::Error::other(format!("a FUSE limit is out of range: {e}"));
    config.set_max_write(WRITE_MAX).map_err(out_of_range)?;
    // The nearest that the kernel allows.
    if let Err(most) = config.set_max_readahead(READ_AHEAD) {
        config.set_max_readahead(most).map_err(out_of_range)?;
    }
    config.set_max_background(BACKGROUND).map_err(|e| out_of_range(u32::from(e)))?;
    if config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH) {
        config.set_max_stack_depth(1).map_err(out_of_range)?;
    }
    Ok(())
}
