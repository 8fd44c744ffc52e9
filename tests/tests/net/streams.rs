//! Frames, requests, connections: what peers do that mean well.

use aspfs_replica::net::{NetError, Refusal};
use aspfs_replica::wire::{HEADER_LEN, Message};
use tokio::time::timeout;

use crate::bed::{Bed, LONG, frame, large, next, run, settings, until};

#[test]
fn frames_go_both_ways() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        let (mut writer, mut reader) = peer.open().await.unwrap();
        for n in 0..100 {
            writer.send(frame(&Message::Ping(n))).await.unwrap();
        }
        writer.send(large(200_000)).await.unwrap();
        writer.finish().await.unwrap();
        let (from, mut back, mut there) = two.stream().await;
        assert_eq!((from, there.peer()), (one.id(), one.id()));
        for n in 0..100 {
            assert_eq!(next(&mut there).await.unwrap(), Some(Message::Ping(n)));
            back.send(frame(&Message::Pong(n))).await.unwrap();
        }
        assert!(matches!(next(&mut there).await.unwrap(), Some(Message::Records(r)) if r[0].len() == 200_001));
        assert_eq!(next(&mut there).await.unwrap(), None);
        back.finish().await.unwrap();
        for n in 0..100 {
            assert_eq!(next(&mut reader).await.unwrap(), Some(Message::Pong(n)));
        }
        assert_eq!(next(&mut reader).await.unwrap(), None);
    });
}

/// What went there is what came here, and the network's own bytes are more.
#[test]
fn bytes_are_counted() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        let (mut writer, _reader) = peer.open().await.unwrap();
        writer.send(large(100_000)).await.unwrap();
        writer.send(frame(&Message::Ping(1))).await.unwrap();
        let (_, _back, mut there) = two.stream().await;
        next(&mut there).await.unwrap();
        next(&mut there).await.unwrap();
        let (sent, received) = (one.stats(two.id()), two.stats(one.id()));
        let bytes = 1 + (large(100_000).len() + HEADER_LEN + frame(&Message::Ping(1)).len() - HEADER_LEN) as u64;
        assert_eq!((sent.payload.sent, sent.frames.sent), (bytes, 2));
        assert_eq!((received.payload.received, received.frames.received), (bytes, 2));
        assert!(sent.udp.sent > bytes && received.udp.received > bytes, "{sent:?} {received:?}");
        assert!(sent.dialled && !sent.dialled_by && received.dialled_by && !received.dialled);
        // They are kept when the connection is gone.
        peer.close();
        until("forgotten", || !one.stats(two.id()).dialled).await;
        let after = one.stats(two.id());
        assert!(after.udp.sent >= sent.udp.sent && after.payload == sent.payload, "{after:?}");
        assert_eq!(after.round_trip, None);
    });
}

/// A stream of bulk is opened when a session begins, and the first bulk may come hours later. What the stream is stayed here until then, and the peer, which
/// had heard of the stream all the same, gave up on it after its patience: the first large write cost the session.
#[test]
fn bulk_may_be_late() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        let mut writer = peer.open_bulk().await.unwrap();
        tokio::time::sleep(settings().patience + settings().patience / 4).await;
        assert_eq!(two.refused(Refusal::Slow), 0);
        writer.send(frame(&Message::BulkPing)).await.unwrap();
        let mut there = two.bulk().await;
        assert_eq!(next(&mut there).await.unwrap(), Some(Message::BulkPing));
        assert!(peer.is_live());
    });
}

#[test]
fn a_request_has_many_answers() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        let mut answers = peer.request("what is there?").await.unwrap();
        let (from, request, mut writer) = two.request().await;
        assert_eq!((from, &request[..]), (one.id(), &b"what is there?"[..]));
        writer.send("this").await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), "this");
        writer.send("").await.unwrap();
        writer.send(vec![9; 1 << 20]).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), "");
        assert_eq!(answers.next().await.unwrap().unwrap(), vec![9; 1 << 20]);
        assert_eq!(answers.next().await.unwrap(), None);
        // None at all is an answer too.
        let mut answers = peer.request("").await.unwrap();
        let (_, request, writer) = two.request().await;
        assert_eq!(request, "");
        writer.finish().await.unwrap();
        assert_eq!(answers.next().await.unwrap(), None);
    });
}

