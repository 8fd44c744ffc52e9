//! Who may speak, to whom, and until when (promise G30).

use std::time::Duration;

use aspfs_replica::cluster::Fault;
use aspfs_replica::net::{NetError, Refusal};
use aspfs_replica::wire::Message;

use crate::bed::{Bed, TestNode, frame, listens, next, refusal, refusal_by_peer, run, settings, until};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn certificate(fault: Fault) -> Refusal {
    Refusal::Certificate(fault)
}

/// Nodes of another cluster are refused by both sides, and each side says why (checks G30).
#[test]
fn another_cluster_is_another_cluster() {
    run(async {
        let (bed, elsewhere) = (Bed::new(), Bed::new());
        let (one, two) = bed.pair();
        let (stranger, other) = elsewhere.pair();
        // The stranger believes that its own second node is where ours listens.
        let address = two.net.local_addr().to_string().parse().unwrap();
        stranger.cluster.set_addresses("two", &[address]).unwrap();
        let wrong = certificate(Fault::WrongAuthority);
        assert_eq!(refusal(stranger.net.connect(other.id()).await), wrong);
        assert_eq!(stranger.refused(wrong), 1);
        assert_eq!(two.net.stats().len(), 0);
        assert!(one.net.connect(two.id()).await.is_ok());
    });
}

/// checks G30
#[test]
fn who_answers_is_who_was_dialled() {
    run(async {
        let bed = Bed::new();
        let (one, two, three) = bed.three();
        let address = three.net.local_addr().to_string().parse().unwrap();
        one.cluster.set_addresses("two", &[address]).unwrap();
        assert_eq!(refusal(one.net.connect(two.id()).await), Refusal::NotDialled);
        assert_eq!(one.refused(Refusal::NotDialled), 1);
        // One wrong address does not hide a right one.
        let right = two.net.local_addr().to_string().parse().unwrap();
        let wrong = three.net.local_addr().to_string().parse().unwrap();
        one.cluster.set_addresses("two", &[wrong, right]).unwrap();
        assert_eq!(one.net.connect(two.id()).await.unwrap().id(), two.id());
    });
}

/// A node that is revoked while it is connected is cut off on all its streams, in both directions, and can open none and connect no more
/// (checks G30).
#[test]
fn revoked_while_connected() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let revoked = certificate(Fault::Revoked);
        let there = one.net.connect(two.id()).await.unwrap();
        let back = two.net.connect(one.id()).await.unwrap();
        let (mut writer, mut reader) = back.open().await.unwrap();
        writer.send(frame(&Message::Ping(1))).await.unwrap();
        let (_, mut answer, mut incoming) = one.stream().await;
        next(&mut incoming).await.unwrap();
        let mut answers = back.request("x").await.unwrap();
        let (.., mut answering) = one.request().await;
        one.cluster.revoke("two").unwrap();
        // At once, on this side.
        assert!(!there.is_live());
        assert_eq!(refusal(answer.send(frame(&Message::Pong(1))).await), revoked);
        assert_eq!(refusal(next(&mut incoming).await), revoked);
        assert_eq!(refusal(answering.send("y").await), revoked);
        assert_eq!(refusal(there.open().await), revoked);
        assert!(matches!(there.closed().await, NetError::Refused(why) if why == revoked));
        assert_eq!(one.refused(revoked), 2, "both connections");
        // And the other side hears why.
        assert_eq!(refusal_by_peer(next(&mut reader).await), revoked);
        assert_eq!(refusal_by_peer(answers.next().await), revoked);
        assert_eq!(refusal_by_peer(back.open().await), revoked);
        assert_eq!(refusal_by_peer(two.net.connect(one.id()).await), revoked);
        assert_eq!(refusal(one.net.connect(two.id()).await), revoked);
        until("all gone", || one.net.stats().iter().all(|s| !s.dialled && !s.dialled_by)).await;
    });
}

/// A third node hears of a revocation from the one that it is connected with, and cuts the revoked node off (checks G30).
#[test]
fn a_revocation_spreads() {
    run(async {
        let bed = Bed::new();
        let (one, two, three) = bed.three();
        let peer = three.net.connect(two.id()).await.unwrap();
        let incoming = two.net.connect(three.id()).await.unwrap();
        let _link = one.net.connect(three.id()).await.unwrap();
        one.cluster.revoke("two").unwrap();
        let (a, b) = tokio::join!(peer.closed(), incoming.closed());
        let revoked = certificate(Fault::Revoked);
        assert!(matches!(a, NetError::Refused(why) if why == revoked), "{a:?}");
        assert!(matches!(b, NetError::RefusedByPeer(why) if why == revoked), "{b:?}");
        assert_eq!(refusal_by_peer(two.net.connect(three.id()).await), revoked);
    });
}

