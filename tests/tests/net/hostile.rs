//! Peers that mean no good: each is refused by name, the name is counted, and everybody else is served as before (promises G29, G30).

use std::net::UdpSocket;
use std::time::Duration;

use aspfs_replica::cluster::{Cluster, Fault};
use aspfs_replica::net::{NetError, Refusal};
use aspfs_replica::wire::{self, Chunk, HEADER_LEN, Message, WireError};
use aspfs_tests::opgen::Rng;
use quinn::{Connection, ConnectionError, Endpoint};
use tokio::time::timeout;
use vefs::ids::{PayloadId, TxnNo};

use crate::bed::{Bed, LONG, TestNode, frame, large, next, run, settings, until};
use crate::raw::{self, Manner, blob, dial, endpoint, member, stream};

/// A node, and the membership of another one that the test speaks for.
async fn node_and_rogue(bed: &Bed) -> (TestNode, Cluster) {
    let one = bed.init();
    let rogue = bed.joined(&one.cluster.add_node(&"rogue".parse().unwrap(), &[]).unwrap());
    (one, rogue)
}

/// The code with which the connection is closed, and the name that comes with it.
async fn closed(connection: &Connection) -> String {
    match timeout(LONG / 2, connection.closed()).await.expect("it was not closed") {
        ConnectionError::ApplicationClosed(close) => String::from_utf8(close.reason.to_vec()).unwrap(),
        ConnectionError::ConnectionClosed(close) => close.error_code.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Everything as before for those who mean well.
async fn still_serves(bed: &Bed, one: &TestNode) {
    let name = format!("honest-{}", one.cluster.list().list.serial);
    let honest = bed.add(one, &name);
    let peer = honest.net.connect(one.id()).await.unwrap();
    let (mut writer, _reader) = peer.open().await.unwrap();
    writer.send(frame(&Message::Ping(1))).await.unwrap();
    let (_, _back, mut there) = one.stream().await;
    assert_eq!(next(&mut there).await.unwrap(), Some(Message::Ping(1)));
}

/// checks G30
#[test]
fn handshakes_that_are_refused() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let (at, from) = (one.net.local_addr(), endpoint());
        let other = Manner { alpn: b"h3", ..Manner::of(&rogue) };
        assert!(dial(&from, at, other).await.is_err());
        until("counted", || one.refused(Refusal::Protocol) == 1).await;
        let nobody = Manner { shows: None, ..Manner::of(&rogue) };
        let connection = dial(&from, at, nobody).await.unwrap();
        closed(&connection).await;
        until("counted", || one.refused(Refusal::NoCertificate) == 1).await;
        let elsewhere = Bed::new();
        let stranger = elsewhere.init_in(&elsewhere.dir());
        let connection = dial(&from, at, Manner::of(&stranger)).await.unwrap();
        closed(&connection).await;
        until("counted", || one.refused(Refusal::Certificate(Fault::WrongAuthority)) == 1).await;
        // Another's certificate without its key.
        let mut key = (*rogue.identity().certified).clone();
        key.cert = one.cluster.identity().certified.cert.clone();
        let thief = Manner { shows: Some(key.into()), ..Manner::of(&rogue) };
        closed(&dial(&from, at, thief).await.unwrap()).await;
        until("counted", || one.refused(Refusal::Handshake) == 1).await;
        assert_eq!(one.net.stats(), [], "nobody was ever a peer");
        still_serves(&bed, &one).await;
    });
}