/// A part is never taken for the whole (checks G9).
#[test]
fn what_is_broken_off_is_no_end() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        let mut answers = peer.request("x").await.unwrap();
        let (.., mut writer) = two.request().await;
        writer.send("first").await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), "first");
        drop(writer);
        assert!(matches!(answers.next().await, Err(NetError::BrokenOff)));
        let (mut writer, _reader) = peer.open().await.unwrap();
        writer.send(frame(&Message::Ping(1))).await.unwrap();
        let (_, _back, mut there) = two.stream().await;
        next(&mut there).await.unwrap();
        drop(writer);
        assert!(matches!(next(&mut there).await, Err(NetError::BrokenOff)));
        assert!(peer.is_live(), "a stream is not the connection");
    });
}

/// Whoever answers hears that nobody listens any more.
#[test]
fn answers_that_nobody_wants_stop() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        drop(peer.request("x").await.unwrap());
        let (.., mut writer) = two.request().await;
        let stopped = async { while writer.send(vec![0; 100_000]).await.is_ok() {} };
        timeout(LONG / 2, stopped).await.unwrap();
        assert!(peer.is_live());
    });
}

#[test]
fn lengths_are_agreed_on() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        let long = vec![0; settings().request_max + 1];
        assert!(matches!(peer.request(long.clone()).await, Err(NetError::Long { .. })));
        let mut answers = peer.request(long[1..].to_vec()).await.unwrap();
        let (_, request, mut writer) = two.request().await;
        assert_eq!(request.len(), settings().request_max);
        assert!(matches!(writer.send(vec![0; settings().answer_max + 1]).await, Err(NetError::Long { .. })));
        let (sent, got) = tokio::join!(writer.send(vec![0; settings().answer_max]), answers.next());
        sent.unwrap();
        assert_eq!(got.unwrap().unwrap().len(), settings().answer_max);
    });
}

#[test]
fn there_is_one_connection_to_a_peer() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let together = [one.net.clone(), one.net.clone(), one.net.clone()].map(|net| {
            let id = two.id();
            tokio::spawn(async move { net.connect(id).await })
        });
        for peer in together {
            peer.await.unwrap().unwrap();
        }
        let count = |n: usize| two.net.stats().iter().filter(|s| s.dialled_by).count() == n;
        assert!(count(1));
        assert_eq!(two.net.refusals(), [], "no second one was dropped");
        // The other direction is another connection, and neither minds the other.
        let back = two.net.connect(one.id()).await.unwrap();
        let peer = one.net.connect(two.id()).await.unwrap();
        assert!(one.stats(two.id()).dialled && one.stats(two.id()).dialled_by);
        back.close();
        until("gone", || !one.stats(two.id()).dialled_by).await;
        assert!(peer.is_live());
        // After its end there is a new one.
        peer.close();
        assert!(matches!(peer.closed().await, NetError::Closed));
        assert!(matches!(peer.open().await, Err(NetError::Closed)));
        one.net.connect(two.id()).await.unwrap().open().await.unwrap();
    });
}

#[test]
fn nobody_dials_himself_or_a_stranger() {
    run(async {
        let bed = Bed::new();
        let one = bed.init();
        assert!(matches!(one.net.connect(one.id()).await, Err(NetError::Own)));
        let nobody = Default::default();
        assert!(matches!(one.net.connect(nobody).await, Err(NetError::NoAddress(n)) if n == nobody));
        one.cluster.add_node(&"two".parse().unwrap(), &[]).unwrap();
        let two = one.cluster.list().list.find("two").unwrap().id;
        assert!(matches!(one.net.connect(two).await, Err(NetError::NoAddress(_))));
    });
}

