//! Members of the cluster that are none of a VE's nodes: with a valid certificate, and any epoch that they like, they change nothing (checks G30).

use std::sync::Arc;
use std::time::Duration;

use aspfs_replica::catchup::{Answer, Ask, Refused};
use aspfs_replica::cluster::Cluster;
use aspfs_replica::member;
use aspfs_replica::net::{self, AnswerWriter, FrameReader, FrameWriter, Handler, Transport};
use aspfs_replica::node::NodeId;
use aspfs_replica::runtime::{OperateError, Question, Reply, Word, with_replica};
use aspfs_replica::wire::{self, Chunk, Envelope, Hello, Message, Refusal};
use bytes::Bytes;
use vefs::change::{AtWindow, Need, ReplicaOf};
use vefs::ids::{Epoch, Lineage, PayloadId, Position, TxnNo, VeId};

use super::nodes::{Node, VE, file, nodes, replicated, same, wait};

struct Mute;

impl Handler for Mute {
    async fn frames(&self, _: NodeId, _: FrameWriter, _: FrameReader) {}
    async fn request(&self, _: NodeId, _: Bytes, _: AnswerWriter) {}
}

/// A member that says what it likes.
pub(super) struct Hostile {
    runtime: tokio::runtime::Runtime,
    net: Transport,
    me: NodeId,
}

impl Hostile {
    pub(super) fn new(cluster: &Arc<Cluster>) -> Hostile {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let settings = net::Settings::default();
        let net = Transport::start(runtime.handle(), cluster.clone(), listen, Arc::new(Mute), settings).unwrap();
        Hostile { runtime, net, me: cluster.node() }
    }

    fn request(&self, to: NodeId, blob: Vec<u8>) -> Bytes {
        self.runtime.block_on(async {
            let mut answers = self.net.connect(to).await.unwrap().request(blob).await.unwrap();
            answers.next().await.unwrap().unwrap()
        })
    }

    pub(super) fn ask(&self, to: NodeId, question: Question) -> Reply {
        Reply::decode(&self.request(to, question.encode())).unwrap()
    }

    fn pull(&self, to: NodeId, ask: &Ask) -> Answer {
        Answer::decode(&self.request(to, ask.encode())).unwrap()
    }

    pub(super) fn greet(&self, to: NodeId, epoch: Epoch, position: Position, base: vefs::ids::Hash) -> Message {
        self.runtime.block_on(async {
            let (mut writer, mut reader) = self.net.connect(to).await.unwrap().open().await.unwrap();
            let envelope = Envelope { ve: Some(VE), epoch, session: 1 << 40, seq: 1 };
            let hello = Message::Hello(Hello { node: self.me, position, base });
            writer.send(wire::encode(&hello, envelope, false)).await.unwrap();
            reader.next().await.unwrap().unwrap().1
        })
    }
}

fn turned_away(node: &Node, word: Word) -> u64 {
    node.runtime().strangers().all().into_iter().find(|(w, _)| *w == word).unwrap().1
}

