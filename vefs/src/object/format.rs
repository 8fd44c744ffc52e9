//! The sidecar's bytes (`docs/format/object.md`) and the BLAKE3 tree over 64 KiB chunks.
//!
//! 64 KiB is a power of two, so a chunk is a whole subtree of BLAKE3's tree and the object's hash, which is its name,
//! can be computed from the chaining values of its chunks (BLAKE3 paper, section 2.1). A sidecar is therefore checked
//! against the name alone. A body of one chunk has no chaining value but the root itself, and that is what is stored.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::Hash;
use crate::limits::OBJECT_CHUNK;

const MAGIC: [u8; 8] = *b"ASPFSOBJ";
const FORMAT: u32 = 1;
/// Length of the sidecar's header.
pub(super) const HEADER_LEN: usize = 80;
/// A chunk's length as a file offset.
pub(super) const CHUNK: u64 = OBJECT_CHUNK as u64;
/// Largest body of an object, in bytes. Its sidecar is 512 MiB.
pub const OBJECT_LEN_MAX: u64 = 1 << 40;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    format: U32,
    header_len: U32,
    body_len: U64,
    chunk: U32,
    cipher: U32,
    key_id: U64,
    hash: [u8; 32],
    reserved: U32,
    crc: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);
const _: () = assert!(OBJECT_CHUNK.is_power_of_two() && OBJECT_CHUNK > blake3::CHUNK_LEN);

/// Why a sidecar is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SidecarError {
    /// There is a body but no sidecar.
    #[error("it is missing")]
    Missing,
    /// The magic is another.
    #[error("not an object sidecar")]
    Magic,
    /// A format this reader does not know (promise G28).
    #[error("format {0} is unknown (known: {FORMAT})")]
    Format(u32),
    /// The header's CRC32 does not match.
    #[error("the header's checksum does not match")]
    HeaderCrc,
    /// The header's length is not that of format 1.
    #[error("header length {0} is unknown")]
    HeaderLength(u32),
    /// Chunks of another size than format 1's 64 KiB.
    #[error("chunk size {0} is unknown")]
    ChunkSize(u32),
    /// A cipher that this reader does not know.
    #[error("cipher {0} is unknown")]
    Cipher(u32),
    /// A key that this reader does not know.
    #[error("key {0} is unknown")]
    KeyId(u64),
    /// Reserved bytes are used.
    #[error("reserved bytes hold {0}")]
    Reserved(u32),
    /// The sidecar's length does not fit the body's.
    #[error("it has {got} bytes, not {expected}")]
    Length {
        /// Bytes that the header calls for.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// The body's length is over the limit.
    #[error("a body of {0} bytes is over the limit")]
    BodyTooLarge(u64),
    /// It belongs to another object.
    #[error("it is the sidecar of object {0}")]
    OtherObject(Hash),
    /// The chunks' values do not hash to the object's name.
    #[error("its checksums do not add up to the object's name")]
    Root,
}

/// The checksums of a body: its length and a value for each chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    /// Bytes of the body.
    pub len: u64,
    values: Vec<ChainingValue>,
}

impl Sums {
    /// The number of chunks of a body.
    pub fn chunks(len: u64) -> u64 {
        len.div_ceil(CHUNK)
    }

    /// Length of a whole sidecar for a body of `len` bytes.
    pub fn sidecar_len(len: u64) -> u64 {
        HEADER_LEN as u64 + Self::chunks(len) * 32
    }

    /// Bytes that this value holds in memory.
    pub fn weight(&self) -> usize {
        self.values.len() * 32
    }

