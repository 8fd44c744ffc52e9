//! etcd as the arbiter, over the JSON gateway of its API v3 (`/v3/kv/range`, `/v3/kv/txn`, `/v3/lease/grant`, `/v3/lease/keepalive`; see etcd's
//! `api/etcdserverpb/rpc.proto`). Bytes are base64, 64-bit numbers are strings.
//!
//! Two keys for each VE: `PREFIX/VE/record` is the encoded [`Record`], `PREFIX/VE/lease` exists while the owner's lease runs, and is attached to it.
//! A request reads both, decides by the [rules](super::rules), and writes in one transaction which compares that neither has changed since;
//! if one has, it starts anew. So two that ask at the same time are told different things.
//!
//! A lease is in whole seconds here, rounded up: it never ends before its owner's own clock says so.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vefs::codec;
use vefs::ids::VeId;

use super::rules::{LeaseChange, decide};
use super::{Arbiter, ArbiterError, Record, Reply, Request};

/// How often a request starts anew when others change the same VE.
const TRIES_MAX: u32 = 8;
/// Longest answer in bytes.
pub const ANSWER_MAX: u64 = 1 << 20;

/// What asks etcd over HTTP.
pub trait Http: Send {
    /// Posts a JSON body to a path and gives the body of the answer, at most [`ANSWER_MAX`] bytes; an error for any status but 200.
    fn post(&mut self, path: &str, body: &str, timeout: Duration) -> Result<String, String>;
}

/// The arbiter.
pub struct Etcd<H> {
    http: H,
    prefix: String,
    /// Leases that this process has.
    leases: BTreeMap<VeId, String>,
}

/// A key as it is.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// 0 where it does not exist.
    revision: i64,
    value: Vec<u8>,
    lease: Option<String>,
}

fn wrong(what: impl std::fmt::Display) -> ArbiterError {
    ArbiterError(what.to_string())
}

impl<H: Http> Etcd<H> {
    /// `prefix`: of all keys, for instance `/aspfs/CLUSTER`.
    pub fn new(http: H, prefix: impl Into<String>) -> Etcd<H> {
        Etcd { http, prefix: prefix.into(), leases: BTreeMap::new() }
    }

    fn key(&self, ve: VeId, what: &str) -> String {
        encode64(format!("{}/{ve}/{what}", self.prefix).as_bytes())
    }