/// Each message that could fence, take over, read or destroy is tried at the primary and at its replica, by a member that is neither.
#[test]
fn a_member_that_is_none_of_the_ves_nodes_changes_nothing() {
    let [a, b, mut c] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Degrade);
    file(&ve, "before", &[1; 150_000]).unwrap();
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    c.stop();
    let hostile = Hostile::new(&c.cluster);
    let (lineage, position, epoch) = (ve.identity().lineage, ve.durable_position(), Epoch(7 << 32));
    let base = ve.identity().base;
    for node in [&a, &b] {
        let (to, writes, own) = (node.id(), node.ve().is_writer(), node.ve().epoch());
        for question in [
            Question::Position { ve: VE, lineage },
            Question::TakeOver { ve: VE, position, epoch },
            Question::Destroyed { ve: VE, lineage },
            Question::Member { ve: VE, lineage, node: hostile.me, epoch: own },
            Question::Right { ve: VE, lineage, what: member::Question::Join(epoch) },
        ] {
            assert_eq!(hostile.ask(to, question), Reply::Stranger, "{question:?}");
        }
        let rows = Ask::Rows { ve: VE, at: position, after: None, upto: None, epoch: own };
        for ask in [
            Ask::Snapshot { ve: VE, lineage, have: Position::default(), epoch: own },
            rows,
            Ask::Tree { hash: base, offset: 0 },
            Ask::Objects { wanted: vec![base], offset: 0 },
            Ask::Done { ve: VE, at: position },
        ] {
            assert_eq!(hostile.pull(to, &ask), Answer::Refused(Refused::NotAllowed), "{ask:?}");
        }
        let answer = hostile.greet(to, epoch, position, base);
        assert_eq!(answer, Message::Refused(Refusal::Stranger, TxnNo(0)));
        let counts: Vec<u64> = Word::ALL.iter().map(|w| turned_away(node, *w)).collect();
        assert_eq!(counts, [1, 1, 1, 1, 1, 5, 1], "hello, position, take over, destroyed, member, state, right");
        assert_eq!((node.ve().is_writer(), node.ve().epoch()), (writes, own));
        assert!(node.store().has_ve(VE) && !node.store().is_buried(lineage));
        assert_eq!(node.ve().fenced(), None);
    }
    // Nor does it declare destroyed what has not come yet.
    let later = Lineage([9; 16]);
    assert_eq!(hostile.ask(b.id(), Question::Destroyed { ve: VeId(0x99), lineage: later }), Reply::Stranger);
    assert!(!b.store().is_buried(later));
    file(&ve, "after", &[2; 150_000]).unwrap();
    ve.commit().unwrap();
    wait("the replica again", || a.acked(b.id()));
    same(&a, &b);
}

/// Bulk counts from whoever has the session, though any member may open a stream of it and the session's number is no secret: a stranger's piece would
/// take the place of the writer's.
#[test]
fn bulk_of_a_stranger_is_not_put_aside() {
    let [mut a, b, mut c] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Degrade);
    file(&ve, "before", &[1; 150_000]).unwrap();
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    let (base, position, epoch) = (ve.identity().base, ve.durable_position(), ve.epoch());
    drop(ve);
    a.stop();
    c.stop();
    let (writer, stranger) = (Hostile::new(&a.cluster), Hostile::new(&c.cluster));
    let session = u64::MAX / 2;
    let greeted = |session| {
        let hello = Message::Hello(Hello { node: writer.me, position, base });
        let envelope = Envelope { ve: Some(VE), epoch, session, seq: 0 };
        writer.runtime.block_on(async {
            let (mut out, mut answers) = writer.net.connect(b.id()).await.unwrap().open().await.unwrap();
            out.send(wire::encode(&hello, envelope, false)).await.unwrap();
            let Some((_, Message::Welcome(welcome))) = answers.next().await.unwrap() else { panic!("not welcome") };
            (welcome.staged, out, answers)
        })
    };
    let piece = |from: &Hostile, offset| {
        let id = PayloadId { txn: position.txn.next(), offset };
        let chunk = Message::Chunk(Chunk { id, total: 5, offset: 0, within: None, bytes: vec![7; 5] });
        let envelope = Envelope { ve: Some(VE), epoch, session, seq: 0 };
        from.runtime.block_on(async {
            let mut out = from.net.connect(b.id()).await.unwrap().open_bulk().await.unwrap();
            out.send(wire::encode(&chunk, envelope, false)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            out
        })
    };
    let (staged, _out, _answers) = greeted(session);
    assert_eq!(staged, []);
    let _streams = (piece(&stranger, 1), piece(&writer, 2));
    let (staged, ..) = greeted(session + 1);
    assert_eq!(staged, [(PayloadId { txn: position.txn.next(), offset: 2 }, 5)]);
}

