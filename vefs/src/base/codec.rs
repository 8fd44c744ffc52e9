//! Encoding of the items in a page: bincode's derived encoding, variable-length integers, little endian.
//!
//! Items are decoded one by one from a page, each under [`ITEM_MAX`], borrowing their bytes: no length found in a file
//! decides about an allocation (promise G29). Items have no recursive types and no zero-sized elements.

use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use bincode::{BorrowDecode, Encode};

/// Most bytes of one encoded item: the largest attribute value, its name, and the lengths.
pub(super) const ITEM_MAX: usize = 72 << 10;

const CONFIG: Configuration<LittleEndian, Varint, Limit<ITEM_MAX>> = standard().with_limit::<ITEM_MAX>();

/// An item that cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("an item at byte {at} cannot be decoded: {source}")]
pub struct CodecError {
    /// Where in the page it begins.
    pub at: usize,
    /// The codec's reason.
    pub source: bincode::error::DecodeError,
}

/// Appends an item.
pub(super) fn push<T: Encode>(out: &mut Vec<u8>, item: &T) -> Result<(), bincode::error::EncodeError> {
    bincode::encode_into_std_write(item, out, CONFIG).map(drop)
}

/// Items of a page, from its first byte to its last.
pub(super) struct Items<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Items<'a> {
    pub fn new(bytes: &'a [u8]) -> Items<'a> {
        Items { bytes, at: 0 }
    }

    /// Bytes consumed so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether all bytes are consumed.
    pub fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The next item.
    pub fn next<T: BorrowDecode<'a, ()>>(&mut self) -> Result<T, CodecError> {
        match bincode::borrow_decode_from_slice(&self.bytes[self.at..], CONFIG) {
            Ok((item, n)) => {
                self.at += n;
                Ok(item)
            }
            Err(source) => Err(CodecError { at: self.at, source }),
        }
    }
}
