//! Logical keys and values of one VE's state, in the one encoding that the overlay, the metadata store, versions and the
//! state root share. A key sorts by its bytes: all keys of one kind and inode lie together, in the order of what
//! follows. See `docs/format/metadata.md`.

use std::fmt;

use bincode::{Decode, Encode};
use smallvec::SmallVec;

use crate::change::{Hold, Policy, Settings};
use crate::ids::InodeNo;
use crate::types::{Dentry, Extent, Inode, Kind};

/// First byte of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyKind {
    /// inode number → [`Inode`]
    Inode = 1,
    /// directory, name → [`Dentry`]
    Dentry = 2,
    /// directory, cookie → [`Entry`]: the same entry in readdir's order
    Cookie = 3,
    /// symlink → target
    Target = 4,
    /// inode number, name → value
    Xattr = 5,
    /// file, offset → [`Extent`]
    Extent = 6,
    /// orphan → nothing
    Orphan = 7,
    /// name → [`Hold`]
    Hold = 8,
    /// nothing → [`Settings`]
    Settings = 9,
    /// nothing → [`Policy`]
    Policy = 10,
}

impl KeyKind {
    /// All of them, in the order of keys.
    pub const ALL: [KeyKind; 10] = {
        use KeyKind::*;
        [Inode, Dentry, Cookie, Target, Xattr, Extent, Orphan, Hold, Settings, Policy]
    };

    fn of(byte: u8) -> Option<KeyKind> {
        KeyKind::ALL.into_iter().find(|k| *k as u8 == byte)
    }
}

/// A logical key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(SmallVec<[u8; 30]>);

impl Key {
    fn new(kind: KeyKind, ino: InodeNo, rest: &[u8]) -> Key {
        // One copy from the stack: keys are made several times in every operation.
        let mut bytes = [0; 9 + 255];
        bytes[0] = kind as u8;
        bytes[1..9].copy_from_slice(&ino.0.to_be_bytes());
        if let Some(room) = bytes.get_mut(9..9 + rest.len()) {
            room.copy_from_slice(rest);
            return Key(SmallVec::from_slice(&bytes[..9 + rest.len()]));
        }
        let mut long = SmallVec::from_slice(&bytes[..9]);
        long.extend_from_slice(rest);
        Key(long)
    }

    /// No key of this kind and of an inode from this one on is smaller.
    pub fn first_of(kind: KeyKind, ino: InodeNo) -> Key {
        Key::new(kind, ino, &[])
    }

    /// The inode's attributes.
    pub fn inode(ino: InodeNo) -> Key {
        Key::new(KeyKind::Inode, ino, &[])
    }

    /// The entry of a directory by name.
    pub fn dentry(dir: InodeNo, name: &[u8]) -> Key {
        Key::new(KeyKind::Dentry, dir, name)
    }

    /// The entry of a directory by cookie.
    pub fn cookie(dir: InodeNo, cookie: u64) -> Key {
        Key::new(KeyKind::Cookie, dir, &cookie.to_be_bytes())
    }

    /// The target of a symlink.
    pub fn target(ino: InodeNo) -> Key {
        Key::new(KeyKind::Target, ino, &[])
    }

    /// An extended attribute.
    pub fn xattr(ino: InodeNo, name: &[u8]) -> Key {
        Key::new(KeyKind::Xattr, ino, name)
    }

    /// The extent that starts at `offset`.
    pub fn extent(ino: InodeNo, offset: u64) -> Key {
        Key::new(KeyKind::Extent, ino, &offset.to_be_bytes())
    }

    /// The mark of an orphan.
    pub fn orphan(ino: InodeNo) -> Key {
        Key::new(KeyKind::Orphan, ino, &[])
    }

    /// A hold.
    pub fn hold(name: &str) -> Key {
        Key::new(KeyKind::Hold, InodeNo(0), name.as_bytes())
    }

    /// A key behind all holds: holds belong to inode 0.
    pub fn holds_end() -> Key {
        Key::new(KeyKind::Hold, InodeNo(1), &[])
    }

    /// The VE's settings.
    pub fn settings() -> Key {
        Key::new(KeyKind::Settings, InodeNo(0), &[])
    }

    /// How the VE is replicated.
    pub fn policy() -> Key {
        Key::new(KeyKind::Policy, InodeNo(0), &[])
    }

    /// A key before all others.
    pub fn first() -> Key {
        Key::new(KeyKind::Inode, InodeNo(0), &[])
    }

    /// A key behind all others.
    pub fn last() -> Key {
        Key::new(KeyKind::Policy, InodeNo(u64::MAX), &[0xff])
    }

