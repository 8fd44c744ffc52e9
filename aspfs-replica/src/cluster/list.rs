//! The node list: which nodes a cluster has, where they listen, which certificates they may show, and who is revoked. It is signed
//! by the cluster's authority, and of two lists the one with the higher serial number is right. See `docs/format/cluster.md`.
//!
//! A list from anywhere is taken apart in this order: header, checksum, signature, encoding, fields. So nothing is decoded that the
//! authority did not write, and nothing is allocated on the word of a header that does not check out (promise G29).

use std::collections::HashSet;

use bincode::{Decode, Encode};
use vefs::codec::{self, CodecError};
use vefs::ids::Hash;
use vefs::limits::COUNTER_MAX;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::names::{Address, Name};
use crate::node::{ClusterId, NodeId};

/// `ANOD`.
pub const MAGIC: [u8; 4] = *b"ANOD";
/// The one format of node lists.
pub const FORMAT: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 20;
/// Most nodes of a cluster, the revoked ones included whose certificates have not expired.
pub const NODES_MAX: usize = 1024;
/// Most addresses of a node.
pub const ADDRESSES_MAX: usize = 8;
/// Certificates of a node that are accepted at a time: the newest one and the one before it.
pub const CERTIFICATES_MAX: usize = 2;
/// Longest signed list in bytes. The longest list that the other limits allow is shorter.
pub const LIST_MAX: usize = 4 << 20;
/// Longest signature in bytes: two numbers of 33 bytes in DER.
const SIGNATURE_MAX: usize = 72;
/// What is signed begins with this, so that the signature of a list is none of a certificate, whose first byte is another.
const DOMAIN: &[u8] = b"aspfs node list\0";

/// A certificate that was issued to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Issued {
    /// BLAKE3 of the certificate's DER.
    pub fingerprint: Hash,
    /// Last second of its validity, since 1970.
    pub not_after: u64,
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Node {
    /// Its identity, for life.
    pub id: NodeId,
    /// Its name. No two nodes have the same, unless one of them is revoked.
    pub name: Name,
    /// Where it listens, to be tried in this order; at most [`ADDRESSES_MAX`]. A node without any dials the others and is not dialled.
    pub addresses: Vec<Address>,
    /// What it may show: 1 to [`CERTIFICATES_MAX`], the newest last.
    pub certificates: Vec<Issued>,
    /// Whether it was thrown out, for ever.
    pub revoked: bool,
}

impl Node {
    /// Last second, since 1970, in which it can show a certificate.
    pub fn not_after(&self) -> u64 {
        self.certificates.iter().map(|c| c.not_after).max().unwrap_or(0)
    }
}

/// The nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeList {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: Name,
    /// Grows by one with each change, from 1.
    pub serial: u64,
    /// In the order in which they were added.
    pub nodes: Vec<Node>,
}

/// A list with its signature, which was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What it says.
    pub list: NodeList,
    /// The bytes that are stored and sent.
    pub bytes: Vec<u8>,
}

/// Why bytes are not a node list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// More or fewer bytes than the header says, or than a header has.
    #[error("{got} bytes where {need} are needed")]
    Length {
        /// Bytes there are.
        got: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Something else.
    #[error("magic bytes do not match")]
    Magic,
    /// A damaged header.
    #[error("the header's checksum does not match")]
    HeaderChecksum,
    /// Damage behind it.
    #[error("the checksum of list and signature does not match")]
    BodyChecksum,
    /// Another program's format.
    #[error("node list of format {found}, this program knows {FORMAT}")]
    Format {
        /// The number met.
        found: u16,
    },
    /// Not signed by the cluster's authority.
    #[error("the signature is not that of the cluster's authority")]
    Signature,
    /// A list of another cluster, signed by the authority of this one.
    #[error("it is a list of cluster {0}")]
    Cluster(ClusterId),
    /// A field is out of its range.
    #[error("field {0} is out of range")]
    Field(&'static str),
    /// Not the encoding of a list.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    format: U16,
    signature_len: U16,
    header_crc: U32,
    body_crc: U32,
    body_len: U32,
}

const _: () = assert!(size_of::<Raw>() == HEADER_LEN);

/// A signed list taken apart: the encoding and the signature. Neither was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The encoded list.
    pub body: &'a [u8],
    /// The signature, in DER.
    pub signature: &'a [u8],
}

