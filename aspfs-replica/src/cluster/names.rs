//! Words that a person gives: names of clusters and nodes, and addresses. A value of these types is well-formed; one that was
//! decoded is checked by [`super::list`] before anybody sees it.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

/// Longest name in bytes.
pub const NAME_MAX: usize = 64;
/// Longest host name in bytes (RFC 1035, 2.3.4, less the root's dot and its length).
const HOST_MAX: usize = 253;

/// Name of a cluster or a node: 1 to 64 of a–z, 0–9, dot and hyphen, the first and the last a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Name(String);

/// Where a node listens: `host:port`. The host is a name, an IPv4 address, or an IPv6 address in brackets; the port is not 0.
/// It is looked up when it is dialled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Address(String);

/// Not a name or an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Not a name.
    #[error(
        "{0:?} is no name: 1 to {NAME_MAX} of a-z, 0-9, '.' and '-', the first and the last being a letter or a digit"
    )]
    Name(String),
    /// Not an address.
    #[error("{0:?} is no address: host:port is wanted, an IPv6 address in brackets, like [fd00::1]:7400")]
    Address(String),
}

/// What was given, cut for a message.
fn shown(s: &str) -> String {
    s.chars().take(80).collect()
}

impl Name {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_valid(&self) -> bool {
        let bytes = self.0.as_bytes();
        let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        bytes.len() <= NAME_MAX
            && bytes.first().is_some_and(alnum)
            && bytes.last().is_some_and(alnum)
            && bytes.iter().all(|b| alnum(b) || matches!(b, b'.' | b'-'))
    }
}

impl Address {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_valid(&self) -> bool {
        let Some((host, port)) = self.0.rsplit_once(':') else { return false };
        let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
        let port = digits && port.parse::<u16>().is_ok_and(|p| p != 0);
        let host = match host.strip_prefix('[') {
            Some(six) => six.strip_suffix(']').is_some_and(|a| (2..=45).contains(&a.len()) && a.bytes().all(is_six)),
            None => {
                !host.is_empty()
                    && host.len() <= HOST_MAX
                    && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
            }
        };
        port && host
    }
}

fn is_six(b: u8) -> bool {
    b.is_ascii_hexdigit() || matches!(b, b':' | b'.')
}

impl FromStr for Name {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Name, WordError> {
        let name = Name(s.to_owned());
        if name.is_valid() { Ok(name) } else { Err(WordError::Name(shown(s))) }
    }
}

impl FromStr for Address {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Address, WordError> {
        let address = Address(s.to_owned());
        if address.is_valid() { Ok(address) } else { Err(WordError::Address(shown(s))) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "a".repeat(NAME_MAX);
        for good in ["a", "7", "node-1.example.org", "x..y", &longest] {
            assert_eq!(good.parse::<Name>().unwrap().to_string(), good);
        }
        let long = "a".repeat(NAME_MAX + 1);
        for bad in ["", ".", "..", "-a", "a-", "A", "a b", "a/b", "a\n", "ä", &long] {
            assert_eq!(bad.parse::<Name>(), Err(WordError::Name(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        for good in ["10.0.0.1:7400", "node-1.example.org:1", "[fd00::1]:65535", "[::ffff:10.0.0.1]:7400", "N:9"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        let long = format!("{}:1", "a".repeat(HOST_MAX + 1));
        for bad in [
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:+1",
            "a:00001x",
            "a:123456",
            "fd00::1:7400",
            "[fd00::1]",
            "[fd00::1:5",
            "[]:5",
            "[g::]:5",
            "a b:1",
            "a/b:1",
            "a\n:1",
            &long,
        ] {
            assert!(matches!(bad.parse::<Address>(), Err(WordError::Address(_))), "{bad}");
        }
    }
}
