//! Frames between a primary and a replica: samples of each message, and what hostile bytes are run through (promise G29).

use aspfs_replica::node::NodeId;
use aspfs_replica::wire::{
    self, Begin, Chunk, Envelope, Hello, Message, Refusal, Welcome, WireError, WirePayload, WireRecord,
};
use vefs::content::InBody;
use vefs::ids::{Epoch, Hash, Lineage, PayloadId, Position, TxnNo, VeId};

use crate::golden::Entries;

/// What every sample's frame says beside its message.
pub fn envelope() -> Envelope {
    Envelope { ve: Some(VeId(0x2a)), epoch: Epoch(7), session: 0x0102_0304_0506_0708, seq: 300 }
}

/// One of each message.
pub fn messages() -> Vec<(&'static str, Message)> {
    let node = NodeId(std::array::from_fn(|i| i as u8));
    let position = Position { lineage: Lineage([0x11; 16]), epoch: Epoch(7), txn: TxnNo(300), chain: Hash([0x22; 32]) };
    let id = PayloadId { txn: TxnNo(300), offset: 65_536 };
    let records = vec![
        WireRecord { body: b"body".to_vec(), payload: None },
        WireRecord { body: b"inline".to_vec(), payload: Some(WirePayload::Inline(b"payload".to_vec())) },
        WireRecord { body: b"staged".to_vec(), payload: Some(WirePayload::Staged(id, 70_000)) },
        WireRecord { body: b"held".to_vec(), payload: Some(WirePayload::Held(Hash([0x55; 32]), 20_000)) },
        WireRecord { body: b"cancelled".to_vec(), payload: Some(WirePayload::Cancelled(30_000)) },
    ];
    vec![
        ("hello", Message::Hello(Hello { node, position, base: Hash([0x33; 32]) })),
        ("welcome", Message::Welcome(Welcome { node, position, staged: vec![(id, 70_000)] })),
        ("begin", Message::Begin(Begin { position, previous: Hash([0x44; 32]), records: 3, bulk: 2 })),
        ("records", Message::Records(records)),
        ("end", Message::End(b"seal".to_vec())),
        (
            "chunk",
            Message::Chunk(Chunk {
                id,
                total: 70_000,
                offset: 65_536,
                within: Some(InBody { body: 9, offset: 1 << 20 }),
                bytes: b"bytes".to_vec(),
            }),
        ),
        ("ack", Message::Ack(position)),
        ("epoch-notice", Message::EpochNotice(Epoch(8))),
        ("refused", Message::Refused(Refusal::NotNext, TxnNo(300))),
        ("ping", Message::Ping(1 << 40)),
        ("pong", Message::Pong(1 << 40)),
        ("have", Message::Have(vec![(Hash([0x55; 32]), 20_000), (Hash([0x66; 32]), 1)])),
        ("held", Message::Held(vec![true, false])),
        ("bulk-ping", Message::BulkPing),
    ]
}

/// The samples as bytes. Compressed frames are not among them: what a compressor writes is not fixed, only what is read from it.
pub fn encoded() -> Entries {
    messages().into_iter().map(|(name, m)| (name.to_owned(), wire::encode(&m, envelope(), false))).collect()
}

/// Gives bytes to the decoder as a stream of frames, and once more as a body behind an honest header of each kind.
pub fn run(data: &[u8]) {
    let mut rest = data;
    while let Ok((envelope, message, used)) = wire::decode(rest) {
        assert_eq!(wire::decode(&wire::encode(&message, envelope, false)).ok().map(|d| d.1), Some(message));
        rest = &rest[used..];
    }
    for kind in 0..=15 {
        for zstd in [false, true] {
            let frame = wire::frame_of(kind, zstd, envelope(), data);
            if let Err(WireError::Short { .. }) = wire::decode(&frame) {
                panic!("a whole frame is not short");
            }
        }
    }
}
