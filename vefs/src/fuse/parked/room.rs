//! How many bytes of requests may be parked: of one mount, and of all mounts of a process, of which each may always have a small share. So one
//! stalled VE cannot take another one's room, and a thousand of them have a bound (promise G33).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a request counts for besides the bytes that it carries.
pub(super) const REQUEST: u64 = 512;
/// Bytes of one mount.
pub(super) const MOUNT: u64 = 64 << 20;
/// Bytes of all mounts, but for their shares.
const ALL: u64 = 256 << 20;
/// Bytes that a mount may have in any case: one large write and some small requests.
const SHARE: u64 = (1 << 20) + (64 << 10);

/// What one mount has.
#[derive(Default)]
pub(super) struct Room {
    all: Arc<AtomicU64>,
    mine: u64,
}

impl Room {
    /// Of a mount with nothing parked.
    pub fn new(all: Arc<AtomicU64>) -> Room {
        Room { all, mine: 0 }
    }

    /// Whether so many bytes more may be parked. What is larger than everything is alone.
    pub fn fits(&self, bytes: u64) -> bool {
        let mine = self.mine.saturating_add(bytes);
        self.mine == 0
            || mine <= SHARE
            || (mine <= MOUNT && self.all.load(Ordering::Relaxed).saturating_add(bytes) <= ALL)
    }

    /// They are. Several mounts at a time may go over the common bound by a request each.
    pub fn take(&mut self, bytes: u64) {
        self.mine += bytes;
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are no longer.
    pub fn give_back(&mut self, bytes: u64) {
        self.mine -= bytes;
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What is parked.
    #[cfg(test)]
    pub fn taken(&self) -> u64 {
        self.mine
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.fetch_sub(self.mine, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// checks G33
    #[test]
    fn every_mount_has_its_share_and_none_has_more_than_there_is() {
        let all = Arc::<AtomicU64>::default();
        let mut rooms: Vec<Room> = (0..10).map(|_| Room::new(all.clone())).collect();
        let write = 1 << 20;
        for room in &mut rooms {
            while room.fits(write) {
                room.take(write);
            }
        }
        let taken: Vec<u64> = rooms.iter().map(|r| r.taken() / write).collect();
        assert_eq!(taken, [64, 64, 64, 64, 1, 1, 1, 1, 1, 1]);
        assert!(rooms[9].fits(REQUEST) && !rooms[0].fits(REQUEST));
        // What one gives back another one may have.
        rooms[0].give_back(20 * write);
        assert!(rooms[9].fits(write));
        rooms.remove(1);
        assert!(rooms[8].fits(40 * write));
        // Alone in its mount.
        assert!(Room::new(all.clone()).fits(u64::MAX));
        drop(rooms);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
