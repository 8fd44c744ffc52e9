//! What came before the chunks that it waits for: bulk has its own stream, and may be behind.

use std::collections::VecDeque;

use vefs::ids::Epoch;

use super::TXN_BYTES_MAX;
use crate::wire::{AHEAD_MAX, Message, Refusal};

/// Most bytes that are parked: what a primary may have under way when a transaction begins, and that transaction.
const PARKED_MAX: u64 = AHEAD_MAX + TXN_BYTES_MAX;

/// Messages of a session in their order, with the epochs of their frames.
#[derive(Clone, Debug, Default)]
pub(super) struct Parked {
    messages: VecDeque<(Epoch, Message)>,
    bytes: u64,
}

impl Parked {
    /// Puts a message behind the others.
    pub fn push(&mut self, epoch: Epoch, message: Message) -> Result<(), Refusal> {
        self.bytes += message.cost();
        self.messages.push_back((epoch, message));
        if self.bytes > PARKED_MAX { Err(Refusal::TooLarge) } else { Ok(()) }
    }

    /// The next message, unless it begins a transaction and fewer frames of bulk have come than that waits for.
    pub fn next(&mut self, bulk: u64) -> Option<(Epoch, Message)> {
        let waits = |(_, m): &mut (Epoch, Message)| matches!(m, Message::Begin(b) if b.bulk > bulk);
        let next = self.messages.pop_front_if(|m| !waits(m))?;
        self.bytes -= next.1.cost();
        Some(next)
    }
}
