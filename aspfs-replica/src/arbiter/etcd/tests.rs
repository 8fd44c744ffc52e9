//! The protocol against a few lines that do what etcd does with these four paths.

use super::*;
use crate::arbiter::{Refused, Request};
use crate::node::NodeId;
use parking_lot::Mutex;
use std::sync::Arc;
use vefs::ids::Epoch;

type Meanwhile = Box<dyn FnOnce(&mut Server) + Send>;

#[derive(Default)]
struct Server {
    revision: i64,
    keys: BTreeMap<String, (String, i64, String)>,
    leases: BTreeMap<String, u64>,
    /// Something that happens right before the next transaction that writes.
    meanwhile: Option<Meanwhile>,
    /// The next answer is lost on its way.
    lose: bool,
    /// The next transaction that writes is under way for long, and is here then.
    delay: bool,
    delayed: Option<Value>,
}

impl Server {
    fn expire(&mut self, id: &str) {
        self.leases.remove(id);
        self.keys.retain(|_, (.., lease)| lease != id);
    }

    fn apply(&mut self, op: &Value) -> Value {
        let text = |at: &str| op.pointer(at).and_then(Value::as_str).unwrap_or("").to_owned();
        if op.get("requestPut").is_some() {
            let (key, value, lease) = (text("/requestPut/key"), text("/requestPut/value"), text("/requestPut/lease"));
            let lease = if lease.is_empty() { "0".into() } else { lease };
            self.keys.insert(key, (value, self.revision, lease));
            return json!({ "response_put": {} });
        }
        if op.get("requestDeleteRange").is_some() {
            self.keys.remove(&text("/requestDeleteRange/key"));
            return json!({ "response_delete_range": {} });
        }
        let key = text("/requestRange/key");
        match self.keys.get(&key) {
            None => json!({ "response_range": { "header": {} } }),
            Some((value, revision, lease)) => {
                let kv = json!({ "key": key, "value": value, "mod_revision": revision.to_string(), "lease": lease });
                json!({ "response_range": { "kvs": [kv] } })
            }
        }
    }

    fn txn(&mut self, body: &Value) -> Value {
        let list = |name: &str| body.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let holds = |c: &Value| {
            let revision = self.keys.get(c["key"].as_str().unwrap()).map_or(0, |k| k.1);
            c["modRevision"].as_str().unwrap() == revision.to_string()
        };
        if !list("compare").iter().all(holds) {
            return json!({});
        }
        self.revision += 1;
        let responses: Vec<Value> = list("success").iter().map(|op| self.apply(op)).collect();
        json!({ "succeeded": true, "responses": responses })
    }
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Server>>);

impl Http for Fake {
    fn post(&mut self, path: &str, body: &str, _timeout: Duration) -> Result<String, String> {
        let body: Value = serde_json::from_str(body).unwrap();
        let mut s = self.0.lock();
        let writes = body.get("compare").is_some();
        if let Some(meanwhile) = s.meanwhile.take_if(|_| writes) {
            meanwhile(&mut s);
        }
        if writes && std::mem::take(&mut s.delay) {
            s.delayed = Some(body);
            return Err("no answer in time".into());
        }
        let answer = match path {
            "/v3/kv/txn" => s.txn(&body),
            "/v3/lease/grant" => {
                let id = (s.leases.len() as u64 + 7_587_848_390_000_000_000).to_string();
                let ttl = body["TTL"].as_str().unwrap().parse().unwrap();
                s.leases.insert(id.clone(), ttl);
                json!({ "ID": id, "TTL": ttl.to_string() })
            }
            "/v3/lease/keepalive" => match s.leases.get(body["ID"].as_str().unwrap()) {
                Some(ttl) => json!({ "result": { "TTL": ttl.to_string() } }),
                None => json!({ "result": {} }),
            },
            other => return Err(format!("{other}: 404")),
        };
        if std::mem::take(&mut s.lose) { Err("broken off".into()) } else { Ok(answer.to_string()) }
    }
}

const VE: VeId = VeId(7);
const A: NodeId = NodeId([1; 16]);
const B: NodeId = NodeId([2; 16]);

fn ask(etcd: &mut Etcd<Fake>, request: Request) -> Result<Reply, ArbiterError> {
    etcd.ask(&request, Duration::from_secs(5))
}

fn propose(node: NodeId, expected: u64, epoch: u64) -> Request {
    Request::Propose { ve: VE, node, expected: Epoch(expected), epoch: Epoch(epoch), forced: false }
}

fn lease(node: NodeId, epoch: u64) -> Request {
    Request::Lease { ve: VE, node, epoch: Epoch(epoch), ttl_ms: 4500 }
}

/// The life of two owners (checks G18).
#[test]
fn an_epoch_has_one_owner() {
    let fake = Fake::default();
    let (mut a, mut b) = (Etcd::new(fake.clone(), "/test"), Etcd::new(fake.clone(), "/test"));
    assert_eq!(ask(&mut a, Request::Read { ve: VE }).unwrap(), Reply::Record(Record::default(), false));
    let Reply::Record(record, false) = ask(&mut a, propose(A, 0, 5)).unwrap() else { panic!("not given") };
    assert_eq!((record.owner, record.epoch), (A, Epoch(5)));
    assert_eq!(ask(&mut a, lease(A, 5)).unwrap(), Reply::Record(record, true));
    assert_eq!(ask(&mut a, lease(A, 5)).unwrap(), Reply::Record(record, true), "renewed");
    assert_eq!(fake.0.lock().leases.values().collect::<Vec<_>>(), [&5], "one lease, whole seconds, rounded up");
    assert_eq!(ask(&mut b, propose(B, 5, 6)).unwrap(), Reply::Refused(Refused::LeaseRuns, record));
    assert_eq!(ask(&mut b, propose(B, 4, 6)).unwrap(), Reply::Refused(Refused::Superseded, record));
    let id = a.leases[&VE].clone();
    fake.0.lock().expire(&id);
    assert!(matches!(ask(&mut b, propose(B, 5, 6)).unwrap(), Reply::Record(r, false) if r.owner == B));
    assert!(matches!(ask(&mut a, lease(A, 5)).unwrap(), Reply::Refused(Refused::Superseded, r) if r.epoch == Epoch(6)));
    assert!(matches!(ask(&mut b, lease(B, 6)).unwrap(), Reply::Record(_, true)));
    assert!(matches!(ask(&mut b, Request::Release { ve: VE, node: B, epoch: Epoch(6) }), Ok(Reply::Record(_, false))));
}