    fn post(&mut self, path: &str, body: &Value, until: Instant) -> Result<Value, ArbiterError> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(wrong("no answer in time"));
        }
        let answer = self.http.post(path, &body.to_string(), left).map_err(wrong)?;
        serde_json::from_str(&answer).map_err(wrong)
    }

    fn read(&mut self, ve: VeId, until: Instant) -> Result<(Entry, Entry), ArbiterError> {
        let (record, lease) = (self.key(ve, "record"), self.key(ve, "lease"));
        let get = |key: &String| json!({ "requestRange": { "key": key } });
        let answer = self.post("/v3/kv/txn", &json!({ "success": [get(&record), get(&lease)] }), until)?;
        let entry = |n: usize| -> Result<Entry, ArbiterError> {
            let range = answer.pointer(&format!("/responses/{n}/response_range"));
            let range = range.ok_or_else(|| wrong("etcd's answer has no range"))?;
            let Some(kv) = range.pointer("/kvs/0") else { return Ok(Entry::default()) };
            let text = |field: &str| kv.get(field).and_then(Value::as_str);
            let revision = text("mod_revision").and_then(|r| r.parse().ok()).filter(|r| *r > 0);
            Ok(Entry {
                revision: revision.ok_or_else(|| wrong("etcd's answer has no revision"))?,
                value: decode64(text("value").unwrap_or("")).ok_or_else(|| wrong("a value is not base64"))?,
                lease: text("lease").filter(|l| *l != "0").map(str::to_owned),
            })
        };
        Ok((entry(0)?, entry(1)?))
    }

    /// The lease that the key is to have: the present one renewed, or a new one.
    fn lease(&mut self, ve: VeId, entry: &Entry, ms: u64, until: Instant) -> Result<String, ArbiterError> {
        let seconds = ms.div_ceil(1000).max(1);
        if let Some(id) = self.leases.get(&ve).filter(|id| entry.lease.as_ref() == Some(id)).cloned() {
            let answer = self.post("/v3/lease/keepalive", &json!({ "ID": id }), until)?;
            let ttl = answer.pointer("/result/TTL").and_then(Value::as_str).and_then(|t| t.parse::<i64>().ok());
            // One that was given for less does not do.
            if ttl.and_then(|t| u64::try_from(t).ok()).is_some_and(|t| t >= seconds) {
                return Ok(id);
            }
        }
        let answer = self.post("/v3/lease/grant", &json!({ "TTL": seconds.to_string() }), until)?;
        let id = answer.get("ID").and_then(Value::as_str).ok_or_else(|| wrong("etcd gave no lease"))?;
        self.leases.insert(ve, id.to_owned());
        Ok(id.to_owned())
    }

    /// One try. `None`: somebody else changed the VE meanwhile.
    fn try_once(&mut self, request: &Request, until: Instant) -> Result<Option<Reply>, ArbiterError> {
        let ve = request.ve();
        let (record, lease) = self.read(ve, until)?;
        let before = match record.revision {
            0 => None,
            _ => Some(codec::decode::<Record>(&record.value).map_err(|e| wrong(format!("the VE's record: {e}")))?),
        };
        let leased = lease.revision != 0;
        let (next, change) = match decide(before, leased, request) {
            Ok(decided) => decided,
            Err(why) => return Ok(Some(Reply::Refused(why, before.unwrap_or_default()))),
        };
        if let Request::Read { .. } = request {
            return Ok(Some(Reply::Record(next, leased)));
        }
        let (record_key, lease_key) = (self.key(ve, "record"), self.key(ve, "lease"));
        let mut writes = vec![];
        // What is said about lagging is written even where it stands there: what the owner had said before, and what is still under way, is compared
        // with a revision that is gone then.
        if before != Some(next) || matches!(request, Request::Lagging { .. }) {
            let value = encode64(&codec::encode(&next));
            writes.push(json!({ "requestPut": { "key": record_key, "value": value } }));
        }
        let leased = match change {
            LeaseChange::Keep => leased,
            LeaseChange::End => {
                writes.push(json!({ "requestDeleteRange": { "key": lease_key } }));
                false
            }
            LeaseChange::Run(ms) => {
                let id = self.lease(ve, &lease, ms, until)?;
                if lease.lease.as_ref() != Some(&id) {
                    writes.push(json!({ "requestPut": { "key": lease_key, "value": "", "lease": id } }));
                }
                true
            }
        };
        // Even where nothing is written: that the lease's key is still there, and the record still the owner's, is what the answer says.
        let same = |key: &str, entry: &Entry| json!({ "key": key, "target": "MOD", "result": "EQUAL", "modRevision": entry.revision.to_string() });
        let compare = [same(&record_key, &record), same(&lease_key, &lease)];
        let answer = self.post("/v3/kv/txn", &json!({ "compare": compare, "success": writes }), until)?;
        let done = answer.get("succeeded").and_then(Value::as_bool).unwrap_or(false);
        Ok(done.then_some(Reply::Record(next, leased)))
    }
}

impl<H: Http> Arbiter for Etcd<H> {
    fn ask(&mut self, request: &Request, timeout: Duration) -> Result<Reply, ArbiterError> {
        let until = Instant::now() + timeout;
        for _ in 0..TRIES_MAX {
            if let Some(reply) = self.try_once(request, until)? {
                return Ok(reply);
            }
        }
        Err(wrong("others change the VE's record all the time"))
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 (RFC 4648, section 4).
pub fn encode64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let n = group.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = ALPHABET[(n >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= group.len() { digit as char } else { '=' });
        }
    }
    out
}

/// The bytes; `None` for what is no base64.
pub fn decode64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.len() - text.iter().rev().take(2).filter(|c| **c == b'=').count();
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for group in text[..digits].chunks(4) {
        let mut n = 0u32;
        for c in group {
            n = n << 6 | ALPHABET.iter().position(|a| a == c)? as u32;
        }
        n <<= 6 * (4 - group.len());
        out.extend_from_slice(&n.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}
