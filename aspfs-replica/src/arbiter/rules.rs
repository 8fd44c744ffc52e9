//! What an arbiter says to a request, given its record: pure, and the same for every kind of arbiter.
//!
//! Invariants: a record's epoch never falls; another node gets an epoch only when the owner's lease has ended or a person said that the owner
//! is off, and, unless a person insists, only while the VE does not lag; only the owner changes anything else.

use super::{Record, Refused, Request};
use crate::node::NodeId;
use vefs::ids::Epoch;

/// What becomes of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// Nothing.
    Keep,
    /// It runs for so many milliseconds from now on.
    Run(u64),
    /// It ends.
    End,
}

/// What a request does. `leased`: whether the owner's lease runs.
pub fn decide(record: Option<Record>, leased: bool, request: &Request) -> Result<(Record, LeaseChange), Refused> {
    let now = record.unwrap_or_default();
    let owned = |node: NodeId, epoch: Epoch| {
        let is = record.is_some() && now.owner == node && now.epoch == epoch;
        if is { Ok(()) } else { Err(Refused::Superseded) }
    };
    match *request {
        Request::Read { .. } => Ok((now, LeaseChange::Keep)),
        Request::Propose { node, expected, epoch, forced, .. } => {
            if now.epoch != expected {
                return Err(Refused::Superseded);
            }
            if epoch <= expected {
                return Err(Refused::NotAbove);
            }
            // A writer that restarts keeps its lease; so does one that asks again after its answer was lost.
            if record.is_none() || now.owner == node {
                return Ok((Record { epoch, owner: node, ..now }, LeaseChange::Keep));
            }
            if leased && now.off != Some((now.owner, now.epoch)) {
                return Err(Refused::LeaseRuns);
            }
            if now.lagging.is_some() && !forced {
                return Err(Refused::Lags);
            }
            Ok((Record { epoch, owner: node, lagging: None, off: None }, LeaseChange::End))
        }
        Request::HandOver { node, expected, to, epoch, .. } => {
            owned(node, expected)?;
            let next = Record { epoch, owner: to, lagging: None, off: None };
            if epoch > expected { Ok((next, LeaseChange::End)) } else { Err(Refused::NotAbove) }
        }
        Request::Lease { node, epoch, ttl_ms, .. } => {
            owned(node, epoch)?;
            Ok((now, LeaseChange::Run(ttl_ms)))
        }
        Request::Release { node, epoch, .. } => {
            owned(node, epoch)?;
            Ok((now, LeaseChange::End))
        }
        Request::Lagging { node, epoch, number, .. } => {
            owned(node, epoch)?;
            Ok((Record { lagging: number, ..now }, LeaseChange::Keep))
        }
        Request::Off { node, epoch, .. } => {
            owned(node, epoch)?;
            Ok((Record { off: Some((node, epoch)), ..now }, LeaseChange::Keep))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vefs::ids::VeId;

    const VE: VeId = VeId(1);
    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);

    fn propose(node: NodeId, expected: u64, epoch: u64) -> Request {
        Request::Propose { ve: VE, node, expected: Epoch(expected), epoch: Epoch(epoch), forced: false }
    }

    /// Each way in which another node may not have an epoch, by name (checks G16, G18).
    #[test]
    fn an_epoch_is_not_given_twice() {
        let (record, change) = decide(None, false, &propose(A, 0, 5)).unwrap();
        assert_eq!((record.owner, record.epoch, change), (A, Epoch(5), LeaseChange::Keep));
        let r = Some(record);
        assert_eq!(decide(r, false, &propose(B, 0, 5)), Err(Refused::Superseded));
        assert_eq!(decide(r, false, &propose(B, 5, 5)), Err(Refused::NotAbove));
        assert_eq!(decide(r, true, &propose(B, 5, 6)), Err(Refused::LeaseRuns));
        assert_eq!(decide(r, true, &propose(A, 5, 6)).unwrap().0.epoch, Epoch(6), "the owner restarts");
        let lags = Request::Lagging { ve: VE, node: A, epoch: Epoch(5), number: Some(3) };
        let (lagging, _) = decide(r, true, &lags).unwrap();
        assert_eq!(decide(Some(lagging), false, &propose(B, 5, 6)), Err(Refused::Lags));
        let forced = Request::Propose { ve: VE, node: B, expected: Epoch(5), epoch: Epoch(6), forced: true };
        let (taken, change) = decide(Some(lagging), false, &forced).unwrap();
        assert_eq!((taken, change), (Record { epoch: Epoch(6), owner: B, lagging: None, off: None }, LeaseChange::End));
        assert_eq!(decide(Some(taken), true, &lags), Err(Refused::Superseded));
    }

    /// A statement is about one node in one epoch, and falls with it (checks G18).
    #[test]
    fn a_statement_is_about_one_epoch() {
        let (record, _) = decide(None, false, &propose(A, 0, 5)).unwrap();
        let off = |node, epoch| Request::Off { ve: VE, node, epoch: Epoch(epoch) };
        assert_eq!(decide(Some(record), true, &off(A, 4)), Err(Refused::Superseded));
        assert_eq!(decide(Some(record), true, &off(B, 5)), Err(Refused::Superseded));
        let (stated, _) = decide(Some(record), true, &off(A, 5)).unwrap();
        // It came back and restarted: the statement is about what was before.
        let (again, _) = decide(Some(stated), true, &propose(A, 5, 6)).unwrap();
        assert_eq!(decide(Some(again), true, &propose(B, 6, 7)), Err(Refused::LeaseRuns));
        assert_eq!(decide(Some(stated), true, &propose(B, 5, 7)).unwrap().0.owner, B);
    }
}