/// A replica that is not the writer does not hand over what it does not have, though it is one of the VE's nodes.
#[test]
fn a_replica_hands_nothing_over() {
    let [a, b, mut c] = nodes();
    let ve = replicated(&a, &[&b, &c], AtWindow::Degrade);
    file(&ve, "one", b"1").unwrap();
    ve.commit().unwrap();
    wait("both replicas", || a.acked(b.id()) && a.acked(c.id()));
    c.stop();
    let hostile = Hostile::new(&c.cluster);
    let epoch = b.ve().epoch();
    let reply = hostile.ask(b.id(), Question::TakeOver { ve: VE, position: b.ve().durable_position(), epoch });
    assert!(matches!(&reply, Reply::No(why) if why.contains("is not the writer")), "{reply:?}");
    assert_eq!((b.ve().is_writer(), b.ve().epoch(), turned_away(&b, Word::TakeOver)), (false, epoch, 1));
}

/// A node that was removed from the list is told so when it is to be promoted; and if it is promoted all the same, nobody heeds it.
#[test]
fn a_removed_replica_fences_nobody() {
    let [a, b, c] = nodes();
    let ve = replicated(&a, &[&b, &c], AtWindow::Degrade);
    file(&ve, "one", b"1").unwrap();
    ve.commit().unwrap();
    wait("both replicas", || a.acked(b.id()) && a.acked(c.id()));
    let mut policy = ve.policy().unwrap();
    policy.replicas.retain(|r| r.node != c.id().0);
    ve.set_policy(policy).unwrap();
    ve.commit().unwrap();
    a.runtime().refresh(&ve).unwrap();
    wait("the replica that stays", || a.acked(b.id()));
    let removed = c.runtime().promote(VE, true, false).unwrap_err();
    assert!(matches!(&removed, OperateError::Unsafe(t) if t.contains("was removed")), "{removed}");
    let epoch = c.runtime().promote(VE, true, true).unwrap().epoch;
    assert!(epoch > ve.epoch());
    wait("its greetings", || turned_away(&a, Word::Hello) > 0 && turned_away(&b, Word::Hello) > 0);
    assert!(ve.is_writer() && ve.fenced().is_none() && b.ve().epoch() < epoch);
    file(&ve, "two", b"2").unwrap();
    ve.commit().unwrap();
    wait("the replica once more", || a.acked(b.id()));
    same(&a, &b);
}

/// While a replica was away its VE got another node, and was handed to that one, of which the replica has never heard. Those whom it knows vouch for
/// the new writer.
#[test]
fn a_writer_that_a_returning_replica_does_not_know() {
    let [a, b, mut c, d] = nodes();
    let ve = replicated(&a, &[&b, &c], AtWindow::Degrade);
    file(&ve, "one", b"1").unwrap();
    ve.commit().unwrap();
    wait("both replicas", || a.acked(b.id()) && a.acked(c.id()));
    c.stop();
    let with_d = with_replica(&ve.policy().unwrap(), ReplicaOf { node: d.id().0, need: Need::Required, bandwidth: 0 });
    ve.set_policy(with_d).unwrap();
    ve.commit().unwrap();
    a.runtime().refresh(&ve).unwrap();
    wait("the new replica", || a.acked(d.id()));
    drop(ve);
    a.runtime().switchover(VE, d.id()).unwrap();
    file(&d.ve(), "two", b"2").unwrap();
    d.ve().commit().unwrap();
    wait("the old ones to follow the new one", || d.acked(a.id()) && d.acked(b.id()));
    c.start();
    wait("the one that was away to follow it", || d.acked(c.id()));
    same(&d, &c);
}

/// What a replica's daemon had heard was forgotten when it ended: promoted after that, it did not count the former primary as a replica, which
/// never followed it when it came back. The policy names the writer now.
#[test]
fn a_restarted_replica_knows_whom_it_followed() {
    let [mut a, mut b] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Degrade);
    file(&ve, "one", b"1").unwrap();
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    drop(ve);
    a.stop();
    b.stop();
    b.start();
    wait("the VE to be followed again", || b.runtime().figures(VE).is_some());
    b.runtime().promote(VE, true, false).unwrap();
    file(&b.ve(), "two", b"2").unwrap();
    b.ve().commit().unwrap();
    a.start();
    wait("the old primary to follow", || b.acked(a.id()));
    same(&b, &a);
}
