//! The lock for what many threads want for microseconds: a VE's state, a mount's nodes.
//!
//! It is the standard library's, which spins for a moment and then sleeps in the kernel. `parking_lot`'s calls sched_yield(2) before it
//! sleeps: on a machine with more to run than processors, that hands the processor to others for milliseconds, each time.
//! As there, a panic of whoever holds the lock does not lock everybody else out.

use std::sync::{MutexGuard, PoisonError, TryLockError};

/// A mutual exclusion.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// With nobody in it.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }

    /// Waits until nobody else is in it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters it if nobody is in it now.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_locks_nobody_out() {
        let lock = Mutex::new(1);
        std::thread::scope(|s| {
            let panics = s.spawn(|| {
                let mut held = lock.lock();
                assert!(lock.try_lock().is_none());
                *held = 2;
                panic!("with the lock held");
            });
            assert!(panics.join().is_err());
        });
        assert_eq!(*lock.lock(), 2);
        assert_eq!(lock.try_lock().as_deref(), Some(&2));
    }
}