/// Puts a list and a signature together.
pub fn join(parts: Parts<'_>) -> Vec<u8> {
    let rest = [parts.body, parts.signature].concat();
    let mut raw = Raw {
        magic: MAGIC,
        format: FORMAT.into(),
        signature_len: (parts.signature.len() as u16).into(),
        header_crc: 0.into(),
        body_crc: crc32fast::hash(&rest).into(),
        body_len: (parts.body.len() as u32).into(),
    };
    raw.header_crc = crc32fast::hash(raw.as_bytes()).into();
    [raw.as_bytes(), &rest].concat()
}

/// Takes a list apart, by header and checksums.
pub fn split(bytes: &[u8]) -> Result<Parts<'_>, ListError> {
    let Ok((mut raw, rest)) = Raw::read_from_prefix(bytes) else {
        return Err(ListError::Length { got: bytes.len(), need: HEADER_LEN });
    };
    if raw.magic != MAGIC {
        return Err(ListError::Magic);
    }
    let want = std::mem::replace(&mut raw.header_crc, 0.into());
    if crc32fast::hash(raw.as_bytes()) != want.get() {
        return Err(ListError::HeaderChecksum);
    }
    if raw.format.get() != FORMAT {
        return Err(ListError::Format { found: raw.format.get() });
    }
    let (body_len, signature_len) = (raw.body_len.get() as usize, usize::from(raw.signature_len.get()));
    if signature_len == 0 || signature_len > SIGNATURE_MAX {
        return Err(ListError::Field("length of the signature"));
    }
    if body_len > LIST_MAX - HEADER_LEN - SIGNATURE_MAX {
        return Err(ListError::Field("length of the list"));
    }
    if rest.len() != body_len + signature_len {
        return Err(ListError::Length { got: bytes.len(), need: HEADER_LEN + body_len + signature_len });
    }
    if crc32fast::hash(rest) != raw.body_crc.get() {
        return Err(ListError::BodyChecksum);
    }
    let (body, signature) = rest.split_at(body_len);
    Ok(Parts { body, signature })
}

/// What the authority signs of a list.
pub fn signed_message(body: &[u8]) -> Vec<u8> {
    [DOMAIN, &MAGIC, &FORMAT.to_le_bytes(), body].concat()
}

impl NodeList {
    /// Its encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads an encoding, and checks every field.
    pub fn decode(body: &[u8]) -> Result<NodeList, ListError> {
        let list: NodeList = codec::decode(body)?;
        match list.fault() {
            Some(field) => Err(ListError::Field(field)),
            None => Ok(list),
        }
    }

    /// The first field that is out of its range.
    fn fault(&self) -> Option<&'static str> {
        if !self.name.is_valid() {
            return Some("name of the cluster");
        }
        if self.serial == 0 || self.serial > COUNTER_MAX {
            return Some("serial number");
        }
        if self.nodes.len() > NODES_MAX {
            return Some("number of nodes");
        }
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        for node in &self.nodes {
            if !ids.insert(node.id) {
                return Some("identity of a node");
            }
            if !node.name.is_valid() || !(node.revoked || names.insert(&node.name)) {
                return Some("name of a node");
            }
            if node.addresses.len() > ADDRESSES_MAX || !node.addresses.iter().all(Address::is_valid) {
                return Some("addresses");
            }
            let dates = node.certificates.iter().all(|c| c.not_after <= COUNTER_MAX);
            if !(1..=CERTIFICATES_MAX).contains(&node.certificates.len()) || !dates {
                return Some("certificates");
            }
        }
        None
    }

    /// The node of an identity, revoked or not.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|n| n.id == id)
    }

    /// The node of a name that is not revoked, or of an identity in 32 hex digits, revoked or not.
    pub fn find(&self, which: &str) -> Option<&Node> {
        let named = self.nodes.iter().find(|n| !n.revoked && n.name.as_str() == which);
        named.or_else(|| which.parse().ok().and_then(|id| self.node(id)))
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