/// checks G30
#[test]
fn nothing_before_the_lists() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let from = endpoint();
        for (bytes, name) in [
            (vec![1], "stream-kind"),
            (vec![2, 0, 0, 0, 0], "stream-kind"),
            (vec![0], "stream-kind"),
            ([&[3], &blob(b"no list")[..]].concat(), "list"),
            (vec![3, 0xff, 0xff, 0xff, 0xff], "length"),
            ([&[3], &blob(&rogue.list().bytes)[..], b"more"].concat(), "length"),
            ([&[3], &blob(&foreign_list())[..]].concat(), "list"),
            (vec![3, 100, 0, 0, 0, 1], "slow"),
        ] {
            let before = one.net.refusals().iter().map(|(_, n)| n).sum::<u64>();
            let connection = dial(&from, one.net.local_addr(), Manner::of(&rogue)).await.unwrap();
            let (mut send, _recv) = stream(&connection, &bytes).await;
            if name != "slow" {
                send.finish().unwrap();
            }
            assert_eq!(closed(&connection).await, name, "{bytes:?}");
            until("counted", || one.net.refusals().iter().map(|(_, n)| n).sum::<u64>() == before + 1).await;
        }
        // Or nothing at all.
        let connection = dial(&from, one.net.local_addr(), Manner::of(&rogue)).await.unwrap();
        assert_eq!(closed(&connection).await, "slow");
        assert_eq!(one.refused(Refusal::Slow), 2);
        assert_eq!(one.net.stats(), [], "it never was a peer");
        still_serves(&bed, &one).await;
    });
}

fn foreign_list() -> Vec<u8> {
    let bed = Bed::new();
    bed.init_in(&bed.dir()).list().bytes.clone()
}

/// What a member sends that no member sends costs it its connection (checks G29).
#[test]
fn streams_that_are_refused() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let (at, from) = (one.net.local_addr(), endpoint());
        let long = [&[2], &(settings().request_max as u32 + 1).to_le_bytes()[..]].concat();
        for (bytes, name) in [
            (vec![9], "stream-kind"),
            (vec![0], "stream-kind"),
            (long, "length"),
            (vec![2, 0xff, 0xff, 0xff, 0xff], "length"),
            ([&[2], &blob(b"request")[..], b"more"].concat(), "length"),
            ([&[3], &blob(b"no list")[..]].concat(), "list"),
            (vec![3, 0xff, 0xff, 0xff, 0xff], "length"),
        ] {
            let connection = member(&from, at, &rogue).await;
            let (mut send, _recv) = stream(&connection, &bytes).await;
            let _ = send.finish();
            assert_eq!(closed(&connection).await, name, "{bytes:?}");
        }
        let met: Vec<_> = one.net.refusals().into_iter().map(|(r, n)| (r.name(), n)).collect();
        assert_eq!(met, [("list", 1), ("stream-kind", 2), ("length", 4)]);
        still_serves(&bed, &one).await;
    });
}

/// Streams that are cut short or stay silent are no crime, and come to nothing.
#[test]
fn streams_without_a_word() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let connection = member(&endpoint(), one.net.local_addr(), &rogue).await;
        let (mut empty, _recv) = stream(&connection, &[]).await;
        empty.finish().unwrap();
        let (mut reset, _recv) = stream(&connection, &[2, 5]).await;
        reset.reset(7u32.into()).unwrap();
        let (mut short, mut recv) = stream(&connection, &[2, 5, 0, 0, 0, 1]).await;
        short.finish().unwrap();
        assert!(recv.read_to_end(10).await.is_err(), "no answer, and no end either");
        let silent = stream(&connection, &[2, 5, 0, 0, 0, 1]).await;
        until("given up", || one.refused(Refusal::Slow) == 1).await;
        assert!(connection.close_reason().is_none());
        drop(silent);
        still_serves(&bed, &one).await;
    });
}

