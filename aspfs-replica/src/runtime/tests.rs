//! A node whose replicas are not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use vefs::Ve;
use vefs::change::{Need, Policy, ReplicaOf};
use vefs::codec;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Position};
use vefs::ve::Verdict;

use super::{ArbiterSettings, NamedBy, Writers, bed};
use crate::arbiter::Record;
use crate::arbiter::etcd::encode64;
use crate::catchup::Source;
use crate::local::LocalSource;
use crate::member::{No, Question, Reply};
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

/// A node whose VE had been given away, and whose mount lived, was promoted again: until it led the VE, programs wrote without anybody's promise, and what
/// they wrote counted as exposed nowhere (checks G14, G19).
#[test]
fn nobody_writes_before_the_ve_is_led() {
    let by = NamedBy::Replicas(Duration::from_secs(3));
    let node = bed::running(&Writers { by, ..Writers::default() });
    let ve = bed::writer(&node.store, 7);
    has(&ve, &[(NodeId([2; 16]), Need::Required)]);
    node.runtime.refresh(&ve).unwrap();
    let inner = node.runtime.inner().clone();
    for _ in 0..20 {
        ve.fence("given away");
        ve.step_down(RoleKind::Replica, ve.epoch()).unwrap();
        node.runtime.refresh(&ve).unwrap();
        let (epoch, done) = (ve.epoch().promoted(), AtomicBool::new(false));
        let went = std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                let mut went = false;
                while !done.load(Ordering::SeqCst) {
                    went |= ve.is_writer() && ve.admit(1) == Verdict::Go;
                }
                went
            });
            let (inner, ve) = (inner.clone(), ve.clone());
            let begun =
                async { tokio::spawn(async move { block_in_place(|| inner.begin_writing(&ve, epoch, None)) }).await };
            node.runtime.block_on(begun).unwrap().unwrap();
            done.store(true, Ordering::SeqCst);
            looks.join().unwrap()
        });
        assert!(!went);
        assert_eq!((ve.fenced(), ve.admit(1)), (None, Verdict::Wait), "nobody has promised anything");
    }
}

/// A VE without replicas is led by nobody: whoever is promoted lets its programs go on.
#[test]
fn a_ve_without_replicas_goes_on_after_a_promotion() {
    let node = bed::running(&Writers::default());
    let ve = bed::writer(&node.store, 7);
    ve.step_down(RoleKind::Replica, ve.epoch()).unwrap();
    let (inner, it, epoch) = (node.runtime.inner().clone(), ve.clone(), ve.epoch().promoted());
    let begun = async { tokio::spawn(async move { block_in_place(|| inner.begin_writing(&it, epoch, None)) }).await };
    node.runtime.block_on(begun).unwrap().unwrap();
    assert_eq!((ve.is_writer(), ve.is_followed(), ve.admit(1)), (true, false, Verdict::Go));
}

/// A node that lost its disk had forgotten its promises, and joined the next candidate while the primary wrote by one of them (checks G18, G19).
#[test]
fn a_node_that_knows_of_no_promise_waits_for_those_that_it_may_have_given() {
    let by = NamedBy::Replicas(Duration::from_secs(60));
    let node = bed::running(&Writers { by, ..Writers::default() });
    let (lineage, ve) = (vefs::ids::Lineage([5; 16]), vefs::ids::VeId(5));
    let ask = |from: u8, question| node.runtime.inner().answer_about_right((NodeId([from; 16]), ve, lineage), question);
    let refused = ask(3, Question::Join(Epoch(1 << 32)));
    assert!(matches!(refused, Reply::No(No::NotYet(ms)) if ms > 50_000), "{refused:?}");
    assert_eq!(
        ask(2, Question::Lease(Epoch(1), 60_000)),
        Reply::Done,
        "the primary's promise is none the later for it"
    );
}

/// A node was thrown out where nobody else had a VE in common with: only nodes that shipped or followed dialled each other, and the others went on with
/// whom they should have turned away, for ever (checks G30).
#[test]
fn the_node_list_reaches_nodes_that_share_no_ve() {
    let one = bed::running(&Writers::default());
    let list = one.runtime.cluster();
    let two = bed::joining(&list.add_node(&"two".parse().unwrap(), &[]).unwrap());
    let reaches = |what: &str| {
        let begin = Instant::now();
        while two.runtime.cluster().list() != list.list() {
            assert!(begin.elapsed() < Duration::from_secs(30), "{what} does not reach it");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let address = two.runtime.local_addr().unwrap().to_string();
    list.set_addresses("two", &[address.parse().unwrap()]).unwrap();
    reaches("its address");
    list.add_node(&"three".parse().unwrap(), &[]).unwrap();
    list.revoke("three").unwrap();
    reaches("a revocation");
}
