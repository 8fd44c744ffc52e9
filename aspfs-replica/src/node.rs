//! Who takes part: the identity of a node, and of the cluster it belongs to.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

/// Identity of a node in its cluster, drawn once. Whether a peer is who it says is the transport's matter: by the time a
/// message reaches a room of this crate, its sender has been authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId(pub [u8; 16]);

/// Identity of a cluster, drawn once, when its first node is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ClusterId(pub [u8; 16]);

/// An identity that is not exactly 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an identity is 32 lower-case hex digits")]
pub struct ParseNodeError;

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NodeId(self.0).fmt(f)
    }
}

impl FromStr for NodeId {
    type Err = ParseNodeError;

    fn from_str(s: &str) -> Result<NodeId, ParseNodeError> {
        let digits = s.as_bytes();
        if digits.len() != 32 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseNodeError);
        }
        u128::from_str_radix(s, 16).map(|n| NodeId(n.to_be_bytes())).map_err(|_| ParseNodeError)
    }
}

impl FromStr for ClusterId {
    type Err = ParseNodeError;

    fn from_str(s: &str) -> Result<ClusterId, ParseNodeError> {
        s.parse::<NodeId>().map(|n| ClusterId(n.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let id = NodeId(std::array::from_fn(|i| i as u8 * 16));
        assert_eq!(id.to_string(), "00102030405060708090a0b0c0d0e0f0");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "0", "+0102030405060708090a0b0c0d0e0f0", "00102030405060708090A0B0C0D0E0F0"] {
            assert_eq!(bad.parse::<NodeId>(), Err(ParseNodeError), "{bad}");
            assert_eq!(bad.parse::<ClusterId>(), Err(ParseNodeError), "{bad}");
        }
    }
}
