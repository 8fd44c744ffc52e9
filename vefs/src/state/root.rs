//! The state root: one hash for everything a VE's owner can see at a version, equal on every node that has the version (promise
//! G13), because no place of bytes goes into it. See `docs/format/state-root.md`.
//!
//! Three levels, so that two sides that differ find where by exchanging few hashes: the root over buckets of 4096 inode numbers,
//! a bucket over its inodes, an inode over its keys. Extents count with the hash of their bytes, not with payload ids.

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

/// Makes the state root of a view. `keys` lists all logical keys that the VE's own state has (base tree not included), and `content`
/// gives the hash of an extent's bytes.
pub fn state_root(
    base: Hash,
    keys: &[(Key, Value)],
    content: &mut dyn FnMut(InodeNo, u64, &Extent) -> Result<Hash>,
) -> Result<StateRoot> {
    root(BYTES, base, keys, content)
}

/// Makes the logical root of a view: as the state root, but extents count with their sources, so that no byte of a file is read. Two sides
/// of one history have the same sources at the same position, and what these name is checked by either side's own scrub.
pub fn logical_root(base: Hash, keys: &[(Key, Value)]) -> Result<StateRoot> {
    root(LOGICAL, base, keys, &mut |_, _, extent| Ok(Hash::of(&codec::encode(&extent.source))))
}

fn root(
    text: &'static [u8],
    base: Hash,
    keys: &[(Key, Value)],
    content: &mut dyn FnMut(InodeNo, u64, &Extent) -> Result<Hash>,
) -> Result<StateRoot> {
    let domain = |level: &[u8]| domain(text, level);
    let mut inodes: BTreeMap<InodeNo, blake3::Hasher> = BTreeMap::new();
    for (key, value) in keys {
        let ino = key.ino();
        let hasher = inodes.entry(ino).or_insert_with(|| domain(b"inode"));
        hasher.update(&(key.as_bytes().len() as u32).to_le_bytes());
        hasher.update(key.as_bytes());
        match value {
            Value::Extent(e) if key.kind() == KeyKind::Extent => {
                hasher.update(&e.len.to_le_bytes());
                hasher.update(&content(ino, key.number(), e)?.0);
            }
            other => {
                let bytes = codec::encode(other);
                hasher.update(&(bytes.len() as u32).to_le_bytes());
                hasher.update(&bytes);
            }
        }
    }
    let mut by_bucket: BTreeMap<u64, blake3::Hasher> = BTreeMap::new();
    for (ino, hasher) in inodes {
        let bucket = by_bucket.entry(ino.0 >> BUCKET_BITS).or_insert_with(|| domain(b"bucket"));
        bucket.update(&ino.0.to_le_bytes());
        bucket.update(hasher.finalize().as_bytes());
    }
    let mut root = domain(b"root");
    root.update(&base.0);
    let mut buckets = BTreeMap::new();
    for (number, hasher) in by_bucket {
        let hash = Hash(*hasher.finalize().as_bytes());
        root.update(&number.to_le_bytes());
        root.update(&hash.0);
        buckets.insert(number, hash);
    }
    Ok(StateRoot { root: Hash(*root.finalize().as_bytes()), buckets })
}

fn domain(text: &[u8], level: &[u8]) -> blake3::Hasher {
    let mut h = blake3::Hasher::new();
    h.update(text);
    h.update(level);
    h
}
