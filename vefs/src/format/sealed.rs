//! What the fixed headers of a store have in common: they begin with a [`Prefix`], their checksum covers all their bytes
//! with the checksum's own field zero, and they have fields for a cipher and a key.
//!
//! A reader looks at the magic first, then at the checksum, then at the format, then at cipher and key. So a flipped bit is
//! always damage, also one in the format's number, and an unknown format is always an honest one and can be named
//! (promise G28). This holds for formats to come as long as they keep the prefix, and the length that the checksum covers.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;

/// The first 16 bytes of a fixed header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Prefix {
    magic: [u8; 8],
    format: U32,
    crc: U32,
}

impl Prefix {
    /// Of a structure that is being put together; [`seal`] fills the checksum in.
    pub fn new<T: Sealed>() -> Prefix {
        Prefix { magic: T::MAGIC, format: T::FORMAT.into(), crc: 0.into() }
    }
}

/// A fixed header exactly as it is stored.
pub(super) trait Sealed: Copy + FromBytes + IntoBytes + Immutable + KnownLayout {
    /// Its magic bytes.
    const MAGIC: [u8; 8];
    /// The one format known.
    const FORMAT: u32;

    /// Where its prefix is.
    fn prefix(&mut self) -> &mut Prefix;

    /// Its cipher and key id; 0 and 0 in clear.
    fn cipher(&self) -> (u32, u64);
}

/// Makes a structure with the fields `prefix`, `cipher` and `key_id` a [`Sealed`] one of `len` bytes.
macro_rules! sealed {
    ($raw:ident, $magic:expr, $format:expr, $len:expr) => {
        const _: () = assert!(size_of::<$raw>() == $len);

        impl $crate::format::sealed::Sealed for $raw {
            const MAGIC: [u8; 8] = $magic;
            const FORMAT: u32 = $format;

            fn prefix(&mut self) -> &mut Prefix {
                &mut self.prefix
            }

            fn cipher(&self) -> (u32, u64) {
                (self.cipher.get(), self.key_id.get())
            }
        }
    };
}
pub(super) use sealed;

/// The bytes of a structure, checksum filled in. `N` is its size.
pub(super) fn seal<T: Sealed, const N: usize>(mut raw: T) -> [u8; N] {
    const { assert!(size_of::<T>() == N) };
    raw.prefix().crc = 0.into();
    raw.prefix().crc = crc32fast::hash(raw.as_bytes()).into();
    let mut out = [0; N];
    out.copy_from_slice(raw.as_bytes());
    out
}

/// Checks the structure at the start of `bytes`; what follows it is not looked at.
pub(super) fn open<T: Sealed>(bytes: &[u8]) -> Result<T, FormatError> {
    let short = FormatError::Short { got: bytes.len(), need: size_of::<T>() };
    let Ok((mut raw, _)) = T::read_from_prefix(bytes) else { return Err(short) };
    if raw.prefix().magic != T::MAGIC {
        return Err(FormatError::Magic);
    }
    let want = std::mem::replace(&mut raw.prefix().crc, 0.into());
    if crc32fast::hash(raw.as_bytes()) != want.get() {
        return Err(FormatError::Checksum);
    }
    let found = raw.prefix().format.get();
    if found != T::FORMAT {
        return Err(FormatError::Unknown { found, known: T::FORMAT });
    }
    match raw.cipher() {
        (0, 0) => Ok(raw),
        (cipher, key) => Err(FormatError::Cipher(cipher, key)),
    }
}

