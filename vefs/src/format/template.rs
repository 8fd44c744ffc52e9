//! The file `templates/NAME.label`: a name for a base tree. A template exists from the moment this file is durable, until it
//! is gone. See `docs/format/template.md`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use super::sealed::{Prefix, open_whole, seal, sealed};
use crate::clock::Timestamp;
use crate::ids::Hash;
use crate::limits::{TEMPLATE_NAME_MAX, TEMPLATE_SOURCE_MAX};

/// Magic bytes of a label.
pub const MAGIC: [u8; 8] = *b"ASPFSTPL";
/// The one format of labels.
pub const FORMAT: u32 = 1;
/// Bytes of the file.
pub const LEN: usize = 704;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    prefix: Prefix,
    store: [u8; 16],
    root: [u8; 32],
    created_secs: U64,
    inodes: U64,
    bytes: U64,
    key_id: U64,
    cipher: U32,
    name_len: U16,
    source_len: U16,
    reserved: [u8; 24],
    name: [u8; TEMPLATE_NAME_MAX],
    source: [u8; TEMPLATE_SOURCE_MAX],
}

sealed!(Raw, MAGIC, FORMAT, LEN);

/// Whether this may be the name of a template: 1 to 64 bytes, the first one of `a-z0-9`, the others of `a-z0-9._-`.
pub fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= TEMPLATE_NAME_MAX
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
}

/// What a label says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The store it lies in.
    pub store: [u8; 16],
    /// The template's name, see [`is_name`].
    pub name: String,
    /// Root hash of its base tree.
    pub root: Hash,
    /// When it was made (seconds; a label).
    pub created: Timestamp,
    /// Inodes of the tree.
    pub inodes: u64,
    /// Bytes of its files, holes not counted.
    pub bytes: u64,
    /// Where it came from, in words; at most [`TEMPLATE_SOURCE_MAX`] bytes.
    pub source: String,
}

impl Label {
    /// The bytes of the file. A description that is too long is cut.
    ///
    /// # Errors
    /// `Field` for a name that may not be one.
    pub fn to_bytes(&self) -> Result<[u8; LEN], FormatError> {
        if !is_name(&self.name) {
            return Err(FormatError::Field("name"));
        }
        let source = &self.source[..self.source.floor_char_boundary(TEMPLATE_SOURCE_MAX)];
        Ok(seal(Raw {
            prefix: Prefix::new::<Raw>(),
            store: self.store,
            root: self.root.0,
            created_secs: self.created.secs.cast_unsigned().into(),
            inodes: self.inodes.into(),
            bytes: self.bytes.into(),
            key_id: 0.into(),
            cipher: 0.into(),
            name_len: (self.name.len() as u16).into(),
            source_len: (source.len() as u16).into(),
            reserved: [0; 24],
            name: padded(self.name.as_bytes()),
            source: padded(source.as_bytes()),
        }))
    }

    /// Checks and reads it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Label, FormatError> {
        let raw: Raw = open_whole(bytes)?;
        let name = text(&raw.name, raw.name_len).filter(|n| is_name(n)).ok_or(FormatError::Field("name"))?;
        let source = text(&raw.source, raw.source_len).ok_or(FormatError::Field("source"))?;
        Ok(Label {
            store: raw.store,
            name: name.to_owned(),
            root: Hash(raw.root),
            created: Timestamp { secs: raw.created_secs.get().cast_signed(), nanos: 0 },
            inodes: raw.inodes.get(),
            bytes: raw.bytes.get(),
            source: source.to_owned(),
        })
    }
}

/// The bytes with zeros behind them. What does not fit is cut.
pub(super) fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let len = bytes.len().min(N);
    out[..len].copy_from_slice(&bytes[..len]);
    out
}

/// The text of a field, if it is one, and nothing is behind it.
pub(super) fn text(field: &[u8], len: U16) -> Option<&str> {
    let (text, rest) = field.split_at_checked(usize::from(len.get()))?;
    if rest.iter().any(|b| *b != 0) {
        return None;
    }
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let longest = "a".repeat(64);
        for good in ["a", "0", "debian-12.7_x", &longest] {
            assert!(is_name(good), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", ".", "..", ".a", "-a", "_a", "A", "a/b", "a b", "ä", "a\0", &long] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    fn label(name: &str, source: String) -> Label {
        let created = Timestamp { secs: -5, nanos: 0 };
        Label { store: [1; 16], name: name.into(), root: Hash([2; 32]), created, inodes: 3, bytes: 4, source }
    }

    #[test]
    fn a_label_comes_back_and_a_long_description_is_cut() {
        let one = label("debian", "tar /srv/debian.tar".into());
        assert_eq!(Label::parse(&one.to_bytes().unwrap()), Ok(one));
        let long = label("debian", format!("x{}", "ä".repeat(300)));
        let back = Label::parse(&long.to_bytes().unwrap()).unwrap();
        assert_eq!(back.source, long.source[..511]);
        assert!(label("Debian", String::new()).to_bytes().is_err());
    }
}
