//! A node whose replicas are not there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vefs::Ve;
use vefs::change::{Need, Policy, ReplicaOf};
use vefs::codec;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Position};

use super::{ArbiterSettings, NamedBy, Writers, bed};
use crate::arbiter::Record;
use crate::arbiter::etcd::encode64;
use crate::catchup::Source;
use crate::local::LocalSource;
use crate::net::canned;
use crate::node::NodeId;
use crate::window::State;

/// The VE is to have these replicas.
fn has(ve: &Arc<Ve>, replicas: &[(NodeId, Need)]) {
    let replica = |(node, need): &(NodeId, Need)| ReplicaOf { node: node.0, need: *need, bandwidth: 0 };
    ve.set_policy(Policy { replicas: replicas.iter().map(replica).collect(), ..Policy::default() }).unwrap();
    ve.commit().unwrap();
}

/// A replica that was offered a whole state, and lost power before it had any of it, counted as having everything at the next start, and at the next change
/// of the policy (checks G14, G16).
#[test]
fn a_state_that_is_offered_is_no_acknowledgement() {
    let node = bed::running(&Writers::default());
    let ve = bed::writer(&node.store, 7);
    let (b, c) = (NodeId([2; 16]), NodeId([3; 16]));
    has(&ve, &[(b, Need::Required)]);
    node.runtime.refresh(&ve).unwrap();
    let state = || node.runtime.figures(ve.id()).unwrap().led.unwrap().0.state;
    assert_eq!(state(), State::Lagging);
    let mut source = LocalSource::new(node.store.clone(), node.clock.clone(), Arc::default());
    source.snapshot(b, ve.id(), ve.identity().lineage, Position::default(), ve.epoch()).unwrap();
    node.runtime.forget(ve.id());
    node.runtime.refresh(&ve).unwrap();
    assert_eq!(state(), State::Lagging, "nothing is there after a start");
    has(&ve, &[(b, Need::Required), (c, Need::Optional)]);
    node.runtime.refresh(&ve).unwrap();
    assert_eq!(state(), State::Lagging, "nothing is there after another policy");
}

/// An etcd that has one answer to everything: another node has this epoch.
fn given_away(epoch: Epoch) -> String {
    let record = Record { epoch, owner: NodeId([2; 16]), ..Record::default() };
    let kv = format!(r#"{{"value":"{}","mod_revision":"1","lease":"0"}}"#, encode64(&codec::encode(&record)));
    let body = format!(r#"{{"responses":[{{"response_range":{{"kvs":[{kv}]}}}},{{"response_range":{{}}}}]}}"#);
    canned::serve(&body)
}

/// The arbiter gave the epoch to another node, which died before it wrote. The one that was fenced stayed a primary that may not write: it did not
/// follow, was never promoted by itself, and nobody wrote for ever (checks G18, G19).
#[test]
fn a_primary_whose_epoch_was_given_away_follows() {
    let epoch = Epoch(1).promoted().promoted();
    let servers = vec![given_away(epoch)];
    let settings = ArbiterSettings { servers, prefix: "/test".into(), lease: Duration::from_secs(3) };
    let node = bed::running(&Writers { by: NamedBy::Etcd(settings), ..Writers::default() });
    let ve = bed::writer(&node.store, 7);
    has(&ve, &[(NodeId([2; 16]), Need::Required)]);
    node.runtime.refresh(&ve).unwrap();
    let begin = Instant::now();
    while ve.is_writer() || node.runtime.figures(ve.id()).is_none_or(|f| f.followed.is_none()) {
        assert!(begin.elapsed() < Duration::from_secs(30), "it neither writes nor follows");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((ve.role().kind, ve.role().epoch), (RoleKind::Replica, epoch));
}

/// A policy was changed between the last look at what the replica had and the step-down: it was nowhere but here when the other node wrote.
#[test]
fn what_comes_while_a_ve_is_handed_over_is_not_lost() {
    let node = bed::running(&Writers::default());
    let ve = bed::writer(&node.store, 7);
    let b = NodeId([2; 16]);
    has(&ve, &[(b, Need::Required)]);
    node.runtime.refresh(&ve).unwrap();
    let inner = node.runtime.inner().clone();
    let led = inner.led.lock()[&ve.id()].clone();
    let drained = ve.durable_position();
    has(&ve, &[(b, Need::Optional)]);
    let refused =
        node.runtime.block_on(async { tokio::spawn(async move { inner.hand_over(&led, b, drained).await }).await });
    let refused = refused.unwrap().unwrap_err().to_string();
    assert!(refused.contains("nothing was handed over"), "{refused}");
    assert!(ve.is_writer() && ve.fenced().is_none() && node.runtime.figures(ve.id()).unwrap().led.is_some());
    assert_eq!(ve.policy().unwrap().replicas[0].need, Need::Optional);
}
