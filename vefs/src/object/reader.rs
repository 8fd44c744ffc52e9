//! Reading objects: opening checks the sidecar against the name, every read checks the chunks it touches.

use std::io;
use std::sync::Arc;

use super::format::{CHUNK, HEADER_LEN, Sums};
use super::{ObjectError, SidecarError, io_at};
use crate::ids::Hash;
use crate::limits::OBJECT_CHUNK;
use crate::storage::{File, Storage};

/// Bytes read at a time when a whole body is read.
const READ_AHEAD: usize = 16 * OBJECT_CHUNK;

/// An open object. It stays readable for as long as it is held, whatever happens to its name.
pub struct Object {
    hash: Hash,
    sums: Sums,
    body: Arc<dyn File>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({:?}, {} bytes)", self.hash, self.sums.len)
    }
}

/// The body's path in the store.
pub(super) fn body_path(hash: Hash) -> String {
    let hex = hash.to_hex();
    format!("objects/{}/{hex}", &hex[..2])
}

/// The sidecar's path in the store.
pub(super) fn sum_path(hash: Hash) -> String {
    body_path(hash) + ".sum"
}

/// The folder that holds both.
pub(super) fn folder(hash: Hash) -> String {
    format!("objects/{:02x}", hash.0[0])
}

impl Object {
    /// Opens body and sidecar and checks the sidecar against the name and the body's length.
    pub(super) fn load(storage: &dyn Storage, hash: Hash) -> Result<Object, ObjectError> {
        let path = body_path(hash);
        let body = match storage.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ObjectError::NotFound { hash }),
            other => other.map_err(io_at(&path))?,
        };
        let sums = load_sums(storage, hash)?;
        let got = body.len().map_err(io_at(&path))?;
        if got != sums.len {
            return Err(ObjectError::BodyLength { hash, expected: sums.len, got });
        }
        Ok(Object { hash, sums, body })
    }

    /// Its name.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Bytes of the body.
    pub fn len(&self) -> u64 {
        self.sums.len
    }

    /// Whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.sums.len == 0
    }

    pub(super) fn weight(&self) -> usize {
        self.sums.weight()
    }

    /// Fills `buf` from `offset`, checking every chunk that is touched.
    ///
    /// # Errors
    /// `PastEnd` when the range does not lie within the body; `Damaged` naming the chunk; `Io`. After an error `buf`
    /// holds zeros, never bytes that were not checked.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), ObjectError> {
        let done = self.read_checked(buf, offset);
        if done.is_err() {
            buf.fill(0);
        }
        done
    }

    fn read_checked(&self, buf: &mut [u8], offset: u64) -> Result<(), ObjectError> {
        let (count, len) = (buf.len() as u64, self.sums.len);
        let Some(end) = offset.checked_add(count).filter(|end| *end <= len) else {
            return Err(ObjectError::PastEnd { hash: self.hash, offset, count, len });
        };
        let (mut at, mut rest) = (offset, buf);
        let mut scratch = Vec::new();
        while !rest.is_empty() {
            let skip = (at % CHUNK) as usize;
            let whole = match end == len {
                true => rest.len(),
                false => rest.len() / OBJECT_CHUNK * OBJECT_CHUNK,
            };
            let part;
            if skip == 0 && whole > 0 {
                (part, rest) = rest.split_at_mut(whole);
                self.read_chunks(part, at)?;
            } else {
                let start = at - skip as u64;
                scratch.resize(CHUNK.min(len - start) as usize, 0);
                (part, rest) = rest.split_at_mut(rest.len().min(scratch.len() - skip));
                self.read_chunks(&mut scratch, start)?;
                part.copy_from_slice(&scratch[skip..skip + part.len()]);
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Reads whole chunks, `start` being the first one's offset, and checks each.
    fn read_chunks(&self, buf: &mut [u8], start: u64) -> Result<(), ObjectError> {
        match self.body.read_at(buf, start) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(self.damaged(start / CHUNK)),
            other => other.map_err(io_at(&body_path(self.hash)))?,
        }
        for (index, data) in (start / CHUNK..).zip(buf.chunks(OBJECT_CHUNK)) {
            if !self.sums.matches(index, data) {
                return Err(self.damaged(index));
            }
        }
        Ok(())
    }

    fn damaged(&self, chunk: u64) -> ObjectError {
        ObjectError::Damaged { hash: self.hash, chunk, offset: chunk * CHUNK }
    }

    /// Reads and checks the whole body.
    ///
    /// # Errors
    /// As [`Object::read_at`]; the first damaged chunk ends it.
    pub fn verify(&self) -> Result<(), ObjectError> {
        self.verify_part(0, u64::MAX).map(|_| ())
    }

    /// Reads and checks at least `max` bytes from `from` on, or up to the end; how many, and whether there are more.
    ///
    /// # Errors
    /// As [`Object::read_at`].
    pub fn verify_part(&self, from: u64, max: u64) -> Result<(u64, bool), ObjectError> {
        let mut buf = vec![0; READ_AHEAD.min(self.sums.len as usize)];
        let mut at = from.min(self.sums.len);
        let end = at.saturating_add(max).min(self.sums.len);
        while at < end {
            let n = (self.sums.len - at).min(READ_AHEAD as u64) as usize;
            self.read_at(&mut buf[..n], at)?;
            at += n as u64;
        }
        Ok((at.saturating_sub(from), at < self.sums.len))
    }
}

/// Reads a sidecar. Its length is checked against the header before anything is allocated by it.
fn load_sums(storage: &dyn Storage, hash: Hash) -> Result<Sums, ObjectError> {
    let path = sum_path(hash);
    let refuse = |source| ObjectError::Sidecar { hash, source };
    let file = match storage.open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(refuse(SidecarError::Missing)),
        other => other.map_err(io_at(&path))?,
    };
    let got = file.len().map_err(io_at(&path))?;
    if got < HEADER_LEN as u64 {
        return Err(refuse(SidecarError::Length { expected: HEADER_LEN as u64, got }));
    }
    let mut header = [0; HEADER_LEN];
    file.read_at(&mut header, 0).map_err(io_at(&path))?;
    let len = Sums::decode_header(&header, hash).map_err(refuse)?;
    let expected = Sums::sidecar_len(len);
    if got != expected {
        return Err(refuse(SidecarError::Length { expected, got }));
    }
    let mut values = vec![0; (expected - HEADER_LEN as u64) as usize];
    file.read_at(&mut values, HEADER_LEN as u64).map_err(io_at(&path))?;
    Sums::decode_values(len, &values, hash).map_err(refuse)
}