    /// A key from stored bytes; `None` when they are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Key> {
        let kind = KeyKind::of(*bytes.first()?)?;
        let rest = bytes.len().checked_sub(9)?;
        let fits = match kind {
            KeyKind::Inode | KeyKind::Target | KeyKind::Orphan | KeyKind::Settings | KeyKind::Policy => rest == 0,
            KeyKind::Cookie | KeyKind::Extent => rest == 8,
            KeyKind::Dentry | KeyKind::Xattr | KeyKind::Hold => (1..=255).contains(&rest),
        };
        fits.then(|| Key(SmallVec::from_slice(bytes)))
    }

    /// The stored bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its kind.
    pub fn kind(&self) -> KeyKind {
        // invariant: every constructor puts a valid kind first.
        KeyKind::of(self.0[0]).expect("a key has a kind") // invariant: see above
    }

    /// The inode (or directory) it belongs to; 0 for holds, settings and policy.
    pub fn ino(&self) -> InodeNo {
        let mut b = [0; 8];
        b.copy_from_slice(&self.0[1..9]);
        InodeNo(u64::from_be_bytes(b))
    }

    /// What follows the inode number: a name, or a number in big-endian.
    pub fn rest(&self) -> &[u8] {
        &self.0[9..]
    }

    /// What follows, as a number: a cookie or an offset.
    pub fn number(&self) -> u64 {
        let mut b = [0; 8];
        if self.0.len() == 17 {
            b.copy_from_slice(&self.0[9..]);
        }
        u64::from_be_bytes(b)
    }

    /// A key after this one and before, or equal to, every other greater key of its kind: where a scan goes on.
    pub fn successor(&self) -> Key {
        match (self.kind(), self.number().checked_add(1)) {
            (KeyKind::Cookie, Some(n)) => Key::cookie(self.ino(), n),
            (KeyKind::Extent, Some(n)) => Key::extent(self.ino(), n),
            _ => {
                let mut k = self.0.clone();
                k.push(0);
                Key(k)
            }
        }
    }

    /// The first key that can follow this one.
    pub fn following(&self) -> Key {
        let mut k = self.0.clone();
        k.push(0);
        Key(k)
    }

    /// A key behind this one and all rows of its former values, and before every other key that follows: names have no NUL.
    pub fn beyond(&self) -> Key {
        let mut k = self.0.clone();
        k.push(1);
        Key(k)
    }

    /// Bytes on the heap beyond the value itself.
    pub fn heap_bytes(&self) -> usize {
        if self.0.spilled() { self.0.capacity() } else { 0 }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}", self.kind(), self.ino())?;
        match self.kind() {
            KeyKind::Cookie | KeyKind::Extent => write!(f, ", {})", self.number()),
            _ => write!(f, ", {:?})", String::from_utf8_lossy(self.rest())),
        }
    }
}

/// A directory entry as readdir shows it: the value of a cookie key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Its name.
    pub name: Box<[u8]>,
    /// The inode.
    pub ino: InodeNo,
    /// Its kind.
    pub kind: Kind,
}

/// A logical value. `Whiteout` says that the base tree's key of this name is gone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(missing_docs, reason = "the key kinds say it")]
pub enum Value {
    Whiteout,
    Inode(Inode),
    Dentry(Dentry),
    Entry(Entry),
    Bytes(Box<[u8]>),
    Extent(Extent),
    Mark,
    Hold(Hold),
    Settings(Settings),
    Policy(Policy),
}

impl Value {
    /// Rough bytes on the heap, for bounding memory.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::Entry(e) => e.name.len(),
            Value::Bytes(b) => b.len(),
            Value::Hold(h) => h.owner.len(),
            Value::Policy(p) => p.replicas.len() * size_of::<crate::change::ReplicaOf>(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_inode_then_rest() {
        let mut keys = [
            Key::cookie(InodeNo(2), 9),
            Key::cookie(InodeNo(1), 300),
            Key::cookie(InodeNo(1), 4),
            Key::inode(InodeNo(1 << 40)),
        ];
        keys.sort();
        assert_eq!(keys[0], Key::inode(InodeNo(1 << 40)));
        assert_eq!(keys[1].number(), 4);
        assert_eq!(keys[3].ino(), InodeNo(2));
    }

    #[test]
    fn stored_bytes_are_checked() {
        let k = Key::dentry(InodeNo(5), b"name");
        assert_eq!(Key::from_bytes(k.as_bytes()), Some(k));
        for bad in [&b""[..], b"\x00", b"\x01short", b"\x0b12345678", b"\x0112345678x", b"\x0212345678"] {
            assert_eq!(Key::from_bytes(bad), None, "{bad:?}");
        }
    }
}
