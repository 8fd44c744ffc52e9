//! A node whose replicas are not there.

use std::sync::Arc;

use vefs::Ve;
use vefs::change::{Need, Policy, ReplicaOf};
use vefs::ids::Position;

use super::{Writers, bed};
use crate::catchup::Source;
use crate::local::LocalSource;
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
