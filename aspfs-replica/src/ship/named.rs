//! Payloads that the replica has already, as objects: their names travel, the bytes do not.
//!
//! Only what is an object here is asked for, so that a transaction of new bytes waits for no answer.
//!
//! Invariants: one question at a time; an answer holds for the transaction that was asked for, as the replica keeps the objects until it has taken that.

use std::collections::BTreeMap;

use vefs::ids::Hash;

use crate::wire::{HAVE_MAX, Message};

/// What the replica said of the objects of the transaction being shipped.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// Of each record's payload: the object here that is the same.
    objects: Vec<Option<Hash>>,
    held: BTreeMap<Hash, bool>,
    asked: Vec<Hash>,
}

impl Named {
    /// Of the next transaction.
    pub fn new(objects: Vec<Option<Hash>>) -> Named {
        Named { objects, ..Named::default() }
    }

    /// What must be asked before the transaction can go.
    pub fn question(&mut self) -> Option<Message> {
        let unknown = self.objects.iter().flatten().filter(|hash| !self.held.contains_key(hash));
        let mut unknown: Vec<Hash> = unknown.copied().collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown.truncate(HAVE_MAX);
        self.asked.clone_from(&unknown);
        (!unknown.is_empty()).then_some(Message::Have(unknown))
    }

    /// Whether an answer is waited for.
    pub fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Takes the answer; false when it answers nothing that was asked.
    pub fn answered(&mut self, held: &[bool]) -> bool {
        let fits = self.is_asking() && held.len() == self.asked.len();
        if fits {
            self.held.extend(std::mem::take(&mut self.asked).into_iter().zip(held.iter().copied()));
        }
        fits
    }

    /// The object that goes in place of a record's payload.
    pub fn instead(&self, record: usize) -> Option<Hash> {
        let hash = self.objects.get(record).copied().flatten()?;
        self.held.get(&hash).copied().unwrap_or(false).then_some(hash)
    }
}
