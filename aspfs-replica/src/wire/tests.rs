//! Every message there and back, and bytes that are none.

use proptest::prelude::*;
use vefs::content::InBody;
use vefs::ids::{Epoch, Hash, Lineage, PayloadId, Position, TxnNo, VeId};
use vefs::limits;

use super::*;
use crate::node::NodeId;

fn envelope() -> Envelope {
    Envelope { ve: Some(VeId(7)), epoch: Epoch(3), session: 11, seq: 5 }
}

fn all() -> Vec<Message> {
    let position = Position { lineage: Lineage([4; 16]), epoch: Epoch(3), txn: TxnNo(9), chain: Hash([5; 32]) };
    let id = PayloadId { txn: TxnNo(10), offset: 65_536 };
    let node = NodeId([1; 16]);
    let inline = WireRecord { body: vec![1, 2], payload: Some(WirePayload::Inline(vec![3; 2000])) };
    let staged = WireRecord { body: vec![1, 3], payload: Some(WirePayload::Staged(id, 70_000)) };
    vec![
        Message::Hello(Hello { node, position, base: Hash([6; 32]) }),
        Message::Welcome(Welcome { node, position, staged: vec![(id, 70_000)] }),
        Message::Begin(Begin { position, previous: Hash([8; 32]), records: 2, bulk: 1 << 40 }),
        Message::Records(vec![inline, staged]),
        Message::End(vec![1, 2, 3]),
        Message::Chunk(Chunk {
            id,
            total: 70_000,
            offset: 69_000,
            within: Some(InBody { body: 1 << 63 | 7, offset: 1 << 30 }),
            bytes: vec![9; 1000],
        }),
        Message::Ack(position),
        Message::EpochNotice(Epoch(4)),
        Message::Refused(Refusal::NotNext, TxnNo(9)),
        Message::Ping(77),
        Message::Pong(77),
        Message::Have(vec![(Hash([7; 32]), 9000)]),
        Message::Held(vec![true]),
        Message::BulkPing,
    ]
}

#[test]
fn there_and_back() {
    for message in all() {
        for compress in [false, true] {
            let bytes = encode(&message, envelope(), compress);
            let (e, m, used) = decode(&bytes).unwrap();
            assert_eq!((e, &m, used), (envelope(), &message, bytes.len()));
            assert_eq!(decode(&[&bytes[..], b"next"].concat()).unwrap().2, bytes.len());
        }
    }
    let chunk = &all()[5];
    assert!(encode(chunk, envelope(), true).len() < encode(chunk, envelope(), false).len() / 4, "it pays");
}

/// Every flipped bit is noticed, and whatever is cut off is short (checks G24, G29).
#[test]
fn damage_is_noticed() {
    for message in all() {
        let bytes = encode(&message, envelope(), true);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "{message:?} bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..len]), Err(WireError::Short { .. })), "{message:?} cut at {len}");
        }
    }
}

fn resealed(mut bytes: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut bytes);
    bytes[8..12].fill(0);
    let crc = crc32fast::hash(&bytes[..HEADER_LEN]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Honest headers of other programs and hostile ones are refused by name (checks G28, G29).
#[test]
fn what_is_not_known_is_named() {
    let ping = || encode(&Message::Ping(1), envelope(), false);
    assert!(matches!(decode(&resealed(ping(), |b| b[4] = 2)), Err(WireError::Format { found: 2 })));
    assert!(matches!(decode(&resealed(ping(), |b| b[6] = 99)), Err(WireError::Kind(99))));
    assert!(matches!(decode(&resealed(ping(), |b| b[7] = 2)), Err(WireError::Field("flags"))));
    let long = resealed(ping(), |b| b[16..20].fill(0xff));
    assert!(matches!(header(&long), Err(WireError::Long { kind: 10, .. })));
}

fn body_of(kind: u8, zstd: bool, body: &[u8]) -> Result<Message, WireError> {
    decode(&frame::write(kind, zstd, envelope(), body)).map(|(_, m, _)| m)
}

/// A body that says it grows to more than its kind may have is refused before it is decompressed (checks G29).
#[test]
fn compression_is_bounded() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let says = |len: u32| [&len.to_le_bytes()[..], &bomb].concat();
    assert!(matches!(body_of(6, true, &says(64 << 20)), Err(WireError::Field("length before compression"))));
    assert!(matches!(body_of(6, true, &says(1000)), Err(WireError::Zstd)));
    assert!(matches!(body_of(6, true, &[1, 2]), Err(WireError::Zstd)));
}

