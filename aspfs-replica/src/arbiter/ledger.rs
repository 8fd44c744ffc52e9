//! An arbiter as a machine: for clusters that have one node to spare for it, and for simulation. Records are durable before an answer goes
//! out; leases are not, so that after a restart every lease may still run, for as long as the longest that was ever given.

use std::collections::BTreeMap;
use std::time::Duration;

use vefs::ids::VeId;

use super::rules::{LeaseChange, decide};
use super::{Record, Reply, Request};

/// Longest lease, in milliseconds: what a restart waits.
pub const TTL_MAX_MS: u64 = 60_000;

/// Where records are kept.
pub trait Records {
    /// The record of a VE.
    fn get(&self, ve: VeId) -> Option<Record>;
    /// Replaces it, durably.
    fn put(&mut self, ve: VeId, record: &Record) -> Result<(), String>;
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Ledger {
    started: Duration,
    leases: BTreeMap<VeId, Duration>,
}

impl Ledger {
    /// It starts now.
    pub fn new(now: Duration) -> Ledger {
        Ledger { started: now, leases: BTreeMap::new() }
    }

    /// Whether a lease of the VE may run.
    pub fn leased(&self, ve: VeId, now: Duration) -> bool {
        let unknown = self.started + Duration::from_millis(TTL_MAX_MS);
        now < self.leases.get(&ve).copied().unwrap_or(unknown)
    }

    /// Answers. An error means that nothing was done, or that it is not known.
    pub fn step(&mut self, records: &mut dyn Records, request: &Request, now: Duration) -> Result<Reply, String> {
        let ve = request.ve();
        let record = records.get(ve);
        match decide(record, record.is_some() && self.leased(ve, now), request) {
            Err(why) => Ok(Reply::Refused(why, record.unwrap_or_default())),
            Ok((next, change)) => {
                if record != Some(next) && !matches!(request, Request::Read { .. }) {
                    records.put(ve, &next)?;
                }
                let until = match change {
                    LeaseChange::Keep => None,
                    LeaseChange::Run(ms) => Some(now + Duration::from_millis(ms.min(TTL_MAX_MS))),
                    LeaseChange::End => Some(now),
                };
                if let Some(until) = until {
                    self.leases.insert(ve, until);
                }
                Ok(Reply::Record(next, self.leased(ve, now)))
            }
        }
    }
}
