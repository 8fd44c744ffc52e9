//! How many of something that takes much memory or reading may go on at once: the next one is told that it has to wait, and for what.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::refuse::{Answer, refusal};
use crate::control::message::Why;

/// Some of one kind.
pub struct Turns {
    now: AtomicUsize,
    most: usize,
    /// Of which kind, for people.
    what: &'static str,
}

/// One of them, until it is dropped.
pub struct Turn<'a>(&'a AtomicUsize);

impl Turns {
    /// At most so many.
    pub const fn new(most: usize, what: &'static str) -> Turns {
        Turns { now: AtomicUsize::new(0), most, what }
    }

    /// Begins one; refused while as many go on as may.
    pub fn take(&self) -> Answer<Turn<'_>> {
        let more = |now| (now < self.most).then_some(now + 1);
        match self.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Turn(&self.now)),
            Err(now) => {
                let text = format!("{now} {} are under way: wait until one of them ended", self.what);
                Err(refusal(Why::Busy, text))
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_some_go_on_at_once() {
        let turns = Turns::new(4, "comparisons");
        let mut taken: Vec<_> = (0..4).map(|_| turns.take().unwrap()).collect();
        let refused = turns.take().err().unwrap();
        assert_eq!(refused.kind, Why::Busy);
        assert!(refused.message.contains("4 comparisons"), "{refused}");
        taken.pop();
        assert!(turns.take().is_ok());
    }
}