/// checks G30
#[test]
fn out_of_date() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        bed.clock.0.advance(5 * 365 * DAY + 2 * DAY);
        // A connection does not outlive the certificate that it was made with.
        let expired = certificate(Fault::Expired);
        match peer.closed().await {
            NetError::Refused(why) | NetError::RefusedByPeer(why) => assert_eq!(why, expired),
            other => panic!("{other:?}"),
        }
        assert_eq!(refusal(one.net.connect(two.id()).await), expired);
        // Two is renewed; now it is one whose certificate has expired.
        two.cluster.install(&one.cluster.renew("two").unwrap()).unwrap();
        assert_eq!(refusal_by_peer(one.net.connect(two.id()).await), expired);
        until("counted", || two.refused(expired) >= 1).await;
        one.cluster.renew_own().unwrap();
        one.net.connect(two.id()).await.unwrap();
    });
}

/// A certificate that nobody has heard of counts as soon as the list that has it arrives, which its own node may bring.
#[test]
fn a_renewed_node_brings_its_list() {
    run(async {
        let bed = Bed::new();
        let (one, two, three) = bed.three();
        two.cluster.install(&one.cluster.renew("two").unwrap()).unwrap();
        assert_eq!(
            three.cluster.standing(two.id(), &two.cluster.identity().fingerprint),
            Err(Fault::UnknownCertificate)
        );
        // Dialling and dialled.
        three.net.connect(two.id()).await.unwrap();
        assert!(three.agrees(&one) && two.agrees(&one));
        three.cluster.install(&one.cluster.renew("three").unwrap()).unwrap();
        three.net.connect(two.id()).await.unwrap().close();
        until("gone", || !three.stats(two.id()).dialled).await;
        three.net.connect(two.id()).await.unwrap();
        assert!(two.agrees(&one));
    });
}

/// A certificate that was withdrawn by two renewals ends its connections (checks G30).
#[test]
fn a_withdrawn_certificate_ends_its_connections() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        one.cluster.renew("two").unwrap();
        assert!(peer.is_live(), "the one before the newest is good");
        let bundle = one.cluster.renew("two").unwrap();
        let unknown = certificate(Fault::UnknownCertificate);
        assert!(matches!(peer.closed().await, NetError::Refused(why) if why == unknown));
        assert_eq!(refusal_by_peer(two.net.connect(one.id()).await), unknown);
        assert_eq!(refusal(one.net.connect(two.id()).await), unknown);
        two.cluster.install(&bundle).unwrap();
        one.net.connect(two.id()).await.unwrap();
        two.net.connect(one.id()).await.unwrap();
    });
}

/// The authority vouched for it once, but no list has it: an authority that was restored from a copy forgot it (checks G30).
#[test]
fn a_node_that_no_list_has_is_refused() {
    run(async {
        let bed = Bed::new();
        let dir = bed.dir();
        let first = bed.init_in(&dir);
        let two = TestNode::start(bed.joined(&first.add_node(&"two".parse().unwrap(), &[]).unwrap()), settings());
        drop(first);
        let copy = bed.dir();
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        let open = |dir: &std::path::Path| aspfs_replica::cluster::Cluster::open(dir, bed.clock.clone()).unwrap();
        let ghost = open(&copy).add_node(&"ghost".parse().unwrap(), &[]).unwrap();
        let ghost = TestNode::start(bed.joined(&ghost), settings());
        let one = TestNode::start(open(&dir), settings());
        listens(&one, &one);
        listens(&one, &two);
        two.cluster.adopt(&one.cluster.list().bytes).unwrap();
        // The ghost cannot learn addresses from a list of its own: it takes the newer one, in which it is not.
        ghost.cluster.adopt(&one.cluster.list().bytes).unwrap();
        let unknown = certificate(Fault::UnknownNode);
        for peer in [&one, &two] {
            assert_eq!(refusal_by_peer(ghost.net.connect(peer.id()).await), unknown);
            assert_eq!(peer.refused(unknown), 1);
            assert_eq!(peer.net.stats(), [], "it was never a peer");
        }
    });
}
