//! Blobs between nodes: samples of each, and what hostile bytes are run through (promise G29).

use aspfs_replica::blob::{self, Kind};
use aspfs_replica::catchup::{Answer, Ask, Page, Part as ObjectPart, Refused, Stretch};
use aspfs_replica::member::{No, Part, Question, Reply, Stamp, Standing};
use aspfs_replica::node::NodeId;
use vefs::clock::Timestamp;
use vefs::format::incoming::Manifest;
use vefs::ids::{Epoch, Hash, InodeNo, Lineage, PayloadId, Position, TxnNo, VeId};

use crate::golden::Entries;

const VE: VeId = VeId(0x2a);

fn position() -> Position {
    Position { lineage: Lineage([0x11; 16]), epoch: Epoch(7 << 32), txn: TxnNo(300), chain: Hash([0x22; 32]) }
}

/// One of each ask.
pub fn asks() -> Vec<(&'static str, Ask)> {
    let (ve, at, hash) = (VE, position(), Hash([0x33; 32]));
    let wanted = vec![(PayloadId { txn: TxnNo(9), offset: 65_536 }, 70_000)];
    let stretch = |upto: &[u8]| Stretch { upto: upto.to_vec(), digest: hash };
    let stretches = vec![stretch(b"\x02inode"), stretch(b"\x02inode678name")];
    vec![
        ("tree", Ask::Tree { hash, offset: 0 }),
        ("objects", Ask::Objects { wanted: vec![hash, Hash([0x34; 32])], offset: 1 << 33 }),
        ("snapshot", Ask::Snapshot { ve, lineage: at.lineage, have: at, epoch: Epoch(8 << 32) }),
        ("rows", Ask::Rows { ve, at, after: Some(b"\x02inode678name".to_vec()), upto: None, epoch: Epoch(8 << 32) }),
        ("rows-upto", Ask::Rows { ve, at, after: None, upto: Some(b"\x02inode".to_vec()), epoch: Epoch(8 << 32) }),
        ("compare", Ask::Compare { ve, at, after: Some(b"\x01".to_vec()), stretches, epoch: Epoch(8 << 32) }),
        ("payloads", Ask::Payloads { ve, at, wanted }),
        ("done", Ask::Done { ve, at }),
    ]
}

/// One of each answer.
pub fn answers() -> Vec<(&'static str, Answer)> {
    let manifest = Manifest {
        at: position(),
        time: Timestamp { secs: 1_700_000_000, nanos: 5 },
        base: Hash([0x44; 32]),
        root: Hash([0x55; 32]),
        bytes: 12_345,
        inodes: 67,
        next_ino: InodeNo(1 << 33),
    };
    let page = Page {
        rows: vec![(b"\x01a".to_vec(), b"value".to_vec()), (b"\x01b".to_vec(), b"other".to_vec())],
        payloads: vec![(PayloadId { txn: TxnNo(9), offset: 0 }, 70_000, Hash([0x66; 32]))],
        objects: vec![Hash([0x77; 32])],
        last: false,
    };
    let parts = vec![
        ObjectPart { total: 12, offset: 2, bytes: b"0123456789".to_vec() },
        ObjectPart { total: 0, offset: 0, bytes: vec![] },
        ObjectPart { total: 1 << 30, offset: 0, bytes: b"the beginning".to_vec() },
    ];
    vec![
        ("snapshot", Answer::Snapshot { manifest, epoch: Epoch(8 << 32) }),
        ("rows", Answer::Rows(page)),
        ("bytes", Answer::Bytes { total: 100, offset: 90, bytes: b"0123456789".to_vec() }),
        ("released", Answer::Released),
        ("working", Answer::Working),
        ("refused", Answer::Refused(Refused::Gone)),
        ("parts", Answer::Parts(parts)),
        ("same", Answer::Same(vec![true, false, true])),
    ]
}

/// One of each question.
pub fn questions() -> Vec<(&'static str, Question)> {
    vec![
        ("standing", Question::Standing { lineage: position().lineage }),
        ("at", Question::At(TxnNo(300))),
        ("join", Question::Join(Epoch(8 << 32))),
        ("lease", Question::Lease(Epoch(7 << 32), 10_000)),
        ("lagging", Question::Lagging(Epoch(7 << 32), true, Stamp { process: 0x99, number: 1 })),
        ("over", Question::Over(Epoch(7 << 32))),
        ("take", Question::Take(Epoch(8 << 32), position())),
        ("promoted", Question::Promoted(Epoch(8 << 32), position())),
    ]
}

/// One of each reply.
pub fn replies() -> Vec<(&'static str, Reply)> {
    let node = NodeId([0x88; 16]);
    let standing = Standing {
        part: Part::Superseded,
        position: position(),
        epoch: Epoch(8 << 32),
        successor: Some(node),
        lagging: None,
    };
    vec![
        ("standing", Reply::Standing(standing)),
        ("at", Reply::At { position: Some(position()), beyond: false, fork: position() }),
        ("joined", Reply::Joined(position(), Some(node))),
        ("done", Reply::Done),
        ("no-epoch", Reply::No(No::Epoch(Epoch(9 << 32)))),
        ("no-not-yet", Reply::No(No::NotYet(1500))),
    ]
}

/// The samples as bytes.
pub fn encoded() -> Entries {
    let named = |what: &str, name: &str, bytes| (format!("{what}-{name}"), bytes);
    let mut out = Entries::new();
    out.extend(asks().into_iter().map(|(n, a)| named("ask", n, a.encode())));
    out.extend(answers().into_iter().map(|(n, a)| named("answer", n, a.encode(false))));
    out.extend(questions().into_iter().map(|(n, q)| named("question", n, q.encode(VE))));
    out.extend(replies().into_iter().map(|(n, r)| named("reply", n, r.encode(VE))));
    out
}

/// Reads bytes as each kind of blob; what is accepted comes out again as it went in.
fn read(data: &[u8]) {
    if let Ok(ask) = Ask::decode(data) {
        assert_eq!(Ask::decode(&ask.encode()).ok(), Some(ask));
    }
    if let Ok(answer) = Answer::decode(data) {
        for compress in [false, true] {
            assert_eq!(Answer::decode(&answer.encode(compress)).ok().as_ref(), Some(&answer));
        }
    }
    if let Ok((ve, question)) = Question::decode(data) {
        assert_eq!(Question::decode(&question.encode(ve)).ok(), Some((ve, question)));
    }
    if let Ok((ve, reply)) = Reply::decode(data) {
        assert_eq!(Reply::decode(&reply.encode(ve)).ok(), Some((ve, reply)));
    }
}

/// Gives bytes to the decoders, and once more behind an honest header of each kind.
pub fn run(data: &[u8]) {
    read(data);
    for kind in [Kind::Ask, Kind::Answer, Kind::Question, Kind::Reply] {
        read(&blob::with_body(kind, data));
        read(&blob::with_compressed_body(kind, data));
    }
}
