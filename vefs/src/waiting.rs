//! Telling that a thread is about to wait for a disk, to whoever wants to know: threads that serve requests let another one serve meanwhile.
//!
//! Invariant: a thread that told nobody to listen pays a look at a thread-local variable, and nothing else.

use std::cell::RefCell;
use std::rc::Rc;

/// Who is told.
pub(crate) trait Waits {
    /// The thread is going to wait.
    fn begins(&self);
    /// It goes on.
    fn ends(&self);
}

thread_local! {
    static TOLD: RefCell<Option<Rc<dyn Waits>>> = const { RefCell::new(None) };
}

/// From now on `who` is told of this thread's waits. It is dropped when the thread ends.
pub(crate) fn tell(who: Rc<dyn Waits>) {
    TOLD.with(|told| *told.borrow_mut() = Some(who));
}

/// Whether anybody is told.
pub(crate) fn is_told() -> bool {
    TOLD.try_with(|told| told.borrow().is_some()).unwrap_or(false)
}

/// Does what may take as long as a disk takes. Of a wait within a wait nobody is told.
pub(crate) fn wait<T>(work: impl FnOnce() -> T) -> T {
    let told = TOLD.try_with(|told| told.borrow_mut().take()).ok().flatten();
    let _waits = told.map(|who| {
        who.begins();
        Ends(who)
    });
    work()
}

struct Ends(Rc<dyn Waits>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.ends();
        // Not there any more: the thread is ending.
        let _ = TOLD.try_with(|told| *told.borrow_mut() = Some(self.0.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI32, Ordering};

    struct Counts(Arc<[AtomicI32; 2]>);

    impl Waits for Counts {
        fn begins(&self) {
            self.0[0].fetch_add(1, Ordering::SeqCst);
        }
        fn ends(&self) {
            self.0[0].fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Drop for Counts {
        fn drop(&mut self) {
            self.0[1].fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wait_is_told_also_when_it_ends_in_a_panic_and_so_is_the_end_of_the_thread() {
        let counts: Arc<[AtomicI32; 2]> = Arc::default();
        let shared = counts.clone();
        let thread = std::thread::spawn(move || {
            assert_eq!(wait(|| 7), 7);
            tell(Rc::new(Counts(shared.clone())));
            assert_eq!(wait(|| wait(|| shared[0].load(Ordering::SeqCst))), 1);
            assert_eq!(shared[0].load(Ordering::SeqCst), 0);
            let died = std::panic::catch_unwind(|| wait(|| panic!("of a disk")));
            assert!(died.is_err() && is_told());
            assert_eq!((shared[0].load(Ordering::SeqCst), shared[1].load(Ordering::SeqCst)), (0, 0));
        });
        assert!(thread.join().is_ok());
        assert_eq!(counts[1].load(Ordering::SeqCst), 1);
    }
}