    /// Whether `data` is the whole content of chunk `index`.
    pub fn matches(&self, index: u64, data: &[u8]) -> bool {
        let Some(value) = usize::try_from(index).ok().and_then(|i| self.values.get(i)) else { return false };
        if self.values.len() == 1 {
            return blake3::hash(data).as_bytes() == value;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(index * CHUNK).update(data);
        hasher.finalize_non_root() == *value
    }

    /// The hash of the body: the object's name.
    pub fn root(&self) -> Hash {
        match self.values.as_slice() {
            [] => Hash::of(b""),
            [one] => Hash(*one),
            many => {
                let (left, right) = split(many, self.len);
                Hash(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
            }
        }
    }

    /// The bytes of the sidecar.
    pub fn encode(&self) -> Vec<u8> {
        let mut header = Header {
            magic: MAGIC,
            format: U32::new(FORMAT),
            header_len: U32::new(HEADER_LEN as u32),
            body_len: U64::new(self.len),
            chunk: U32::new(OBJECT_CHUNK as u32),
            cipher: U32::ZERO,
            key_id: U64::ZERO,
            hash: self.root().0,
            reserved: U32::ZERO,
            crc: U32::ZERO,
        };
        header.crc = U32::new(crc32fast::hash(&header.as_bytes()[..HEADER_LEN - 4]));
        let mut out = Vec::with_capacity(HEADER_LEN + self.weight());
        out.extend_from_slice(header.as_bytes());
        self.values.iter().for_each(|v| out.extend_from_slice(v));
        out
    }

    /// Checks a header and answers the body's length. The order is magic, checksum, format: a flipped bit is
    /// damage wherever it lies, and a newer format is named as such.
    pub fn decode_header(bytes: &[u8; HEADER_LEN], name: Hash) -> Result<u64, SidecarError> {
        let header: Header = zerocopy::transmute!(*bytes);
        if header.magic != MAGIC {
            return Err(SidecarError::Magic);
        }
        if header.crc.get() != crc32fast::hash(&bytes[..HEADER_LEN - 4]) {
            return Err(SidecarError::HeaderCrc);
        }
        if header.format.get() != FORMAT {
            return Err(SidecarError::Format(header.format.get()));
        }
        if header.header_len.get() != HEADER_LEN as u32 {
            return Err(SidecarError::HeaderLength(header.header_len.get()));
        }
        if header.cipher.get() != 0 {
            return Err(SidecarError::Cipher(header.cipher.get()));
        }
        if header.key_id.get() != 0 {
            return Err(SidecarError::KeyId(header.key_id.get()));
        }
        if header.reserved.get() != 0 {
            return Err(SidecarError::Reserved(header.reserved.get()));
        }
        if header.chunk.get() != OBJECT_CHUNK as u32 {
            return Err(SidecarError::ChunkSize(header.chunk.get()));
        }
        if header.body_len.get() > OBJECT_LEN_MAX {
            return Err(SidecarError::BodyTooLarge(header.body_len.get()));
        }
        if header.hash != name.0 {
            return Err(SidecarError::OtherObject(Hash(header.hash)));
        }
        Ok(header.body_len.get())
    }

    /// Checks the chunks' values, as they follow the header, against the name.
    pub fn decode_values(len: u64, bytes: &[u8], name: Hash) -> Result<Sums, SidecarError> {
        let expected = Self::chunks(len) * 32;
        if bytes.len() as u64 != expected {
            let got = (bytes.len() + HEADER_LEN) as u64;
            return Err(SidecarError::Length { expected: Self::sidecar_len(len), got });
        }
        let values = bytes.as_chunks::<32>().0.to_vec();
        let sums = Sums { len, values };
        if sums.root() != name {
            return Err(SidecarError::Root);
        }
        Ok(sums)
    }
}

/// The values of the two children of the node over `values`, at least two, of a body part of `len` bytes. Recursion is
/// as deep as the tree: at most 24 levels for [`OBJECT_LEN_MAX`].
fn split(values: &[ChainingValue], len: u64) -> (ChainingValue, ChainingValue) {
    let left_len = left_subtree_len(len);
    let (left, right) = values.split_at((left_len / CHUNK) as usize);
    (node(left, left_len), node(right, len - left_len))
}

fn node(values: &[ChainingValue], len: u64) -> ChainingValue {
    if let [one] = values {
        return *one;
    }
    let (left, right) = split(values, len);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// Computes [`Sums`] of bytes that arrive in pieces of any size.
pub(super) struct ChunkHasher {
    current: blake3::Hasher,
    filled: usize,
    len: u64,
    values: Vec<ChainingValue>,
}

impl ChunkHasher {
    pub fn new() -> ChunkHasher {
        ChunkHasher { current: blake3::Hasher::new(), filled: 0, len: 0, values: Vec::new() }
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Takes the next bytes. A full chunk is closed only when another byte follows: the last one may be the root.
    pub fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.filled == OBJECT_CHUNK {
                self.values.push(self.current.finalize_non_root());
                // Not reset(): it keeps the old input offset.
                self.current = blake3::Hasher::new();
                self.current.set_input_offset(self.len);
                self.filled = 0;
            }
            let (part, rest) = data.split_at(data.len().min(OBJECT_CHUNK - self.filled));
            self.current.update(part);
            self.filled += part.len();
            self.len += part.len() as u64;
            data = rest;
        }
    }

    /// The checksums of everything taken.
    pub fn finish(mut self) -> Sums {
        if self.filled > 0 {
            let last = match self.values.is_empty() {
                true => *self.current.finalize().as_bytes(),
                false => self.current.finalize_non_root(),
            };
            self.values.push(last);
        }
        Sums { len: self.len, values: self.values }
    }
}
