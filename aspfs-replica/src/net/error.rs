//! What a caller of the transport is told.

use std::io;

use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::refusal::{Refusal, STOPPED};
use crate::node::NodeId;
use crate::wire::WireError;

/// Why something over the network was not done.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The socket could not be had.
    #[error("cannot listen: {0}")]
    Listen(io::Error),
    /// TLS does not take what it was configured with.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// This node itself.
    #[error("this node does not dial itself")]
    Own,
    /// The node list has no address of the node.
    #[error("no address of node {0} is known")]
    NoAddress(NodeId),
    /// No address of the node answers.
    #[error("node {node} cannot be reached: {tries}")]
    Unreachable {
        /// Which node.
        node: NodeId,
        /// What was tried, and how it ended.
        tries: String,
    },
    /// This side does not speak to the peer.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The peer does not speak to this side.
    #[error("refused by the peer: {0}")]
    RefusedByPeer(Refusal),
    /// The connection is lost.
    #[error("connection lost: {0}")]
    Lost(String),
    /// This side or the peer stopped.
    #[error("connection closed")]
    Closed,
    /// The peer broke the stream off, or it ended inside something.
    #[error("the stream was broken off")]
    BrokenOff,
    /// This side has ended the stream.
    #[error("the stream has ended on this side")]
    Ended,
    /// The peer sent something that is no frame. The connection was closed.
    #[error("malformed frame: {0}")]
    Frame(#[from] WireError),
    /// Longer than agreed.
    #[error("{len} bytes, at most {max} are agreed")]
    Long {
        /// Bytes there are.
        len: usize,
        /// The bound.
        max: usize,
    },
}

/// What a TLS alert stands for, if the code of a closed connection is one (RFC 9001, 4.8).
fn alert(code: quinn::TransportErrorCode) -> Option<Refusal> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then(|| Refusal::from_alert(code as u8))
}

impl From<ConnectionError> for NetError {
    fn from(e: ConnectionError) -> NetError {
        match &e {
            ConnectionError::LocallyClosed => NetError::Closed,
            ConnectionError::ApplicationClosed(close) if close.error_code == STOPPED => NetError::Closed,
            ConnectionError::ApplicationClosed(close) => match Refusal::from_code(close.error_code.into_inner()) {
                Some(why) => NetError::RefusedByPeer(why),
                None => NetError::Lost(format!("closed by the peer with code {}", close.error_code)),
            },
            ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
                Some(why) => NetError::RefusedByPeer(why),
                None if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED => {
                    NetError::RefusedByPeer(Refusal::Busy)
                }
                None => NetError::Lost(e.to_string()),
            },
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(why) => NetError::Refused(why),
                None => NetError::Lost(e.to_string()),
            },
            _ => NetError::Lost(e.to_string()),
        }
    }
}

impl From<ReadError> for NetError {
    fn from(e: ReadError) -> NetError {
        match e {
            ReadError::ConnectionLost(e) => e.into(),
            _ => NetError::BrokenOff,
        }
    }
}

impl From<WriteError> for NetError {
    fn from(e: WriteError) -> NetError {
        match e {
            WriteError::ConnectionLost(e) => e.into(),
            WriteError::Stopped(_) => NetError::BrokenOff,
            _ => NetError::Ended,
        }
    }
}

/// The code and the text with which a connection is closed.
pub(super) fn close(connection: &quinn::Connection, why: Option<Refusal>) {
    match why {
        Some(why) => connection.close(why.code(), why.name().as_bytes()),
        None => connection.close(VarInt::from_u32(0), b""),
    }
}
