//! How many handshakes of peers there are at a time: in all, with one address, and with one network, so that whoever has one of these and begins
//! handshakes that never end leaves room for others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Handshakes at a time.
const ALL: usize = 64;
/// With one address.
const EACH: usize = 16;
/// With one network of IPv6, of whose addresses everybody in it may take as many as he likes.
const NETWORK: usize = 32;

/// Those that are under way, by address.
#[derive(Default)]
pub(super) struct Handshakes(Mutex<HashMap<IpAddr, usize>>);

/// What is to become of a connection that comes in.
pub(super) enum Begun {
    /// The handshake may begin.
    Turn(Turn),
    /// The address has to show first that it can be answered (RFC 9000, 8.1.2): nothing is kept for it until then.
    Retry,
    /// There are too many.
    Busy,
}

/// A handshake that is under way for as long as this lives.
pub(super) struct Turn {
    all: Arc<Handshakes>,
    from: IpAddr,
}

impl Handshakes {
    /// Begins one. `known`: the address has shown that it can be answered. In a flood it must have: anybody can write another's address on
    /// a packet, so half of everything is left to those that did.
    pub fn begin(self: &Arc<Self>, from: IpAddr, known: bool) -> Begun {
        let from = from.to_canonical();
        let mut counts = self.0.lock();
        let sum = |of: &dyn Fn(&IpAddr) -> bool| counts.iter().filter(|(ip, _)| of(ip)).map(|(_, n)| n).sum::<usize>();
        let (all, each) = (sum(&|_| true), sum(&|ip| *ip == from));
        if all >= ALL || each >= EACH || sum(&|ip| network(*ip) == network(from)) >= NETWORK {
            return Begun::Busy;
        }
        if !known && (all >= ALL / 2 || each >= EACH / 2) {
            return Begun::Retry;
        }
        *counts.entry(from).or_default() += 1;
        Begun::Turn(Turn { all: self.clone(), from })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock();
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

/// What an address belongs to: itself for IPv4, or the 64 bits of its network (RFC 4291, 2.5.4).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => std::net::Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(all: &Arc<Handshakes>, from: &str, known: bool) -> (Vec<Turn>, bool) {
        let mut turns = vec![];
        loop {
            match all.begin(from.parse().unwrap(), known) {
                Begun::Turn(turn) => turns.push(turn),
                Begun::Retry => return (turns, true),
                Begun::Busy => return (turns, false),
            }
        }
    }

    /// One address with 64 handshakes that it never ended let nobody else in (checks G29).
    #[test]
    fn an_address_takes_its_share_and_no_more() {
        let all: Arc<Handshakes> = Arc::default();
        let (first, retry) = turns(&all, "10.0.0.1", false);
        assert!(retry && first.len() == EACH / 2, "a forged address leaves room for the true one");
        let (second, retry) = turns(&all, "10.0.0.1", true);
        assert!(!retry && first.len() + second.len() == EACH);
        let other = turns(&all, "::ffff:10.0.0.2", true).0;
        assert_eq!(other.len(), EACH);
        assert!(matches!(all.begin("10.0.0.3".parse().unwrap(), false), Begun::Retry), "half of all are taken");
        assert_eq!(turns(&all, "2001:db8::1", true).0.len(), EACH);
        drop((first, second, other));
        assert!(all.0.lock().is_empty(), "the last ones ended with their turns");
        let near: Vec<_> = (1..=3).map(|n| turns(&all, &format!("2001:db8::{n}"), true).0).collect();
        assert_eq!(near.iter().map(Vec::len).collect::<Vec<_>>(), [EACH, EACH, 0], "the same network");
        assert!(matches!(all.begin("2001:db8:0:1::1".parse().unwrap(), true), Begun::Turn(_)));
    }

    #[test]
    fn all_together_are_bounded() {
        let all: Arc<Handshakes> = Arc::default();
        let taken: Vec<_> = (1..=9).map(|n| turns(&all, &format!("10.0.0.{n}"), true).0).collect();
        assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), ALL);
        assert!(matches!(all.begin("10.0.1.1".parse().unwrap(), true), Begun::Busy));
    }
}
