//! The allocator: the one thing that has no safe interface.

#![allow(unsafe_code, reason = "mallopt(3), malloc_trim(3), mlock(2) and GlobalAlloc have no safe wrappers")]

use std::alloc::{GlobalAlloc, Layout};

/// The size of a session thread's buffer, as the FUSE library asks for it: no other block has it.
const SESSION_BUFFER: usize = (16 << 20) + 4096;
/// How much of it requests fill: the largest write with its header, and the page that its beginning is aligned in.
const SESSION_USED: usize = vefs::fuse::WRITE_MAX as usize + 8192;

/// An allocator whose session buffers are in memory, as far as requests fill them, before the first request is read into them.
///
/// The kernel copies a request into the reader's pages. One that is not there is brought in first, and that fails when the process has been
/// killed meanwhile: the kernel then ends the request with EIO, where a daemon that dies must not be noticed (promise G7, fuse_copy_fill in
/// fs/fuse/dev.c).
pub struct Resident<A>(pub A);

// SAFETY: every call goes to the other allocator with the same arguments, and its answer comes back unchanged; locking pages in memory changes
// none of their bytes.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Resident<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        if layout.size() == SESSION_BUFFER && !block.is_null() {
            // SAFETY: the block is that long. Without the right to lock pages they are brought in all the same.
            unsafe {
                if libc::mlock(block.cast(), SESSION_USED) != 0 {
                    block.write_bytes(0, SESSION_USED);
                }
            }
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promised.
        unsafe { self.0.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { self.0.dealloc(block, layout) }
    }
}

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