/// Bytes that are no frame close the connection, and the reader is told which way they are not (checks G28, G29).
#[test]
fn frames_that_are_none() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let from = endpoint();
        let good = frame(&Message::Ping(1));
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let unknown = wire::frame_of(99, false, Default::default(), b"");
        let bad = wire::frame_of(10, false, Default::default(), b"no number");
        type Is = fn(&WireError) -> bool;
        let cases: [(Vec<u8>, Is); 5] = [
            (vec![7; HEADER_LEN], |e| matches!(e, WireError::Magic)),
            (flipped(20), |e| matches!(e, WireError::HeaderChecksum)),
            (flipped(HEADER_LEN), |e| matches!(e, WireError::BodyChecksum)),
            (unknown, |e| matches!(e, WireError::Kind(99))),
            (bad, |e| matches!(e, WireError::Codec(_))),
        ];
        let count = cases.len() as u64;
        for (bytes, is) in cases {
            let connection = member(&from, one.net.local_addr(), &rogue).await;
            let _stream = stream(&connection, &[&[1], &good[..], &bytes[..]].concat()).await;
            let (_, _writer, mut reader) = one.stream().await;
            assert_eq!(next(&mut reader).await.unwrap(), Some(Message::Ping(1)));
            match next(&mut reader).await {
                Err(NetError::Frame(e)) => assert!(is(&e), "{e}"),
                other => panic!("{other:?}"),
            }
            assert_eq!(closed(&connection).await, "frame");
        }
        assert_eq!(one.refused(Refusal::Frame), count);
        // One that ends in the middle is broken off.
        let connection = member(&from, one.net.local_addr(), &rogue).await;
        let (mut send, _recv) = stream(&connection, &[&[1], &good[..20]].concat()).await;
        send.finish().unwrap();
        let (_, _writer, mut reader) = one.stream().await;
        assert!(matches!(next(&mut reader).await, Err(NetError::BrokenOff)));
        still_serves(&bed, &one).await;
    });
}

/// Bulk comes on its own stream, and nothing else does: either way round the connection is closed (checks G29).
#[test]
fn frames_on_the_other_stream() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let from = endpoint();
        let id = PayloadId { txn: TxnNo(1), offset: 0 };
        let chunk = frame(&Message::Chunk(Chunk { id, total: 9, offset: 0, within: None, bytes: vec![7; 9] }));
        let (ping, bulk_ping) = (frame(&Message::Ping(1)), frame(&Message::BulkPing));
        for (kind, good, bad) in
            [(1, &ping, &chunk), (1, &ping, &bulk_ping), (4, &chunk, &ping), (4, &bulk_ping, &ping)]
        {
            let connection = member(&from, one.net.local_addr(), &rogue).await;
            let _stream = stream(&connection, &[&[kind], &good[..], &bad[..]].concat()).await;
            let mut reader = if kind == 4 { one.bulk().await } else { one.stream().await.2 };
            assert!(next(&mut reader).await.unwrap().is_some());
            assert!(matches!(next(&mut reader).await, Err(NetError::Frame(WireError::Stream(_)))));
            assert_eq!(closed(&connection).await, "frame");
        }
        assert_eq!(one.refused(Refusal::Frame), 4);
        still_serves(&bed, &one).await;
    });
}

/// A node that was dialled has nothing to open on that connection but its list (checks G30).
#[test]
fn who_was_dialled_opens_nothing() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let listener = raw::listen(&rogue);
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        one.cluster.set_addresses("rogue", &[address]).unwrap();
        for bytes in [&[1][..], &[2, 1, 0, 0, 0, 7][..]] {
            let serving = async {
                let connection = listener.accept().await.unwrap().await.unwrap();
                let (mut send, mut recv) = connection.accept_bi().await.unwrap();
                assert_eq!(recv.read_to_end(5 << 20).await.unwrap()[0], 3);
                send.write_all(&blob(b"")).await.unwrap();
                send.finish().unwrap();
                let _stream = stream(&connection, bytes).await;
                assert_eq!(closed(&connection).await, "stream-kind");
            };
            let (peer, ()) = tokio::join!(one.net.connect(rogue.node()), serving);
            assert!(matches!(peer.unwrap().closed().await, NetError::Refused(Refusal::StreamKind)));
        }
        // Its answer to our list has to be one, too.
        for (answer, why) in [
            (blob(b"no list"), Refusal::List),
            (blob(&foreign_list()), Refusal::List),
            (vec![0xff, 0xff, 0xff, 0xff], Refusal::Length),
        ] {
            let serving = async {
                let connection = listener.accept().await.unwrap().await.unwrap();
                let (mut send, mut recv) = connection.accept_bi().await.unwrap();
                recv.read_to_end(5 << 20).await.unwrap();
                send.write_all(&answer).await.unwrap();
                let _ = send.finish();
                assert_eq!(closed(&connection).await, why.name());
            };
            let (peer, ()) = tokio::join!(one.net.connect(rogue.node()), serving);
            assert!(matches!(peer, Err(NetError::Refused(r)) if r == why), "{peer:?}");
        }
    });
}

