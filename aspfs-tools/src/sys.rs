//! The C library's allocator: the one thing that has no safe interface.

#![allow(unsafe_code, reason = "mallopt(3) has no safe wrapper")]

/// From this size on, memory is mapped on its own and given back when it is freed.
const MAPPED_FROM: libc::c_int = 1 << 20;

/// Fixes the size from which the allocator maps memory on its own; call it before there are threads.
///
/// Each session thread of a mount has a buffer of 16 MiB, zeroed, of which it touches what requests need. Mapped on its own, it
/// costs that. From a heap it is written to in full, and glibc moves its threshold up to 32 MiB when such a block is freed: an idle mount
/// took 20 MiB with mimalloc, 11 MiB with glibc's defaults, and takes 80 KiB with this.
pub fn map_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and changes the allocator's parameters under its own lock.
    let done = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
    #[cfg(target_env = "gnu")]
    if done != 1 {
        tracing::warn!("large buffers are taken from the heap: mounts will cost more memory");
    }
}
