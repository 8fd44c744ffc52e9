//! The one place that turns values into bytes and back (bincode 2, derive only), so that it can be replaced in one place.
//!
//! Every encoding starts with a format byte. Decoding is bounded: the input's length is checked by the caller against
//! `limits`, bincode's own limit stops hostile lengths, no encoded type is recursive or zero-sized, and trailing bytes
//! are an error. Framing (magic, lengths, checksums) is not done here but in [`crate::format`].

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};

/// Format byte of every encoding made here.
pub const FORMAT: u8 = 1;

/// Most bytes that one decoding may claim. Twice the largest record body: in-memory sizes exceed encoded ones.
const CLAIM_MAX: usize = 32 << 20;

const CONFIG: Configuration<LittleEndian, Varint, Limit<CLAIM_MAX>> =
    bincode::config::standard().with_limit::<CLAIM_MAX>();

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The first byte names another format.
    #[error("unknown encoding format {0}, this program knows {FORMAT}")]
    Format(u8),
    /// There is no first byte.
    #[error("empty encoding")]
    Empty,
    /// The bytes do not decode, or claim more than allowed.
    #[error("malformed encoding: {0}")]
    Malformed(#[from] bincode::error::DecodeError),
    /// Bytes are left over.
    #[error("{0} bytes left over after the value")]
    Trailing(usize),
}

impl CodecError {
    /// The error a caller shows, with what was being read and where: an unknown format is named as such (promise G28).
    pub fn at(self, what: &'static str, place: impl Into<String>) -> crate::Error {
        let place = place.into();
        match self {
            CodecError::Format(found) => {
                crate::Error::Format { what, place, found: found.into(), known: FORMAT.into() }
            }
            other => crate::Error::Damage { what, place, detail: other.to_string() },
        }
    }
}

/// Appends the encoding of `value`, format byte first.
pub fn encode_into<T: Encode>(value: &T, out: &mut Vec<u8>) {
    out.push(FORMAT);
    // invariant: writing to a Vec cannot fail, and the limit concerns decoding only.
    bincode::encode_into_std_write(value, out, CONFIG).expect("encoding to memory"); // invariant: see above
}

/// The encoding of `value`, format byte first.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    encode_into(value, &mut out);
    out
}

/// Decodes a value that fills `bytes` exactly.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty),
        Some((&FORMAT, rest)) => {
            let (value, used) = bincode::decode_from_slice(rest, CONFIG)?;
            if used != rest.len() {
                return Err(CodecError::Trailing(rest.len() - used));
            }
            Ok(value)
        }
        Some((&other, _)) => Err(CodecError::Format(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let bytes = encode(&(7u64, b"abc".to_vec()));
        assert_eq!(decode::<(u64, Vec<u8>)>(&bytes).unwrap(), (7, b"abc".to_vec()));
        assert!(matches!(decode::<u64>(&[]), Err(CodecError::Empty)));
        assert!(matches!(decode::<u64>(&[9, 1]), Err(CodecError::Format(9))));
        let mut long = bytes.clone();
        long.push(0);
        assert!(matches!(decode::<(u64, Vec<u8>)>(&long), Err(CodecError::Trailing(1))));
    }

    /// A length of 2^60 elements must not allocate (checks G29).
    #[test]
    fn a_huge_length_is_refused() {
        let mut bytes = vec![FORMAT, 253];
        bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
        assert!(matches!(decode::<Vec<u8>>(&bytes), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<Vec<u64>>(&bytes), Err(CodecError::Malformed(_))));
    }
}
