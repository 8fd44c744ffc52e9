//! What nodes of a VE ask each other, and what an arbiter keeps: samples of each, and what hostile bytes are run through (promise G29).

use aspfs_replica::arbiter::Record;
use aspfs_replica::node::NodeId;
use aspfs_replica::runtime::{Beyond, Question, Reply};
use vefs::codec;
use vefs::ids::{Epoch, Hash, Lineage, Position, TxnNo, VeId};

use crate::golden::Entries;

fn position() -> Position {
    Position { lineage: Lineage([0x11; 16]), epoch: Epoch(7 << 32), txn: TxnNo(300), chain: Hash([0x22; 32]) }
}

/// One of each question.
pub fn questions() -> Vec<(&'static str, Question)> {
    let (ve, lineage, position) = (VeId(0x2a), Lineage([0x11; 16]), position());
    vec![
        ("position", Question::Position { ve, lineage }),
        ("take-over", Question::TakeOver { ve, position, epoch: Epoch(7 << 32) }),
        ("destroyed", Question::Destroyed { ve, lineage }),
        ("member", Question::Member { ve, lineage, node: NodeId([0x88; 16]), epoch: Epoch(7 << 32) }),
        ("root", Question::Root { ve, position }),
        ("beyond", Question::Beyond { ve, position }),
    ]
}

/// One of each reply.
pub fn replies() -> Vec<(&'static str, Reply)> {
    let beyond = Beyond { txns: 12, files: 4, bytes: 3000, whole: true, diverged: false };
    vec![
        ("at", Reply::At { position: position(), epoch: Epoch(8 << 32), writes: true }),
        ("taken", Reply::Taken(Epoch(8 << 32))),
        ("done", Reply::Done),
        ("destroyed", Reply::Destroyed),
        ("no", Reply::No("the VE here has another history".into())),
        ("stranger", Reply::Stranger),
        ("root", Reply::Root(Hash([0x33; 32]))),
        ("beyond", Reply::Beyond(beyond)),
    ]
}

/// An arbiter's records.
pub fn records() -> Vec<(&'static str, Record)> {
    let (a, b) = (NodeId([0x88; 16]), NodeId([0x99; 16]));
    let record = Record { epoch: Epoch(7 << 32), owner: a, lagging: None, off: None };
    vec![
        ("owned", record),
        ("lagging", Record { lagging: Some(a), ..record }),
        ("off", Record { off: Some((b, Epoch(6 << 32))), ..record }),
    ]
}

/// The samples as bytes.
pub fn encoded() -> Entries {
    let named = |what: &str, name: &str, bytes| (format!("{what}-{name}"), bytes);
    let mut out = Entries::new();
    out.extend(questions().into_iter().map(|(n, q)| named("question", n, q.encode())));
    out.extend(replies().into_iter().map(|(n, r)| named("reply", n, r.encode())));
    out.extend(records().into_iter().map(|(n, r)| named("record", n, codec::encode(&r))));
    out
}

/// Reads bytes as each of them; what is accepted comes out again as it went in.
pub fn run(data: &[u8]) {
    if let Ok(question) = Question::decode(data) {
        assert_eq!(Question::decode(&question.encode()).ok(), Some(question));
    }
    if let Ok(reply) = Reply::decode(data) {
        assert_eq!(Reply::decode(&reply.encode()).ok(), Some(reply));
    }
    if let Ok(record) = codec::decode::<Record>(data) {
        assert_eq!(codec::decode(&codec::encode(&record)).ok(), Some(record));
    }
}
