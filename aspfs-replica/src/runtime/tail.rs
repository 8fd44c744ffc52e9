//! What the writer of a VE tells the stream of one replica, without waiting for it.
//!
//! Bulk is offered in the middle of a write, with the VE locked, and to wake a thread there costs the program more than the offer (an idle processor
//! is started for it). So only the first of a series wakes the stream, which then looks again every [`PERIOD`] until it finds nothing; one that brings
//! the bytes that wait to [`SOON`] wakes it all the same, so that a fast writer is followed at once.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use vefs::ids::PayloadId;

/// Most bulk payloads that wait to be offered ahead of their records.
const EARLY_MAX: usize = 256;
/// How often a stream looks for more while there is some: what comes in between travels together. A quarter of a tick, at whose end a record needs it.
pub const PERIOD: Duration = Duration::from_millis(50);
/// So many bytes are not left to wait.
const SOON: u64 = 512 << 10;

/// What a stream may have of its link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes a second; 0: no limit.
    pub bandwidth: u64,
    /// Its VE's priority.
    pub weight: u8,
}

/// What one replica's stream is told.
#[derive(Default)]
pub struct Tail {
    early: Mutex<Early>,
    share: Mutex<Share>,
    wake: Notify,
}

#[derive(Default)]
struct Early {
    list: Vec<(PayloadId, u64)>,
    bytes: u64,
    /// The stream looks for more by itself.
    looks: bool,
    /// Something was offered in this period, whether it was taken already or not.
    any: bool,
}

impl Tail {
    /// What it may have of the link now.
    pub fn share(&self) -> Share {
        *self.share.lock()
    }

    /// That is what it may have from now on.
    pub(super) fn set_share(&self, share: Share) {
        if std::mem::replace(&mut *self.share.lock(), share) != share {
            self.wake();
        }
    }

    /// Bulk of so many bytes was written. Those above the most that wait go with their records.
    pub(super) fn offer(&self, id: PayloadId, len: u64) {
        let mut early = self.early.lock();
        if early.list.len() == EARLY_MAX {
            return;
        }
        early.list.push((id, len));
        early.any = true;
        let before = early.bytes;
        early.bytes = before.saturating_add(len);
        let wake = !std::mem::replace(&mut early.looks, true) || (before < SOON && early.bytes >= SOON);
        drop(early);
        if wake {
            self.wake();
        }
    }

    /// Bulk payloads that were written since this was asked last.
    pub fn take_early(&self) -> Vec<(PayloadId, u64)> {
        let mut early = self.early.lock();
        early.bytes = 0;
        std::mem::take(&mut early.list)
    }

    /// Whether the stream has to look again in a [`PERIOD`], since others rely on that.
    pub fn looks(&self) -> bool {
        self.early.lock().looks
    }

    /// A [`PERIOD`] is over. With nothing offered meanwhile the next offer wakes the stream.
    pub fn looked(&self) {
        let mut early = self.early.lock();
        early.looks = std::mem::take(&mut early.any);
    }

    /// Until there may be something to send.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// There may be something to send.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use vefs::ids::TxnNo;

    use super::*;

    /// Whether the stream was woken since this was asked last.
    fn woken(tail: &Tail) -> bool {
        use std::task::{Context, Poll, Waker};
        let mut changed = std::pin::pin!(tail.changed());
        changed.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    fn offer(tail: &Tail, offset: u64, len: u64) {
        tail.offer(PayloadId { txn: TxnNo(1), offset }, len);
    }

    #[test]
    fn only_the_first_of_a_series_wakes_the_stream() {
        let tail = Tail::default();
        assert!(!woken(&tail) && !tail.looks());
        offer(&tail, 0, 50_000);
        assert!(woken(&tail) && tail.looks());
        assert_eq!(tail.take_early().len(), 1);
        for n in 1..5 {
            offer(&tail, n, 50_000);
            assert!(!woken(&tail));
        }
        // It took what was there in between, for another reason, and goes on to look.
        assert_eq!(tail.take_early().len(), 4);
        tail.looked();
        assert!(tail.looks());
        offer(&tail, 5, 50_000);
        assert!(!woken(&tail));
        tail.looked();
        assert!(tail.looks());
        assert_eq!(tail.take_early().len(), 1);
        // A period without any: the series is over.
        tail.looked();
        assert!(!tail.looks());
        offer(&tail, 9, 1);
        assert!(woken(&tail) && tail.looks());
    }

    #[test]
    fn many_bytes_wake_it_once() {
        let tail = Tail::default();
        offer(&tail, 0, 1);
        assert!(woken(&tail));
        offer(&tail, 1, SOON - 2);
        assert!(!woken(&tail));
        offer(&tail, 2, 1);
        assert!(woken(&tail));
        offer(&tail, 3, SOON);
        assert!(!woken(&tail));
        assert_eq!(tail.take_early().len(), 4);
        offer(&tail, 4, u64::MAX);
        assert!(woken(&tail));
    }

    #[test]
    fn what_is_too_much_is_left_to_the_records() {
        let tail = Tail::default();
        (0..=EARLY_MAX as u64).for_each(|n| offer(&tail, n, 1));
        let taken = tail.take_early();
        assert_eq!(taken.len(), EARLY_MAX);
        assert_eq!(taken.last().map(|(id, _)| id.offset), Some(EARLY_MAX as u64 - 1));
    }
}
