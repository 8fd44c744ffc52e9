//! A writer whose disk stands still while its network answers.

use std::time::Duration;

use aspfs_replica::catchup::Answer;
use aspfs_replica::net::{self, AnswerWriter, FrameReader, FrameWriter, Handler, Transport};
use aspfs_replica::node::NodeId;
use aspfs_replica::wire::{self, Envelope, Hello, Message, Refusal};
use bytes::Bytes;
use vefs::change::AtWindow;
use vefs::ids::TxnNo;

use super::nodes::{VE, file, nodes, replicated, same, wait};

/// Says that it is working on an answer, for ever.
struct Working;

impl Handler for Working {
    async fn frames(&self, _: NodeId, _: FrameWriter, _: FrameReader) {}
    async fn request(&self, _: NodeId, _: Bytes, mut answers: AnswerWriter) {
        while answers.send(Answer::Working.encode(false)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A replica pulled a whole state from a node whose disk stood still, and another one was promoted. It turned the new writer away for three minutes, with
/// nothing of what that one acknowledged (checks G14, G18).
#[test]
fn a_replica_leaves_a_writer_that_is_no_more() {
    let [mut a, b, c] = nodes();
    let ve = replicated(&a, &[&b, &c], AtWindow::Degrade);
    file(&ve, "before", &[1; 150_000]).unwrap();
    ve.commit().unwrap();
    wait("both replicas", || a.acked(b.id()) && a.acked(c.id()));
    let (base, position, epoch) = (ve.identity().base, ve.durable_position(), ve.epoch());
    drop(ve);
    a.stop();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listen = a.cluster.list().list.node(a.id()).unwrap().addresses[0].as_str().parse().unwrap();
    let settings = net::Settings::default();
    let still = Transport::start(runtime.handle(), a.cluster.clone(), listen, std::sync::Arc::new(Working), settings);
    let still = still.unwrap();
    let (asked, stream) = runtime.block_on(async {
        let (mut writer, mut reader) = still.connect(c.id()).await.unwrap().open().await.unwrap();
        let envelope = Envelope { ve: Some(VE), epoch, session: u64::MAX / 2, seq: 0 };
        let hello = Message::Hello(Hello { node: a.id(), position, base });
        writer.send(wire::encode(&hello, envelope, false)).await.unwrap();
        let welcome = tokio::time::timeout(Duration::from_secs(30), reader.next()).await.expect("an answer");
        let (_, welcome) = welcome.unwrap().unwrap();
        let too_old = Message::Refused(Refusal::TooOld, TxnNo(0));
        writer.send(wire::encode(&too_old, Envelope { seq: 1, ..envelope }, false)).await.unwrap();
        (welcome, (writer, reader))
    });
    assert!(matches!(asked, Message::Welcome(_)), "{asked:?}");
    wait("the pull", || c.runtime().figures(VE).is_some_and(|f| f.followed.is_some_and(|f| f.pulling)));

    b.runtime().promote(VE, true, false).unwrap();
    file(&b.ve(), "after", &[2; 150_000]).unwrap();
    b.ve().commit().unwrap();
    wait("the new writer's changes", || b.acked(c.id()));
    same(&b, &c);
    drop((stream, still));
}
