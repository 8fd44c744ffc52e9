//! What went over the network to and from each peer, over all its connections since the transport started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::ConnectionStats;

use crate::node::NodeId;

/// A number for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Both {
    /// From this node.
    pub sent: u64,
    /// To this node.
    pub received: u64,
}

/// What went to and from a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Which peer.
    pub peer: NodeId,
    /// Whether there is a connection that this node dialled.
    pub dialled: bool,
    /// Whether there is one that the peer dialled.
    pub dialled_by: bool,
    /// Frames of VEs, whole ones.
    pub frames: Both,
    /// Requests and answers.
    pub blobs: Both,
    /// Bytes of frames, requests and answers with their lengths: what QUIC was given, and what it gave.
    pub payload: Both,
    /// Bytes of UDP payloads: headers, acknowledgements, repetitions and node lists included. What IP and UDP add is not in it.
    pub udp: Both,
    /// UDP datagrams.
    pub datagrams: Both,
    /// Packets that were sent and held to be lost.
    pub lost: u64,
    /// Round trip on a live connection.
    pub round_trip: Option<Duration>,
}

/// Counters of one peer.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub frames_sent: AtomicU64,
    pub frames_received: AtomicU64,
    pub blobs_sent: AtomicU64,
    pub blobs_received: AtomicU64,
    pub payload_sent: AtomicU64,
    pub payload_received: AtomicU64,
    /// Of connections that are no more.
    udp: [AtomicU64; 5],
}

pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn udp(stats: &ConnectionStats) -> [u64; 5] {
    let (tx, rx) = (stats.udp_tx, stats.udp_rx);
    [tx.bytes, rx.bytes, tx.datagrams, rx.datagrams, stats.path.lost_packets]
}

impl Traffic {
    /// Keeps what QUIC counted of a connection that has ended.
    pub fn keep(&self, stats: &ConnectionStats) {
        self.udp.iter().zip(udp(stats)).for_each(|(counter, n)| add(counter, n));
    }

    /// The counters, with those of the live connections.
    pub fn read(&self, peer: NodeId, live: &[ConnectionStats]) -> PeerStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let both = |sent: &AtomicU64, received: &AtomicU64| Both { sent: get(sent), received: get(received) };
        let mut all: [u64; 5] = std::array::from_fn(|i| get(&self.udp[i]));
        for stats in live {
            all.iter_mut().zip(udp(stats)).for_each(|(sum, n)| *sum += n);
        }
        PeerStats {
            peer,
            frames: both(&self.frames_sent, &self.frames_received),
            blobs: both(&self.blobs_sent, &self.blobs_received),
            payload: both(&self.payload_sent, &self.payload_received),
            udp: Both { sent: all[0], received: all[1] },
            datagrams: Both { sent: all[2], received: all[3] },
            lost: all[4],
            round_trip: live.iter().map(|s| s.path.rtt).min(),
            ..PeerStats::default()
        }
    }
}
