//! Who takes part: the identity of a node.

use std::fmt;

use bincode::{Decode, Encode};

/// Identity of a node in its cluster, drawn once. Whether a peer is who it says is the transport's matter: by the time a
/// message reaches a room of this crate, its sender has been authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId(pub [u8; 16]);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
