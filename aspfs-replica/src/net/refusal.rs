//! Why this side breaks with a peer, or does not speak to one: each reason has a name, a number on the wire, and is counted.
//!
//! The number is the error code with which a connection is closed (RFC 9000, 19.19), so that the other side can say the reason too. During
//! the handshake a TLS alert takes its place, which tells less. See `docs/format/transport.md`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use quinn::VarInt;

use crate::cluster::Fault;

/// Why a peer is not spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Its certificate is not taken.
    Certificate(Fault),
    /// It showed no certificate.
    NoCertificate,
    /// Another node than the one that was dialled.
    NotDialled,
    /// It does not speak this protocol.
    Protocol,
    /// The handshake failed in another way.
    Handshake,
    /// Too many handshakes at a time. A peer that is about to stop says the same.
    Busy,
    /// It was silent where it had to speak.
    Slow,
    /// What it sent as a node list is none, or is not signed by the authority.
    List,
    /// A stream of a kind that is not known, or that it may not open.
    StreamKind,
    /// What it sent as a frame is none.
    Frame,
    /// Something longer than agreed, or more than there should be.
    Length,
    /// It has a newer connection.
    Superseded,
}

/// Every reason, with its name in messages and metrics. The number of a reason is its place here, from 1: append only.
const ALL: [(Refusal, &str); 21] = [
    (Refusal::Certificate(Fault::Malformed), "malformed-certificate"),
    (Refusal::Certificate(Fault::WrongAuthority), "wrong-authority"),
    (Refusal::Certificate(Fault::Expired), "expired"),
    (Refusal::Certificate(Fault::NotYetValid), "not-yet-valid"),
    (Refusal::Certificate(Fault::Purpose), "wrong-purpose"),
    (Refusal::Certificate(Fault::NoIdentity), "no-identity"),
    (Refusal::Certificate(Fault::OtherCluster), "other-cluster"),
    (Refusal::Certificate(Fault::UnknownNode), "unknown-node"),
    (Refusal::Certificate(Fault::UnknownCertificate), "unknown-certificate"),
    (Refusal::Certificate(Fault::Revoked), "revoked"),
    (Refusal::NoCertificate, "no-certificate"),
    (Refusal::NotDialled, "not-dialled"),
    (Refusal::Protocol, "protocol"),
    (Refusal::Handshake, "handshake"),
    (Refusal::Busy, "busy"),
    (Refusal::Slow, "slow"),
    (Refusal::List, "list"),
    (Refusal::StreamKind, "stream-kind"),
    (Refusal::Frame, "frame"),
    (Refusal::Length, "length"),
    (Refusal::Superseded, "superseded"),
];

/// Code of a connection that ends because its owner stops.
pub(super) const STOPPED: VarInt = VarInt::from_u32(0);
/// Code with which a stream is broken off before its end.
pub(super) const ABANDONED: VarInt = VarInt::from_u32(1);

impl Refusal {
    fn index(self) -> usize {
        ALL.iter().position(|(r, _)| *r == self).unwrap_or(0)
    }

    /// Its name in messages and metrics.
    pub fn name(self) -> &'static str {
        ALL[self.index()].1
    }

    pub(super) fn code(self) -> VarInt {
        VarInt::from_u32(self.index() as u32 + 1)
    }

    pub(super) fn from_code(code: u64) -> Option<Refusal> {
        let index = usize::try_from(code).ok()?.checked_sub(1)?;
        ALL.get(index).map(|(r, _)| *r)
    }

    /// What a TLS alert (RFC 8446, 6.2) says of a handshake that failed.
    pub(super) fn from_alert(alert: u8) -> Refusal {
        match alert {
            42 => Refusal::Certificate(Fault::Malformed),
            43 => Refusal::Certificate(Fault::Purpose),
            44 => Refusal::Certificate(Fault::Revoked),
            45 => Refusal::Certificate(Fault::Expired),
            48 => Refusal::Certificate(Fault::WrongAuthority),
            49 => Refusal::NotDialled,
            116 => Refusal::NoCertificate,
            120 => Refusal::Protocol,
            _ => Refusal::Handshake,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Certificate(fault) => fault.fmt(f),
            Refusal::NoCertificate => f.write_str("no certificate was shown"),
            Refusal::NotDialled => f.write_str("another node answers there"),
            Refusal::Protocol => f.write_str("no protocol in common"),
            Refusal::Handshake => f.write_str("the handshake failed"),
            Refusal::Busy => f.write_str("too many handshakes at a time, or it is stopping"),
            Refusal::Slow => f.write_str("nothing came in time"),
            Refusal::List => f.write_str("a node list that is none, or not the authority's"),
            Refusal::StreamKind => f.write_str("a stream of an unknown kind"),
            Refusal::Frame => f.write_str("a malformed frame"),
            Refusal::Length => f.write_str("more bytes than agreed"),
            Refusal::Superseded => f.write_str("there is a newer connection"),
        }
    }
}

/// How often each reason was met.
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; ALL.len()]);

impl Counts {
    pub fn count(&self, why: Refusal) {
        self.0[why.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Those that were met.
    pub fn met(&self) -> Vec<(Refusal, u64)> {
        let all = ALL.iter().zip(&self.0).map(|((r, _), n)| (*r, n.load(Ordering::Relaxed)));
        all.filter(|(_, n)| *n > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_number_and_a_name_of_its_own() {
        let mut names: Vec<&str> = Vec::new();
        for (n, (why, name)) in ALL.iter().enumerate() {
            assert_eq!(why.code(), VarInt::from_u32(n as u32 + 1));
            assert_eq!(Refusal::from_code(n as u64 + 1), Some(*why));
            assert_eq!(why.name(), *name);
            assert!(!names.contains(name));
            names.push(name);
        }
        for unknown in [0, ALL.len() as u64 + 1, u64::MAX] {
            assert_eq!(Refusal::from_code(unknown), None);
        }
        let counts = Counts::default();
        counts.count(Refusal::Frame);
        counts.count(Refusal::Frame);
        assert_eq!(counts.met(), [(Refusal::Frame, 2)]);
    }
}
