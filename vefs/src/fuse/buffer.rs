//! What a large request leaves in the buffer that its thread reads requests into.
//!
//! The library's buffer has room for the largest request and is kept for the next one. The pages that one write of 1 MiB touched would stay with
//! a thread for ever, with two threads for each of a thousand mounts; given back after each, they would have to be cleared again for the
//! next. So a thread keeps them while large requests follow each other, and gives them back when none has come for a while: it
//! waits for the next request here, with a limit, and not in read(2).
//!
//! Invariant: pages are given back by the thread that reads into them, behind the answer to its request. Nobody reads the buffer again before the
//! kernel has written there.

#![allow(unsafe_code, reason = "madvise(2) has no safe wrapper")]

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{Advice, madvise};

/// Bytes of a request up to which its pages are kept.
pub const KEEP: usize = 64 << 10;
/// Requests that are not large after which the pages go.
const SMALL: u32 = 64;
/// How long a thread waits for the next request before they go.
pub const QUIET: Duration = Duration::from_millis(100);
/// At least the size of a page, whose multiples are multiples of pages: 64 KiB is the largest that Linux has.
const PAGE: usize = 64 << 10;

/// Whole pages of a buffer behind what a small request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spent {
    start: usize,
    len: usize,
    /// Requests since.
    small: u32,
}

thread_local! {
    static SPENT: Cell<Option<Spent>> = const { Cell::new(None) };
}

/// The whole pages of a request's bytes behind the first [`KEEP`].
fn behind(bytes: &[u8]) -> Option<Spent> {
    let start = (bytes.as_ptr() as usize + KEEP).next_multiple_of(PAGE);
    let end = (bytes.as_ptr() as usize + bytes.len()) & !(PAGE - 1);
    (start < end).then(|| Spent { start, len: end - start, small: 0 })
}

/// Bytes of a request that this thread has read. They must lie in a buffer that lives as long as the thread, in anonymous private memory.
pub fn read(bytes: &[u8]) {
    if bytes.len() <= KEEP {
        return;
    }
    let Some(new) = behind(bytes) else { return };
    // The same buffer each time: what a larger request touched before is still there.
    let len = SPENT.get().filter(|old| old.start == new.start).map_or(new.len, |old| old.len.max(new.len));
    SPENT.set(Some(Spent { len, ..new }));
}

/// Whether this thread has pages to give back.
pub fn is_large() -> bool {
    SPENT.get().is_some()
}

/// Gives them back. Only behind the answer to the last request.
pub fn give_back() {
    if let Some(spent) = SPENT.take() {
        discard(spent);
    }
}

/// The thread has answered its request and is about to read the next one from `device`.
pub fn answered(device: Option<BorrowedFd<'_>>) {
    let Some(mut spent) = SPENT.get() else { return };
    spent.small += 1;
    if spent.small > SMALL || device.is_some_and(is_quiet) {
        return give_back();
    }
    SPENT.set(Some(spent));
}

/// Waits for a request; true when none came. Of a device that is gone, or cannot be asked, reading tells.
fn is_quiet(device: BorrowedFd<'_>) -> bool {
    let limit = Timespec { tv_sec: 0, tv_nsec: QUIET.subsec_nanos().into() };
    let mut ready = [PollFd::from_borrowed_fd(device, PollFlags::IN)];
    poll(&mut ready, Some(&limit)) == Ok(0)
}

fn discard(spent: Spent) {
    let start = std::ptr::without_provenance_mut::<std::ffi::c_void>(spent.start);
    // SAFETY: whole pages of the buffer that this thread reads requests into, which it has till its end. The request that lay there is answered,
    // nobody reads its bytes any more, and the next ones are put there by the kernel; to it, zeros are as good as what was there.
    let done = unsafe { madvise(start, spent.len, Advice::LinuxDontNeed) };
    if let Err(e) = done {
        tracing::debug!(error = %e, "a buffer's pages are kept");
    }
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;
