//! What came before the chunks that it waits for: bulk has its own stream, and may be behind.

use std::collections::VecDeque;

use vefs::ids::Epoch;

use super::{STAGED_BYTES_MAX, STAGED_COUNT_MAX, TXN_BYTES_MAX};
use crate::wire::{AHEAD_MAX, CHUNK_MIN, Message, Refusal};

/// Most bytes that are parked: what a primary may have under way when a transaction begins, and that transaction.
const PARKED_MAX: u64 = AHEAD_MAX + TXN_BYTES_MAX;

/// Most frames of bulk that can be missing: all that may be put aside, in pieces of the smallest size, and as many pings as there may be payloads.
const MISSING_MAX: u64 = STAGED_BYTES_MAX / CHUNK_MIN as u64 + 2 * STAGED_COUNT_MAX as u64;

/// Messages of a session in their order, with the epochs of their frames.
#[derive(Clone, Debug, Default)]
pub(super) struct Parked {
    messages: VecDeque<(Epoch, Message)>,
    bytes: u64,
}

impl Parked {
    /// Puts a message behind the others. So many frames of bulk have come: one that waits for more than can be missing would wait for ever.
    pub fn push(&mut self, epoch: Epoch, message: Message, bulk: u64) -> Result<(), Refusal> {
        if matches!(&message, Message::Begin(b) if b.bulk > bulk + MISSING_MAX) {
            return Err(Refusal::OutOfTurn);
        }
        self.bytes += message.weight();
        self.messages.push_back((epoch, message));
        if self.bytes > PARKED_MAX { Err(Refusal::TooLarge) } else { Ok(()) }
    }

    /// The next message, unless it begins a transaction and fewer frames of bulk have come than that waits for.
    pub fn next(&mut self, bulk: u64) -> Option<(Epoch, Message)> {
        let waits = |(_, m): &mut (Epoch, Message)| matches!(m, Message::Begin(b) if b.bulk > bulk);
        let next = self.messages.pop_front_if(|m| !waits(m))?;
        self.bytes -= next.1.weight();
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use vefs::ids::Position;

    use super::*;
    use crate::wire::{Begin, WireRecord};

    /// Only the bytes that records carry were counted: those of a byte each took a hundred times as much memory as they were let have (checks G29).
    #[test]
    fn small_records_count_what_they_take() {
        let record = WireRecord { body: vec![1], payload: None };
        let small = Message::Records(vec![record; 1000]);
        let takes = 1000 * size_of::<WireRecord>() as u64;
        let mut parked = Parked { bytes: PARKED_MAX - takes, ..Parked::default() };
        assert_eq!(parked.push(Epoch(1), small.clone(), 0), Err(Refusal::TooLarge));
        let mut parked = Parked { bytes: PARKED_MAX - 2 * takes, ..Parked::default() };
        assert_eq!(parked.push(Epoch(1), small.clone(), 0), Ok(()));
        assert_eq!(parked.next(0), Some((Epoch(1), small)));
        assert_eq!(parked.bytes, PARKED_MAX - 2 * takes, "what has gone counts no more");
    }

    /// A transaction that waited for more bulk than there can be was parked, with everything behind it, until nothing more was let wait (checks G29).
    #[test]
    fn what_would_wait_for_ever_is_refused() {
        let begin = |bulk| {
            let previous = vefs::ids::Hash::default();
            Message::Begin(Begin { position: Position::default(), previous, records: 1, bulk })
        };
        let mut parked = Parked::default();
        assert_eq!(parked.push(Epoch(1), begin(1000 + MISSING_MAX), 1000), Ok(()));
        assert_eq!(parked.push(Epoch(1), begin(1001 + MISSING_MAX), 1000), Err(Refusal::OutOfTurn));
        assert_eq!(parked.push(Epoch(1), begin(u64::MAX), 1000), Err(Refusal::OutOfTurn));
    }
}
