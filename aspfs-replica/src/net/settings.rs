//! What the transport is set to: QUIC's numbers, each with its reason, and the bounds of what a peer may send.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::error::NetError;

/// Unread bytes of one stream that its sender may have under way.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same of all streams of a connection. It is many times a stream's, so that VEs whose receivers wait for the disk do not stop the
/// others: 13 of them leave room. (The window is opened again by eighths, so its last eighth does not count.) It is also what one peer
/// can make this side hold in memory.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Bytes sent and not acknowledged that a connection holds.
const SEND_WINDOW: u64 = 16 << 20;
/// Streams that a peer may open on a connection that it was dialled on: it has nothing to send there but its node list.
const LIST_STREAMS: u32 = 8;
/// Smallest size of UDP payload that every path carries (RFC 9000, 14).
pub(super) const MTU_MIN: u16 = 1200;
/// Largest: above, ten segments pass the 64 KiB of one call of the kernel.
pub(super) const MTU_MAX: u16 = 6500;

/// Settings of a transport. The defaults are for nodes on a network of 1500 bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest request in bytes that is read from a peer and sent to one.
    pub request_max: usize,
    /// Longest single answer in bytes, likewise.
    pub answer_max: usize,
    /// Requests of one peer that are carried out at a time; further ones wait in the network.
    pub requests_at_once: usize,
    /// Streams that one peer may have open: two for each VE that it ships here, and its requests.
    pub streams_max: u32,
    /// Largest UDP payload that is tried: 1452 for Ethernet, up to 6500 where all nodes have jumbo frames.
    pub mtu: u16,
    /// After so long without a packet a connection is lost. A fifth of it is the keep-alive.
    pub idle: Duration,
    /// How long a handshake may take, and the exchange of lists, and how long a stream may be silent at its start.
    pub patience: Duration,
    /// How often connections are looked through for certificates that have expired.
    pub expiry_check: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            request_max: 1 << 20,
            answer_max: 8 << 20,
            requests_at_once: 64,
            streams_max: 8192,
            mtu: 1452,
            idle: Duration::from_secs(5),
            patience: Duration::from_secs(10),
            expiry_check: Duration::from_secs(60),
        }
    }
}

impl Settings {
    /// QUIC's part for connections that a peer dialled, or that this side dialled.
    pub(super) fn transport(&self, incoming: bool) -> Result<Arc<TransportConfig>, NetError> {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.mtu.clamp(MTU_MIN, MTU_MAX));
        let streams = if incoming { self.streams_max } else { LIST_STREAMS };
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_idle_timeout(Some(self.idle.try_into().map_err(|e| NetError::Tls(format!("idle time: {e}")))?))
            .keep_alive_interval(Some(self.idle / 5))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .send_window(SEND_WINDOW)
            .send_fairness(true)
            .mtu_discovery_config(Some(mtu))
            .datagram_receive_buffer_size(None)
            .congestion_controller_factory(Arc::new(CubicConfig::default()));
        Ok(Arc::new(config))
    }

    pub(super) fn endpoint(&self) -> Result<EndpointConfig, NetError> {
        let mut config = EndpointConfig::default();
        let largest = self.mtu.clamp(1472, MTU_MAX);
        config.max_udp_payload_size(largest).map_err(|e| NetError::Tls(format!("packet size: {e}")))?;
        Ok(config)
    }
}