/// A frame that said an epoch above 2^62 had it written down in the VE's role, which could not be read any more: the VE did not open again. And a refusal at the
/// highest transaction that there can be ended the primary's stream by an overflow, for good (checks G29).
#[test]
fn counters_above_their_limit_are_refused() {
    for epoch in [limits::COUNTER_MAX + 1, u64::MAX] {
        let bytes = encode(&Message::Ping(1), Envelope { epoch: Epoch(epoch), ..envelope() }, false);
        assert!(matches!(header(&bytes), Err(WireError::Field("epoch"))), "{epoch}");
    }
    let highest = Envelope { epoch: Epoch(limits::COUNTER_MAX), ..envelope() };
    assert!(decode(&encode(&Message::Ping(1), highest, false)).is_ok());
    let (node, base, previous) = (NodeId([1; 16]), Hash([6; 32]), Hash([8; 32]));
    let at = |epoch, txn| Position { epoch: Epoch(epoch), txn: TxnNo(txn), ..Position::default() };
    let above = limits::COUNTER_MAX + 1;
    let staged = |txn, len| (PayloadId { txn: TxnNo(txn), offset: 0 }, len);
    let mut bad = vec![
        Message::EpochNotice(Epoch(above)),
        Message::Refused(Refusal::PayloadMissing, TxnNo(u64::MAX)),
        Message::Refused(Refusal::Corrupt, TxnNo(above)),
        Message::Welcome(Welcome { node, position: at(1, 1), staged: vec![staged(1, 5), staged(above, 5)] }),
        Message::Welcome(Welcome { node, position: at(1, 1), staged: vec![staged(1, 0)] }),
    ];
    for position in [at(above, 1), at(1, above), at(u64::MAX, u64::MAX)] {
        bad.push(Message::Hello(Hello { node, position, base }));
        bad.push(Message::Welcome(Welcome { node, position, staged: vec![] }));
        bad.push(Message::Begin(Begin { position, previous, records: 1, bulk: 0 }));
        bad.push(Message::Ack(position));
    }
    for message in bad {
        let result = decode(&encode(&message, envelope(), false));
        assert!(matches!(result, Err(WireError::Field(_))), "{message:?}: {result:?}");
    }
}

#[test]
fn fields_out_of_range_are_refused() {
    let position = Position { txn: TxnNo(1), ..Default::default() };
    let id = PayloadId { txn: TxnNo(1), offset: 0 };
    let chunk = |total, offset, len| Message::Chunk(Chunk { id, total, offset, within: None, bytes: vec![0; len] });
    let begin = |records, txn| {
        Message::Begin(Begin {
            position: Position { txn: TxnNo(txn), ..position },
            previous: Hash([0; 32]),
            records,
            bulk: 0,
        })
    };
    let one = |body: Vec<u8>, payload| Message::Records(vec![WireRecord { body, payload }]);
    for bad in [
        chunk(10, 5, 6),
        chunk(10, u64::MAX, 1),
        chunk(0, 0, 0),
        chunk(1 << 40, 0, 1),
        Message::Chunk(Chunk {
            id,
            total: 1,
            offset: 0,
            within: Some(InBody { body: 1, offset: u64::MAX }),
            bytes: vec![0],
        }),
        begin(0, 1),
        begin(100_001, 1),
        begin(1, 0),
        begin(1, u64::MAX),
        Message::Records(vec![]),
        one(vec![1], Some(WirePayload::Held(Hash([7; 32]), 0))),
        one(vec![1], Some(WirePayload::Held(Hash([7; 32]), limits::INLINE_TOTAL_MAX as u64 + 1))),
        Message::Have(vec![]),
        Message::Have(vec![(Hash([7; 32]), 1 << 40)]),
        Message::Have(vec![(Hash([7; 32]), 1); HAVE_MAX + 1]),
        Message::Held(vec![]),
        Message::Held(vec![true; HAVE_MAX + 1]),
        one(vec![], None),
        one(vec![1], Some(WirePayload::Inline(vec![]))),
        one(vec![1], Some(WirePayload::Staged(id, 0))),
        one(vec![1], Some(WirePayload::Staged(PayloadId { txn: TxnNo(u64::MAX), offset: 0 }, 5))),
    ] {
        let result = decode(&encode(&bad, envelope(), false));
        assert!(matches!(result, Err(WireError::Field(_))), "{bad:?}: {result:?}");
    }
    assert!(matches!(body_of(10, false, &[1, 7, 7]), Err(WireError::Codec(CodecError::Trailing(1)))));
    assert!(matches!(body_of(10, false, &[9, 7]), Err(WireError::Codec(CodecError::Format(9)))));
    assert!(matches!(body_of(10, false, &[]), Err(WireError::Codec(CodecError::Empty))));
}

proptest! {
    /// No bytes behind an honest header make a decoder panic, and what is accepted comes out again as it went in (checks G29).
    #[test]
    fn hostile_bodies(kind in 0..16u8, zstd: bool, body in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = body_of(kind, zstd, &body) {
            let again = encode(&message, envelope(), false);
            prop_assert_eq!(decode(&again).unwrap().1, message);
        }
    }
}
