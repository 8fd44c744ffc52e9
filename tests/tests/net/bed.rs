//! Nodes of clusters, each with a transport on a port of its own, whose streams and requests the test takes by hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aspfs_replica::cluster::{Bundle, Cluster};
use aspfs_replica::net::{
    AnswerWriter, FrameReader, FrameWriter, Handler, NetError, PeerStats, Refusal, Settings, Transport,
};
use aspfs_replica::node::NodeId;
use aspfs_replica::wire::{self, Envelope, Message, WirePayload, WireRecord};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use vefs::clock::{Clock, ManualClock, Timestamp};

/// Longer than anything takes that is not broken.
pub const LONG: Duration = Duration::from_secs(60);

/// Short times, so that tests of silence end soon.
pub fn settings() -> Settings {
    Settings {
        idle: Duration::from_secs(2),
        patience: Duration::from_secs(3),
        expiry_check: Duration::from_millis(50),
        ..Settings::default()
    }
}

/// Runs a test on a runtime of its own.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { timeout(LONG, test).await.expect("the test hangs") });
    runtime.shutdown_background();
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG / 2, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A wall clock near today's, which is moved by hand.
#[derive(Debug, Default)]
pub struct TestClock(pub ManualClock);

impl Clock for TestClock {
    fn wall(&self) -> Timestamp {
        self.0.wall()
    }

    fn boot(&self) -> Duration {
        self.0.boot()
    }
}

type Stream = (NodeId, FrameWriter, FrameReader);
type Request = (NodeId, Bytes, AnswerWriter);

/// Passes everything on to the test.
struct ToTest {
    streams: UnboundedSender<Stream>,
    bulk: UnboundedSender<FrameReader>,
    requests: UnboundedSender<Request>,
}

impl Handler for ToTest {
    async fn frames(&self, from: NodeId, writer: FrameWriter, reader: FrameReader) {
        let _ = self.streams.send((from, writer, reader));
    }

    async fn bulk(&self, _from: NodeId, reader: FrameReader) {
        let _ = self.bulk.send(reader);
    }

    async fn request(&self, from: NodeId, request: Bytes, answers: AnswerWriter) {
        let _ = self.requests.send((from, request, answers));
    }
}

/// A node with its transport.
pub struct TestNode {
    pub cluster: Arc<Cluster>,
    pub net: Transport,
    streams: tokio::sync::Mutex<UnboundedReceiver<Stream>>,
    bulk: tokio::sync::Mutex<UnboundedReceiver<FrameReader>>,
    requests: tokio::sync::Mutex<UnboundedReceiver<Request>>,
}

impl TestNode {
    pub fn start(cluster: Cluster, settings: Settings) -> TestNode {
        TestNode::start_on(cluster, settings, "127.0.0.1:0")
    }

    pub fn start_on(cluster: Cluster, settings: Settings, listen: &str) -> TestNode {
        let cluster = Arc::new(cluster);
        let (streams, stream_receiver) = unbounded_channel();
        let (requests, request_receiver) = unbounded_channel();
        let (bulk, bulk_receiver) = unbounded_channel();
        let handler = Arc::new(ToTest { streams, bulk, requests });
        let here = tokio::runtime::Handle::current();
        let net = Transport::start(&here, cluster.clone(), listen.parse().unwrap(), handler, settings).unwrap();
        TestNode {
            cluster,
            net,
            streams: tokio::sync::Mutex::new(stream_receiver),
            bulk: tokio::sync::Mutex::new(bulk_receiver),
            requests: tokio::sync::Mutex::new(request_receiver),
        }
    }

    pub fn id(&self) -> NodeId {
        self.cluster.node()
    }

    /// The next stream that a peer opened.
    pub async fn stream(&self) -> Stream {
        timeout(LONG / 2, self.streams.lock().await.recv()).await.expect("no stream came").unwrap()
    }

    /// The next stream of bulk of a peer.
    pub async fn bulk(&self) -> FrameReader {
        timeout(LONG / 2, self.bulk.lock().await.recv()).await.expect("no stream came").unwrap()
    }

    /// The next request of a peer.
    pub async fn request(&self) -> Request {
        timeout(LONG / 2, self.requests.lock().await.recv()).await.expect("no request came").unwrap()
    }