/// What changes between reading and writing is seen: the request is decided anew (checks G18).
#[test]
fn what_happens_meanwhile_is_seen() {
    let fake = Fake::default();
    let (mut a, mut b) = (Etcd::new(fake.clone(), "/test"), Etcd::new(fake.clone(), "/test"));
    ask(&mut a, propose(A, 0, 5)).unwrap();
    // The owner takes its lease after the candidate has seen that none runs.
    let key = a.key(VE, "lease");
    let taken = key.clone();
    fake.0.lock().meanwhile = Some(Box::new(move |s| {
        s.revision += 1;
        s.keys.insert(taken, (String::new(), s.revision, "77".into()));
    }));
    assert!(matches!(ask(&mut b, propose(B, 5, 6)).unwrap(), Reply::Refused(Refused::LeaseRuns, _)));
    fake.0.lock().keys.remove(&key);
    // Two candidates.
    let (record, other) = (a.key(VE, "record"), Record { epoch: Epoch(9), owner: A, lagging: None, off: None });
    fake.0.lock().meanwhile = Some(Box::new(move |s| {
        s.revision += 1;
        s.keys.insert(record, (encode64(&codec::encode(&other)), s.revision, "0".into()));
    }));
    assert_eq!(ask(&mut b, propose(B, 5, 6)).unwrap(), Reply::Refused(Refused::Superseded, other));
}

/// A lease that ended is not renewed by its number, and a lost answer is no answer.
#[test]
fn an_ended_lease_is_a_new_one() {
    let fake = Fake::default();
    let mut a = Etcd::new(fake.clone(), "/test");
    ask(&mut a, propose(A, 0, 5)).unwrap();
    ask(&mut a, lease(A, 5)).unwrap();
    let first = a.leases[&VE].clone();
    fake.0.lock().leases.remove(&first);
    fake.0.lock().leases.insert("1".into(), 1);
    assert!(matches!(ask(&mut a, lease(A, 5)).unwrap(), Reply::Record(_, true)));
    assert_ne!(a.leases[&VE], first);
    fake.0.lock().lose = true;
    assert!(ask(&mut a, propose(A, 5, 6)).is_err());
    assert!(matches!(ask(&mut a, propose(A, 5, 6)).unwrap(), Reply::Record(r, true) if r.epoch == Epoch(6)));
}

/// Whatever comes back, it is an error and no panic (checks G29).
#[test]
fn hostile_answers() {
    struct Says(String);
    impl Http for Says {
        fn post(&mut self, _: &str, _: &str, _: Duration) -> Result<String, String> {
            Ok(self.0.clone())
        }
    }
    let range =
        |kv: &str| format!("{{\"responses\":[{{\"response_range\":{{\"kvs\":[{kv}]}}}},{{\"response_range\":{{}}}}]}}");
    for answer in [
        String::new(),
        "[]".into(),
        "{}".into(),
        "{\"responses\":7}".into(),
        range("{}"),
        range("{\"mod_revision\":\"-1\"}"),
        range("{\"mod_revision\":\"5\",\"value\":\"!!!!\"}"),
        range("{\"mod_revision\":\"5\",\"value\":\"AQ==\"}"),
    ] {
        let mut etcd = Etcd::new(Says(answer.clone()), "/test");
        assert!(etcd.ask(&lease(A, 5), Duration::from_secs(1)).is_err(), "{answer}");
    }
}

#[test]
fn base64_is_that_of_the_rfc() {
    for (plain, text) in
        [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
    {
        assert_eq!(encode64(plain.as_bytes()), text);
        assert_eq!(decode64(text).as_deref(), Some(plain.as_bytes()));
    }
    for bad in ["Z", "Zg=", "Z===", "Zg==Zg==", "Z!==", "====", "Zm9\u{e9}"] {
        assert_eq!(decode64(bad), None, "{bad}");
    }
}

/// "Lags no more" was under way for long; the owner said meanwhile that it may lag, which stood there already, so that nothing was written; then the first
/// saying arrived, and nobody knew any more that the VE lags (checks G16).
#[test]
fn what_is_said_late_about_lagging_is_not_written() {
    let fake = Fake::default();
    let mut a = Etcd::new(fake.clone(), "/test");
    ask(&mut a, propose(A, 0, 5)).unwrap();
    let lags = |lagging| Request::Lagging { ve: VE, node: A, epoch: Epoch(5), lagging };
    ask(&mut a, lags(true)).unwrap();
    fake.0.lock().delay = true;
    assert!(ask(&mut a, lags(false)).is_err());
    assert!(matches!(ask(&mut a, lags(true)).unwrap(), Reply::Record(r, _) if r.lagging == Some(A)));
    let late = fake.0.lock().delayed.take().unwrap();
    assert_eq!(fake.0.lock().txn(&late), json!({}), "it is compared with what was there before");
    assert!(matches!(ask(&mut a, Request::Read { ve: VE }).unwrap(), Reply::Record(r, _) if r.lagging == Some(A)));
}
