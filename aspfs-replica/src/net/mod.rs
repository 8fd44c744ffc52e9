//! `net`: frames, requests and node lists between nodes, over QUIC (RFC 9000) with TLS 1.3 on both sides. The only room of this crate with
//! sockets, and with tasks. What the bytes mean is said elsewhere: [`crate::wire`] for frames; for requests their owner.
//!
//! A **connection** belongs to the node that dialled it, which keeps one to each peer; two nodes that ship to each other have two. Only the
//! dialler opens streams of frames and requests on it. The first byte of a **stream** says what it is; see `docs/format/transport.md`.
//!
//! Invariants (promises G29 and G30):
//!
//! - Every peer has shown a certificate that [`crate::cluster`] takes, in every connection anew: nothing is resumed, nothing is sent
//!   before the handshake is complete. Who was dialled is who answers.
//! - A connection begins with the exchange of node lists. Before it nothing else is served; after it the peer is in the list.
//! - A peer that a new list does not have, or has as revoked, is cut off before [`crate::cluster::Cluster::revoke`] or `adopt` returns.
//! - A peer can make this node hold a bounded number of bytes: windows, streams, lengths and handshakes have limits ([`Settings`]), and
//!   room is made for what has come, not for what was announced.
//! - A stream that was not finished is an error at its reader, never an end.
//! - What is refused has a name ([`Refusal`]), is counted, and the peer is told.
//!
//! Waiting calls may be dropped at any time: readers lose nothing, and what a writer was given is sent once.
//!
//! ```
//! # use std::sync::Arc;
//! use aspfs_replica::cluster::Cluster;
//! use aspfs_replica::net::{AnswerWriter, FrameReader, FrameWriter, Handler, Settings, Transport};
//! use aspfs_replica::node::NodeId;
//! use aspfs_replica::wire::{self, Envelope, Message};
//! use bytes::Bytes;
//! # use vefs::clock::SystemClock;
//!
//! /// Answers pings, and repeats what it is asked.
//! struct Echo;
//!
//! impl Handler for Echo {
//!     async fn frames(&self, _from: NodeId, mut writer: FrameWriter, mut reader: FrameReader) {
//!         while let Ok(Some((envelope, message))) = reader.next().await {
//!             if let Message::Ping(n) = message {
//!                 let pong = wire::encode(&Message::Pong(n), envelope, false);
//!                 if writer.send(pong).await.is_err() {
//!                     return;
//!                 }
//!             }
//!         }
//!         let _ = writer.finish().await;
//!     }
//!
//!     async fn request(&self, _from: NodeId, request: Bytes, mut answers: AnswerWriter) {
//!         if answers.send(request).await.is_ok() {
//!             let _ = answers.finish().await;
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let top = tempfile::tempdir()?;
//! # let clock = Arc::new(SystemClock);
//! # let one = Cluster::init(&top.path().join("1"), &"c".parse()?, &"one".parse()?, &[], clock.clone())?;
//! # let bundle = one.add_node(&"two".parse()?, &[])?;
//! # let two = Arc::new(Cluster::join(&top.path().join("2"), &bundle, clock)?);
//! # let one = Arc::new(one);
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
//! let (here, any) = (runtime.handle(), "127.0.0.1:0".parse()?);
//! let listener = Transport::start(here, two.clone(), any, Arc::new(Echo), Settings::default())?;
//! one.set_addresses("two", &[listener.local_addr().to_string().parse()?])?;
//! let dialler = Transport::start(here, one, any, Arc::new(Echo), Settings::default())?;
//! runtime.block_on(async {
//!     let peer = dialler.connect(two.node()).await?;
//!     let (mut writer, mut reader) = peer.open().await?;
//!     writer.send(wire::encode(&Message::Ping(7), Envelope::default(), false)).await?;
//!     assert_eq!(reader.next().await?.map(|(_, m)| m), Some(Message::Pong(7)));
//!     let mut answers = peer.request("hello").await?;
//!     assert_eq!(answers.next().await?.as_deref(), Some(&b"hello"[..]));
//!     assert_eq!(answers.next().await?, None);
//!     dialler.stop().await;
//!     Ok(())
//! })
//! # }
//! ```

mod accept;
#[cfg(test)]
pub(crate) mod canned;
mod error;
mod frames;
mod handshakes;
mod http;
mod link;
mod lists;
mod refusal;
mod request;
mod settings;
mod shared;
mod socket;
mod stats;
mod stream;
mod tls;
mod transport;

/// The priority of what is small and must not wait behind the streams of VEs, whose priorities are below: acknowledgements, questions, answers to them.
pub const URGENT: i32 = 256;

pub use accept::Handler;
pub use error::NetError;
pub use frames::{FrameReader, FrameWriter};
pub use http::HttpClient;
pub use link::Peer;
pub use refusal::Refusal;
pub use request::{AnswerWriter, Answers};
pub use settings::Settings;
pub use stats::{Both, PeerStats};
pub use tls::ALPN;
pub use transport::Transport;