    /// How often it refused for a reason.
    pub fn refused(&self, why: Refusal) -> u64 {
        self.net.refusals().iter().find(|(r, _)| *r == why).map_or(0, |(_, n)| *n)
    }

    /// What went to and from a peer.
    pub fn stats(&self, peer: NodeId) -> PeerStats {
        self.net.stats().into_iter().find(|s| s.peer == peer).unwrap_or_default()
    }

    /// Whether it has the list that another has.
    pub fn agrees(&self, other: &TestNode) -> bool {
        self.cluster.list() == other.cluster.list()
    }
}

/// Folders, and a clock.
pub struct Bed {
    top: tempfile::TempDir,
    pub clock: Arc<TestClock>,
    made: Mutex<usize>,
}

impl Bed {
    pub fn new() -> Bed {
        Bed { top: tempfile::tempdir().unwrap(), clock: Arc::default(), made: Mutex::default() }
    }

    pub fn dir(&self) -> std::path::PathBuf {
        let mut made = self.made.lock();
        *made += 1;
        self.top.path().join(made.to_string())
    }

    pub fn init_in(&self, dir: &Path) -> Cluster {
        Cluster::init(dir, &"test".parse().unwrap(), &"one".parse().unwrap(), &[], self.clock.clone()).unwrap()
    }

    /// The first node of a cluster.
    pub fn init(&self) -> TestNode {
        self.init_on("127.0.0.1:0")
    }

    /// The same, listening there.
    pub fn init_on(&self, listen: &str) -> TestNode {
        let one = TestNode::start_on(self.init_in(&self.dir()), settings(), listen);
        listens(&one, &one);
        one
    }

    pub fn joined(&self, bundle: &Bundle) -> Cluster {
        Cluster::join(&self.dir(), bundle, self.clock.clone()).unwrap()
    }

    /// A node that joins, listens, and whose address the others can know.
    pub fn add(&self, one: &TestNode, name: &str) -> TestNode {
        self.add_on(one, name, "127.0.0.1:0")
    }

    /// The same, listening there.
    pub fn add_on(&self, one: &TestNode, name: &str, listen: &str) -> TestNode {
        let bundle = one.cluster.add_node(&name.parse().unwrap(), &[]).unwrap();
        let node = TestNode::start_on(self.joined(&bundle), settings(), listen);
        listens(one, &node);
        node.cluster.adopt(&one.cluster.list().bytes).unwrap();
        node
    }

    /// Two nodes that know each other.
    pub fn pair(&self) -> (TestNode, TestNode) {
        let one = self.init();
        let two = self.add(&one, "two");
        (one, two)
    }

    /// Three nodes that know one another.
    pub fn three(&self) -> (TestNode, TestNode, TestNode) {
        let (one, two) = self.pair();
        let three = self.add(&one, "three");
        two.cluster.adopt(&one.cluster.list().bytes).unwrap();
        (one, two, three)
    }
}

/// Writes into the list of `authority` where `node` listens.
pub fn listens(authority: &TestNode, node: &TestNode) {
    let address = node.net.local_addr().to_string().parse().unwrap();
    authority.cluster.set_addresses(&node.id().to_string(), &[address]).unwrap();
}

/// A frame with a message that is about nothing.
pub fn frame(message: &Message) -> Vec<u8> {
    wire::encode(message, Envelope::default(), false)
}

/// A frame with so many bytes in it.
pub fn large(len: usize) -> Vec<u8> {
    frame(&Message::Records(vec![WireRecord { body: vec![1], payload: Some(WirePayload::Inline(vec![7; len])) }]))
}

/// The next message of a stream.
pub async fn next(reader: &mut FrameReader) -> Result<Option<Message>, NetError> {
    let next = timeout(LONG / 2, reader.next()).await.expect("no frame came");
    next.map(|n| n.map(|(_, message)| message))
}

/// The reason for which this side refused.
pub fn refusal<T>(result: Result<T, NetError>) -> Refusal {
    match result.err() {
        Some(NetError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The reason for which the other side refused.
pub fn refusal_by_peer<T>(result: Result<T, NetError>) -> Refusal {
    match result.err() {
        Some(NetError::RefusedByPeer(why)) => why,
        other => panic!("{other:?}"),
    }
}
