//! The last answers given: what the kernel may ask for again after the daemon was replaced (promise G7).
//!
//! The kernel has a bounded number of requests under way, so a bounded number of answers is enough. They are in the journal's
//! envelopes; publishing stores those that a replay would no longer see.

use std::collections::VecDeque;

use super::envelope::Memo;

/// Answers kept: twice what the kernel can have under way (`max_background` 512).
const KEEP: usize = 1024;

/// The last answers, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(VecDeque<(u64, Memo)>);

impl Recent {
    /// Takes an answer; the oldest goes when there are too many.
    pub fn push(&mut self, unique: u64, memo: Memo) {
        if self.0.len() >= KEEP {
            self.0.pop_front();
        }
        self.0.push_back((unique, memo));
    }

    /// The answer to a request.
    pub fn get(&self, unique: u64) -> Option<&Memo> {
        self.0.iter().rev().find(|(u, _)| *u == unique).map(|(_, m)| m)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// All of them, for storing.
    pub fn to_row(&self) -> Vec<(u64, Memo)> {
        self.0.iter().cloned().collect()
    }

    /// As stored; a row that is too long counts with its newest.
    pub fn from_row(row: Vec<(u64, Memo)>) -> Recent {
        let mut recent = Recent::default();
        row.into_iter().for_each(|(u, m)| recent.push(u, m));
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes() {
        let mut r = Recent::default();
        (1..=KEEP as u64 + 1).for_each(|n| r.push(n, Memo::Written(n)));
        assert_eq!(r.get(1), None);
        assert_eq!(r.get(2), Some(&Memo::Written(2)));
        assert_eq!(Recent::from_row(r.to_row()).get(KEEP as u64 + 1), Some(&Memo::Written(KEEP as u64 + 1)));
    }
}
