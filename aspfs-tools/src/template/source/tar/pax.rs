//! Extended headers (pax(1), "pax Extended Header"): records `LENGTH KEY=VALUE\n`. A value may hold any bytes, newlines included, so
//! that records are cut by their lengths only.

use std::collections::HashSet;

use vefs::clock::Timestamp;

/// Records in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Pax {
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Pax {
    /// Takes an extended header apart.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(mut bytes: &[u8]) -> Result<Pax, String> {
        let bad = || "an extended header in it is not valid".to_owned();
        let mut records = Vec::new();
        // Some writers pad with zeros.
        while bytes.first().is_some_and(|b| *b != 0) {
            let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
            let len = number(&bytes[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(bad)?;
            let (record, rest) = bytes.split_at_checked(len).ok_or_else(bad)?;
            let record = record.get(space + 1..).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(bad)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = rest;
        }
        Ok(Pax { records })
    }

    /// Adds records that come later, and so win. Those of sparse maps repeat, and only the newer header's count.
    pub fn update(&mut self, newer: Pax) {
        let keys: HashSet<&[u8]> = newer.records.iter().map(|(key, _)| &**key).collect();
        self.records.retain(|(key, _)| !keys.contains(&**key));
        self.records.extend(newer.records);
    }

    /// Bytes of all keys and values.
    pub fn len(&self) -> usize {
        self.records.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// All records.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The last value of a key. An empty one takes back what an earlier header said.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.records.iter().rev().find(|(k, _)| k == key)?;
        Some(&*found.1).filter(|value| !value.is_empty())
    }

    /// The member's name, if it is here. Of a sparse one the name proper is under a key of its own.
    pub fn path(&self) -> Option<&[u8]> {
        self.get(b"GNU.sparse.name").or_else(|| self.get(b"path"))
    }

    /// The last value of a key as a number.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self, key: &[u8]) -> Result<Option<u64>, String> {
        let parse =
            |value| number(value).ok_or_else(|| format!("its {} is not a number", String::from_utf8_lossy(key)));
        self.get(key).map(parse).transpose()
    }
}

/// A number in decimal digits.
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A time: seconds since 1970, perhaps negative, perhaps with a fraction. Beyond nanoseconds it is cut, towards the past.
///
/// # Errors
/// It is none.
pub fn time(text: &[u8]) -> Result<Timestamp, String> {
    let bad = || format!("its time {:?} is not a number", String::from_utf8_lossy(text));
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = digits.iter().position(|b| *b == b'.').unwrap_or(digits.len());
    let fraction = digits.get(point + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let secs = number(&digits[..point]).and_then(|n| i64::try_from(n).ok()).ok_or_else(bad)?;
    let digit = |i: usize| fraction.get(i).map_or(0, |b| u32::from(b - b'0'));
    let nanos = (0..9).fold(0, |n, i| n * 10 + digit(i));
    let below = fraction.iter().skip(9).any(|b| *b != b'0');
    Ok(match negative {
        false => Timestamp { secs, nanos },
        // The fraction of a Timestamp counts upwards.
        true => {
            let nanos = nanos + u32::from(below);
            match nanos {
                0 => Timestamp { secs: -secs, nanos: 0 },
                _ => Timestamp { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut len = body.len();
        while len != body.len() + len.to_string().len() {
            len = body.len() + len.to_string().len();
        }
        [len.to_string().as_bytes(), &body].concat()
    }

    /// A file capability has newlines in it as often as not: cutting at lines lost them.
    #[test]
    fn values_may_hold_newlines_and_zeros() {
        let value = b"\x01\n\x00\n=\n 12 a=b\n";
        let bytes = [record("SCHILY.xattr.security.capability", value), record("path", b"p")].concat();
        let pax = Pax::parse(&bytes).unwrap();
        assert_eq!(pax.get(b"SCHILY.xattr.security.capability"), Some(&value[..]));
        assert_eq!(pax.path(), Some(&b"p"[..]));
    }

    #[test]
    fn the_last_one_counts_and_an_empty_one_takes_back() {
        let mut pax = Pax::parse(&[record("uid", b"1"), record("uid", b"2"), record("mtime", b"5")].concat()).unwrap();
        assert_eq!(pax.number(b"uid"), Ok(Some(2)));
        pax.update(Pax::parse(&[record("uid", b""), record("gid", b"x")].concat()).unwrap());
        assert_eq!((pax.number(b"uid"), pax.get(b"mtime")), (Ok(None), Some(&b"5"[..])));
        assert!(pax.number(b"gid").is_err());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bad in
            [&b"x"[..], b"5 a=b\n", b"99 a=b\n", b"6 a=b ", b"6 abc\n", b"3 \n", b"0 a=b\n", b" a=b\n", b"+6 a=b\n"]
        {
            assert!(Pax::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(Pax::parse(b"").is_ok() && Pax::parse(b"6 a=b\n\0\0\0").is_ok());
    }

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        let at = |secs, nanos| Ok(Timestamp { secs, nanos });
        assert_eq!(time(b"17"), at(17, 0));
        assert_eq!(time(b"17.5"), at(17, 500_000_000));
        assert_eq!(time(b"17.0000000019"), at(17, 1));
        assert_eq!(time(b"-1.5"), at(-2, 500_000_000));
        assert_eq!(time(b"-0.0000000001"), at(-1, 999_999_999));
        assert_eq!(time(b"-3"), at(-3, 0));
        for bad in [&b""[..], b"-", b".5", b"1.x", b"1e5", b"99999999999999999999"] {
            assert!(time(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
