//! The C library's allocator: the one thing that has no safe interface.

#![allow(unsafe_code, reason = "mallopt(3) and malloc_trim(3) have no safe wrappers")]

/// From this size on, memory is mapped on its own and given back when it is freed: more than the largest write has, less than a session's
/// buffer.
const MAPPED_FROM: libc::c_int = 4 << 20;
/// So much free memory at the end of a heap is kept for the next write: giving it back and faulting it in again costs as much as copying it.
const KEPT_FREE: libc::c_int = 4 << 20;
/// Heaps, of which each may keep that much.
const HEAPS: libc::c_int = 4;

/// Fixes how the allocator treats large blocks; call it before there are threads.
///
/// Each session thread of a mount has a buffer of 16 MiB, zeroed, of which it touches what requests need. Mapped on its own, it
/// costs that. From a heap it is written to in full, and glibc moves its threshold up to 32 MiB when such a block is freed: an idle mount
/// took 20 MiB with mimalloc, 11 MiB with glibc's defaults, and takes 80 KiB with this.
#[cfg(target_env = "gnu")]
pub fn tune_allocator() {
    for (what, value) in
        [(libc::M_MMAP_THRESHOLD, MAPPED_FROM), (libc::M_TRIM_THRESHOLD, KEPT_FREE), (libc::M_ARENA_MAX, HEAPS)]
    {
        // SAFETY: mallopt takes two integers and changes the allocator's parameters under its own lock.
        if unsafe { libc::mallopt(what, value) } != 1 {
            tracing::warn!(what, "the allocator keeps its defaults: mounts will cost more memory");
        }
    }
}

/// Gives free memory in the middle of heaps to the system. It holds each heap's lock for as long as it looks through its free memory, so it is for after much was freed.
#[cfg(target_env = "gnu")]
pub fn give_memory_back() {
    // SAFETY: malloc_trim takes a number of bytes to keep at the end, and works under the allocator's locks.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_memory_back() {}

/// Other C libraries have no such parameters.
#[cfg(not(target_env = "gnu"))]
pub fn tune_allocator() {}