/// Of several addresses the one that answers is taken, and where none does, all are named.
#[test]
fn addresses_are_tried_in_turn() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let right = two.net.local_addr().to_string();
        // Bound, and silent.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let wrong = silent.local_addr().unwrap().to_string();
        let addresses = [wrong.parse().unwrap(), "localhost.invalid:9".parse().unwrap(), right.parse().unwrap()];
        one.cluster.set_addresses("two", &addresses).unwrap();
        one.net.connect(two.id()).await.unwrap().close();
        one.cluster.set_addresses("two", &addresses[..2]).unwrap();
        match one.net.connect(two.id()).await {
            Err(NetError::Unreachable { node, tries }) => {
                assert_eq!(node, two.id());
                assert!(tries.contains(&wrong) && tries.contains("localhost.invalid:9"), "{tries}");
            }
            other => panic!("{other:?}"),
        }
    });
}

/// A node that listens on all addresses of both families is dialled by either, and dials either. Says nothing where there is no IPv6.
#[test]
fn both_families() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("no IPv6 here: not tested");
        return;
    }
    run(async {
        let bed = Bed::new();
        let one = bed.init_on("[::]:0");
        let two = bed.add(&one, "two");
        let port = one.net.local_addr().port();
        for host in ["127.0.0.1", "[::1]"] {
            one.cluster.set_addresses("one", &[format!("{host}:{port}").parse().unwrap()]).unwrap();
            let three = bed.add_on(&one, &format!("by-{port}-{}", host.len()), "[::]:0");
            three.net.connect(one.id()).await.unwrap();
        }
        // Its list has only IPv4 for two, whose socket is of that family alone.
        one.net.connect(two.id()).await.unwrap();
        assert!(two.net.connect(one.id()).await.is_err(), "a socket for IPv4 cannot dial IPv6");
    });
}

#[test]
fn a_peer_that_stops_says_so() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        let (_writer, mut reader) = peer.open().await.unwrap();
        two.net.stop().await;
        assert!(matches!(next(&mut reader).await, Err(NetError::Closed)));
        assert!(matches!(peer.closed().await, NetError::Closed));
        assert!(matches!(two.net.connect(one.id()).await, Err(NetError::Closed)));
        match one.net.connect(two.id()).await {
            Err(NetError::RefusedByPeer(Refusal::Busy) | NetError::Unreachable { .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

/// A peer whose process is gone without a word is missed after the idle time; one that comes back is not mistaken for it.
#[test]
fn silence_is_noticed() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        // A runtime that no longer runs sends nothing.
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let three = {
            let _entered = other.enter();
            bed.add(&one, "three")
        };
        let peer = one.net.connect(three.id()).await.unwrap();
        other.shutdown_background();
        match peer.closed().await {
            NetError::Lost(why) => assert!(why.contains("timed out"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(one.net.connect(two.id()).await.unwrap().is_live());
        std::mem::forget(three);
    });
}

/// What a call gives at once; it is dropped when it would wait.
async fn moment<T>(call: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = call => Some(done),
        () = tokio::task::yield_now() => None,
    }
}

/// Readers and writers in a `select!` lose nothing and send nothing twice.
#[test]
fn calls_may_be_dropped() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let peer = one.net.connect(two.id()).await.unwrap();
        let (mut writer, _reader) = peer.open().await.unwrap();
        const FRAMES: usize = 200;
        let sending = tokio::spawn(async move {
            for n in 0..FRAMES {
                let unit = if n % 2 == 0 { large(100_000 + n) } else { frame(&Message::Ping(n as u64)) };
                if moment(writer.send(unit)).await.is_none() {
                    while moment(writer.flush()).await.is_none() {}
                }
            }
            writer.finish().await.unwrap();
        });
        let (_, _back, mut there) = two.stream().await;
        let mut dropped = 0;
        for n in 0..FRAMES {
            let message = loop {
                match moment(there.next()).await {
                    Some(next) => break next.unwrap().unwrap().1,
                    None => dropped += 1,
                }
            };
            match message {
                Message::Records(r) => assert_eq!((n % 2, r[0].len()), (0, 100_001 + n)),
                other => assert_eq!(other, Message::Ping(n as u64)),
            }
        }
        assert_eq!(next(&mut there).await.unwrap(), None);
        sending.await.unwrap();
        assert!(dropped > FRAMES / 10, "only {dropped} calls were dropped, which says little");
    });
}