/// As [`open`], for a structure that is a file of its own: nothing may follow it.
pub(super) fn open_whole<T: Sealed>(bytes: &[u8]) -> Result<T, FormatError> {
    let raw = open(bytes)?;
    if bytes.len() == size_of::<T>() { Ok(raw) } else { Err(FormatError::Field("length")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::extent::ExtentHeader;
    use crate::format::identity::Identity;
    use crate::format::incoming::{Incoming, Manifest};
    use crate::format::note::{Kind, Note};
    use crate::format::role::{Role, RoleKind};
    use crate::format::segment::SegmentHeader;
    use crate::format::stack::{Part, Stack};
    use crate::format::superblock::Superblock;
    use crate::format::template::Label;
    use crate::ids::{Epoch, Hash, InodeNo, Lineage, Position, TxnNo, VeId};

    type Parse = fn(&[u8]) -> Option<FormatError>;

    fn all() -> [(&'static str, Vec<u8>, Parse); 9] {
        let (store, ve, lineage, epoch) = ([7; 16], VeId(3), Lineage([1; 16]), Epoch(1));
        let (root, created) = (Hash([2; 32]), Default::default());
        let segment = SegmentHeader { store, ve, incarnation: 1, order: 2, base: 3, first_seq: 4, capacity: 4096 };
        let identity = Identity { store, ve, lineage, base: root, epoch, slot: ve };
        let role = Role { store, ve, lineage, kind: RoleKind::Replica, epoch, fork: Default::default() };
        let at = Position { lineage, epoch, txn: TxnNo(5), chain: root };
        let next_ino = InodeNo(1 << 32);
        let manifest = Manifest { at, time: created, base: root, root, bytes: 6, inodes: 7, next_ino };
        let (name, source) = ("t".to_owned(), String::new());
        let part = Part { name: name.clone(), root };
        let label = Label { store, name, root, created, inodes: 8, bytes: 9, source };
        let note = Note { store, lineage, kind: Kind::Promises, body: vec![4; 40] };
        let stack = Stack { store, root, parts: vec![part.clone(), part] };
        [
            ("superblock", Superblock { store, created }.to_bytes().to_vec(), |b| Superblock::parse(b).err()),
            ("identity", identity.to_bytes().to_vec(), |b| Identity::parse(b).err()),
            ("role", role.to_bytes().to_vec(), |b| Role::parse(b).err()),
            ("incoming", Incoming { store, ve, slot: ve, manifest }.to_bytes().to_vec(), |b| Incoming::parse(b).err()),
            ("segment", segment.to_bytes().to_vec(), |b| SegmentHeader::parse(b).err()),
            ("extent file", ExtentHeader { store, ve, number: 9 }.to_bytes().to_vec(), |b| {
                ExtentHeader::parse(b).err()
            }),
            ("label", label.to_bytes().unwrap().to_vec(), |b| Label::parse(b).err()),
            ("note", note.to_bytes().unwrap().to_vec(), |b| Note::parse(b).err()),
            ("stack", stack.to_bytes().unwrap().to_vec(), |b| Stack::parse(b).err()),
        ]
    }

    fn reseal(bytes: &mut [u8]) {
        bytes[12..16].fill(0);
        let crc = crc32fast::hash(bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }

    /// A flipped bit is damage wherever it lies, in the format's number too (checks G24).
    #[test]
    fn every_flip_is_damage() {
        for (name, bytes, parse) in all() {
            assert_eq!(parse(&bytes), None, "{name}");
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let want = if bit < 64 { FormatError::Magic } else { FormatError::Checksum };
                assert_eq!(parse(&flipped), Some(want), "{name} bit {bit}");
            }
        }
    }

    /// An unknown format with a right checksum is named; so are a cipher and a key (checks G28).
    #[test]
    fn an_honest_unknown_format_is_named() {
        for (name, bytes, parse) in all() {
            let mut newer = bytes.clone();
            newer[8] = 2;
            reseal(&mut newer);
            assert_eq!(parse(&newer), Some(FormatError::Unknown { found: 2, known: 1 }), "{name}");
        }
    }

    #[test]
    fn cut_off_is_short() {
        for (name, bytes, parse) in all() {
            for len in 0..bytes.len() {
                let want = FormatError::Short { got: len, need: bytes.len() };
                assert_eq!(parse(&bytes[..len]), Some(want), "{name}");
            }
        }
    }
}
