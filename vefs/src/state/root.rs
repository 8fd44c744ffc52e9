//! The state root: one hash for everything a VE's owner can see at a version, equal on every node that has the version (promise
//! G13), because no place of bytes goes into it. See `docs/format/state-root.md`.
//!
//! Three levels, so that a large VE's root takes no more memory than a small one's: the root over buckets of 4096 inode numbers, a bucket over its
//! inodes, an inode over its keys. Extents count with the hash of their bytes, not with payload ids.

use std::collections::BTreeMap;

use super::key::{Key, KeyKind, Value};
use crate::codec;
use crate::error::Result;
use crate::ids::{Hash, InodeNo};
use crate::types::Extent;

/// Inode numbers per bucket, as a power of two.
pub const BUCKET_BITS: u32 = 12;

/// What is fed first, with the level behind it: the two roots of one version never look alike.
const BYTES: &[u8] = b"aspfs state root 1 ";
const LOGICAL: &[u8] = b"aspfs logical root 1 ";

/// The hashes of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRoot {
    /// Over everything.
    pub root: Hash,
    /// Of each bucket that has keys: inode number >> [`BUCKET_BITS`] → hash.
    pub buckets: BTreeMap<u64, Hash>,
}

/// The keys that a VE's own state has at a version, base tree not included.
pub trait OwnKeys {
    /// An inode number from `from` on before which no inode has keys; `None` where none has.
    fn next_inode(&self, from: InodeNo) -> Result<Option<InodeNo>>;
    /// Visits the keys of one kind of the inodes from `from` to before `to`, in order.
    fn each(
        &self,
        kind: KeyKind,
        from: InodeNo,
        to: InodeNo,
        visit: &mut dyn FnMut(&Key, &Value) -> Result<()>,
    ) -> Result<()>;
}

/// Makes the state root. `content` gives the hash of an extent's bytes. In memory: the hashers of one bucket's inodes, about 8 MiB.
pub fn state_root(
    base: Hash,
    keys: &dyn OwnKeys,
    content: &mut dyn FnMut(&Extent) -> Result<Hash>,
) -> Result<StateRoot> {
    root(BYTES, base, keys, content)
}

/// Makes the logical root: as the state root, but extents count with their sources, so that no byte of a file is read. Two sides
/// of one history have the same sources at the same position, and what these name is checked by either side's own scrub.
pub fn logical_root(base: Hash, keys: &dyn OwnKeys) -> Result<StateRoot> {
    root(LOGICAL, base, keys, &mut |extent| Ok(Hash::of(&codec::encode(&extent.source))))
}

fn root(
    text: &'static [u8],
    base: Hash,
    keys: &dyn OwnKeys,
    content: &mut dyn FnMut(&Extent) -> Result<Hash>,
) -> Result<StateRoot> {
    let mut root = domain(text, b"root");
    root.update(&base.0);
    let mut buckets = BTreeMap::new();
    let mut next = keys.next_inode(InodeNo(0))?;
    while let Some(ino) = next {
        let number = ino.0 >> BUCKET_BITS;
        let from = InodeNo(number << BUCKET_BITS);
        let end = InodeNo(from.0.saturating_add(1 << BUCKET_BITS));
        if let Some(hash) = bucket(text, keys, (from, end), content)? {
            root.update(&number.to_le_bytes());
            root.update(&hash.0);
            buckets.insert(number, hash);
        }
        next = if end.0 == u64::MAX { None } else { keys.next_inode(end)? };
    }
    Ok(StateRoot { root: Hash(*root.finalize().as_bytes()), buckets })
}

/// The hash of one bucket; `None` when no inode of it has keys. An inode's keys come in their order, since kinds do.
fn bucket(
    text: &'static [u8],
    keys: &dyn OwnKeys,
    (from, end): (InodeNo, InodeNo),
    content: &mut dyn FnMut(&Extent) -> Result<Hash>,
) -> Result<Option<Hash>> {
    let mut inodes: BTreeMap<InodeNo, blake3::Hasher> = BTreeMap::new();
    for kind in KeyKind::ALL {
        keys.each(kind, from, end, &mut |key, value| {
            let hasher = inodes.entry(key.ino()).or_insert_with(|| domain(text, b"inode"));
            hasher.update(&(key.as_bytes().len() as u32).to_le_bytes());
            hasher.update(key.as_bytes());
            match value {
                Value::Extent(e) if kind == KeyKind::Extent => {
                    hasher.update(&e.len.to_le_bytes());
                    hasher.update(&content(e)?.0);
                }
                other => {
                    let bytes = codec::encode(other);
                    hasher.update(&(bytes.len() as u32).to_le_bytes());
                    hasher.update(&bytes);
                }
            }
            Ok(())
        })?;
    }
    if inodes.is_empty() {
        return Ok(None);
    }
    let mut bucket = domain(text, b"bucket");
    for (ino, hasher) in inodes {
        bucket.update(&ino.0.to_le_bytes());
        bucket.update(hasher.finalize().as_bytes());
    }
    Ok(Some(Hash(*bucket.finalize().as_bytes())))
}

fn domain(text: &[u8], level: &[u8]) -> blake3::Hasher {
    let mut h = blake3::Hasher::new();
    h.update(text);
    h.update(level);
    h
}
