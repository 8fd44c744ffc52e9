//! Payloads that the replica has already, of another VE, of this one or in a template: their hashes travel, the bytes do not.
//!
//! Only what this node has twice is asked for, so that a transaction of new bytes waits for no answer.
//!
//! Invariants: one question at a time; an answer holds for the transaction that was asked for, as the replica keeps the bytes until it has taken that.

use std::collections::BTreeMap;

use vefs::ids::Hash;

use crate::log::{LogTxn, Payload};
use crate::wire::{HAVE_MAX, Message};

/// What the replica said of the transaction being shipped.
#[derive(Clone, Debug, Default)]
pub(super) struct Alike {
    /// Of each record: hash and length of its payload, if it is worth a question.
    payloads: Vec<Option<(Hash, u64)>>,
    held: BTreeMap<Hash, bool>,
    asked: Vec<(Hash, u64)>,
}

impl Alike {
    /// Of a transaction, and of each of its records the hash of what this node has elsewhere too.
    pub fn new(txn: &LogTxn, hashes: Vec<Option<Hash>>) -> Alike {
        let len = |payload: &Option<Payload>| match payload {
            Some(Payload::Inline(bytes)) => Some(bytes.len() as u64),
            _ => None,
        };
        let payloads = txn.records.iter().zip(hashes).map(|(r, hash)| hash.zip(len(&r.payload))).collect();
        Alike { payloads, ..Alike::default() }
    }

    /// What must be asked before the transaction can go.
    pub fn question(&mut self) -> Option<Message> {
        let unknown = self.payloads.iter().flatten().filter(|(hash, _)| !self.held.contains_key(hash));
        let mut unknown: Vec<(Hash, u64)> = unknown.copied().collect();
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
            let asked = std::mem::take(&mut self.asked).into_iter().map(|(hash, _)| hash);
            self.held.extend(asked.zip(held.iter().copied()));
        }
        fits
    }

    /// What goes in place of a record's payload.
    pub fn instead(&self, record: usize) -> Option<Hash> {
        let (hash, _) = self.payloads.get(record).copied().flatten()?;
        self.held.get(&hash).copied().unwrap_or(false).then_some(hash)
    }
}