/// Of two connections of one node the newer stays: its process was restarted, and the older one does not know.
#[test]
fn the_newer_connection_stays() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let from = endpoint();
        let mut last = member(&from, one.net.local_addr(), &rogue).await;
        for _ in 0..10 {
            let newer = member(&from, one.net.local_addr(), &rogue).await;
            assert_eq!(closed(&last).await, "superseded");
            last = newer;
        }
        assert!(last.close_reason().is_none());
        until("only one", || one.net.stats().len() == 1).await;
    });
}

/// Handshakes that are begun and not ended are bounded, keep nobody out who has another address, and end by themselves (checks G29).
#[test]
fn a_flood_of_handshakes() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let from = endpoint();
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(dial(&from, one.net.local_addr(), Manner::of(&rogue)).await);
        }
        assert!(one.refused(Refusal::Busy) >= 100, "{:?}", one.net.refusals());
        let elsewhere = Endpoint::client("127.0.0.2:0".parse().unwrap()).unwrap();
        assert!(member(&elsewhere, one.net.local_addr(), &rogue).await.close_reason().is_none());
        until("they are given up", || one.refused(Refusal::Slow) >= 16).await;
        still_serves(&bed, &one).await;
        drop(silent);
    });
}

/// Datagrams of noise, and of noise that looks like QUIC.
#[test]
fn noise() {
    run(async {
        let bed = Bed::new();
        let (one, _rogue) = node_and_rogue(&bed).await;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut rng = Rng::new(1);
        for n in 0..20_000 {
            let len = rng.below(1472);
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
            if n % 2 == 0 && bytes.len() > 5 {
                bytes[0] |= 0xc0;
                bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
            }
            let _ = socket.send_to(&bytes, one.net.local_addr());
            if n % 1000 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        still_serves(&bed, &one).await;
    });
}

/// Headers that promise megabytes on a thousand streams make no room for them (checks G29).
#[test]
fn promises_take_no_room() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let connection = member(&endpoint(), one.net.local_addr(), &rogue).await;
        let longest = Message::bound(4).unwrap();
        assert!(longest > 8 << 20);
        let whole = wire::frame_of(4, false, Default::default(), &vec![0; longest]);
        let before = resident();
        let (mut streams, mut readers) = (Vec::new(), Vec::new());
        for _ in 0..1000 {
            streams.push(stream(&connection, &[&[1], &whole[..HEADER_LEN + 10]].concat()).await);
            let (_, _writer, mut reader) = one.stream().await;
            readers.push(tokio::spawn(async move { reader.next().await.map(|_| ()) }));
        }
        until("all are read", || one.stats(rogue.node()).udp.received > 60_000).await;
        let grown = resident().saturating_sub(before);
        assert!(grown < 500 << 20, "{grown} bytes for 1000 streams that promise {longest} each");
        connection.close(0u32.into(), b"");
        for reader in readers {
            assert!(reader.await.unwrap().is_err());
        }
    });
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// A member whose list exchange never ends does not hold up the others, nor its own frames.
#[test]
fn endless_lists() {
    run(async {
        let bed = Bed::new();
        let (one, rogue) = node_and_rogue(&bed).await;
        let connection = member(&endpoint(), one.net.local_addr(), &rogue).await;
        let mut open = Vec::new();
        for _ in 0..20 {
            open.push(stream(&connection, &[3, 0, 0, 1, 0]).await);
        }
        let _frames = stream(&connection, &[&[1], &large(1000)[..]].concat()).await;
        let (_, _writer, mut reader) = one.stream().await;
        assert!(matches!(next(&mut reader).await, Ok(Some(Message::Records(_)))));
        still_serves(&bed, &one).await;
        assert_eq!(closed(&connection).await, "slow");
    });
}
