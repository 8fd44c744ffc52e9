//! The file `stacks/HEX.stack`: the base tree that templates were composed into, and which they were. See
//! `docs/format/template.md`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use super::sealed::{Prefix, open_whole, seal, sealed};
use super::template::{is_name, padded, text};
use crate::ids::Hash;
use crate::limits::{BASE_STACK_MAX, TEMPLATE_NAME_MAX};

/// Magic bytes of a stack.
pub const MAGIC: [u8; 8] = *b"ASPFSSTK";
/// The one format of stacks.
pub const FORMAT: u32 = 1;
/// Bytes of the file.
pub const LEN: usize = 96 + BASE_STACK_MAX * size_of::<RawPart>();
/// What the name of a stack's file is the hash of begins with.
const KEY_DOMAIN: &[u8; 12] = b"ASPFS stack\x01";

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawPart {
    root: [u8; 32],
    name: [u8; TEMPLATE_NAME_MAX],
    name_len: U16,
    reserved: [u8; 6],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    prefix: Prefix,
    store: [u8; 16],
    root: [u8; 32],
    key_id: U64,
    cipher: U32,
    parts: U32,
    reserved: [u8; 16],
    list: [RawPart; BASE_STACK_MAX],
}

const _: () = assert!(size_of::<RawPart>() == 104);
sealed!(Raw, MAGIC, FORMAT, LEN);

/// A template in a stack, as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Root hash of its base tree.
    pub root: Hash,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The store it lies in.
    pub store: [u8; 16],
    /// Root hash of the composed tree.
    pub root: Hash,
    /// What it was composed of, the lowest first: 2 to [`BASE_STACK_MAX`].
    pub parts: Vec<Part>,
}

impl Stack {
    /// What names the file: the parts' trees in their order.
    pub fn key(roots: impl IntoIterator<Item = Hash>) -> Hash {
        let mut bytes = KEY_DOMAIN.to_vec();
        roots.into_iter().for_each(|root| bytes.extend_from_slice(&root.0));
        Hash::of(&bytes)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// `Field` for a number of parts, or a name, that may not be.
    pub fn to_bytes(&self) -> Result<[u8; LEN], FormatError> {
        if !(2..=BASE_STACK_MAX).contains(&self.parts.len()) {
            return Err(FormatError::Field("parts"));
        }
        if !self.parts.iter().all(|part| is_name(&part.name)) {
            return Err(FormatError::Field("name"));
        }
        let empty = RawPart { root: [0; 32], name: [0; TEMPLATE_NAME_MAX], name_len: 0.into(), reserved: [0; 6] };
        let mut list = [empty; BASE_STACK_MAX];
        for (raw, part) in list.iter_mut().zip(&self.parts) {
            raw.root = part.root.0;
            raw.name = padded(part.name.as_bytes());
            raw.name_len = (part.name.len() as u16).into();
        }
        Ok(seal(Raw {
            prefix: Prefix::new::<Raw>(),
            store: self.store,
            root: self.root.0,
            key_id: 0.into(),
            cipher: 0.into(),
            parts: (self.parts.len() as u32).into(),
            reserved: [0; 16],
            list,
        }))
    }

    /// Checks and reads it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Stack, FormatError> {
        let raw: Raw = open_whole(bytes)?;
        let count = raw.parts.get() as usize;
        if !(2..=BASE_STACK_MAX).contains(&count) {
            return Err(FormatError::Field("parts"));
        }
        let part = |raw: &RawPart| {
            let name = text(&raw.name, raw.name_len).filter(|n| is_name(n)).ok_or(FormatError::Field("name"))?;
            Ok(Part { name: name.to_owned(), root: Hash(raw.root) })
        };
        let parts = raw.list[..count].iter().map(part).collect::<Result<_, _>>()?;
        Ok(Stack { store: raw.store, root: Hash(raw.root), parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(parts: usize) -> Stack {
        let part = |i: usize| Part { name: format!("t{i}"), root: Hash([i as u8; 32]) };
        Stack { store: [1; 16], root: Hash([9; 32]), parts: (0..parts).map(part).collect() }
    }

    #[test]
    fn a_stack_comes_back() {
        for parts in [2, 3, BASE_STACK_MAX] {
            let one = stack(parts);
            assert_eq!(Stack::parse(&one.to_bytes().unwrap()), Ok(one));
        }
        for parts in [0, 1, BASE_STACK_MAX + 1] {
            assert_eq!(stack(parts).to_bytes(), Err(FormatError::Field("parts")), "{parts}");
        }
    }

    #[test]
    fn the_key_depends_on_the_order() {
        let (a, b) = (Hash([1; 32]), Hash([2; 32]));
        assert_ne!(Stack::key([a, b]), Stack::key([b, a]));
        assert_ne!(Stack::key([a, b]), Stack::key([a]));
    }
}
