//! Sparse files in tar archives: which ranges of a file the archive holds (GNU tar's manual, "Storing Sparse Files"). Four forms: GNU's own
//! header, and the formats 0.0, 0.1 and 1.0 in extended headers.

use std::collections::VecDeque;
use std::io::{self, Read};

use tar::{GnuExtSparseHeader, Header};

use super::members::{BLOCK, TarError};
use super::pax::{self, Pax};
use super::unpack::fill;

/// Most ranges of one file.
const RANGES_MAX: usize = 1 << 20;

/// Ranges of a file, offset and length in bytes, in order. The bytes lie one after the other in the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map(VecDeque<(u64, u64)>);

impl Map {
    /// The map of a file without holes.
    pub fn whole(size: u64) -> Map {
        Map([(0, size)].into())
    }

    fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// Takes at most `max` bytes off the front: where in the file they are, and how many. Never none.
    pub fn next(&mut self, max: u64) -> Option<(u64, u64)> {
        while let Some((offset, len)) = self.0.pop_front() {
            let now = len.min(max);
            if now < len {
                self.0.push_front((offset + now, len - now));
            }
            if now > 0 {
                return Some((offset, now));
            }
        }
        None
    }

    /// Bytes of all ranges. After [`Map::check`].
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, len)| len).sum()
    }

    fn push(&mut self, offset: u64, len: u64) -> Result<(), TarError> {
        if self.0.len() >= RANGES_MAX {
            return Err(TarError::Bad(format!("it has more than {RANGES_MAX} ranges")));
        }
        self.0.push_back((offset, len));
        Ok(())
    }

    /// Checks that the ranges are in order, within a file of `size` bytes, and `stored` bytes together.
    pub fn check(&self, size: u64, stored: u64) -> Result<(), TarError> {
        let bad = || TarError::Bad("its map of holes is not valid".into());
        let (mut end, mut sum) = (0, 0u64);
        for (offset, len) in self.ranges() {
            if offset < end {
                return Err(bad());
            }
            end = offset.checked_add(len).filter(|end| *end <= size).ok_or_else(bad)?;
            // No overflow: ranges do not overlap, and the last one has an end.
            sum += len;
        }
        if sum == stored { Ok(()) } else { Err(bad()) }
    }
}

/// Finds out about a regular file: its size and its map, `None` for one that is not sparse. What is read of the stream for it is taken
/// off `left`, except GNU's further headers.
pub fn find(header: &Header, pax: &Pax, from: &mut impl Read, left: &mut u64) -> Result<Option<(u64, Map)>, TarError> {
    if header.as_bytes()[156] == b'S' {
        return gnu(header, from).map(Some);
    }
    if pax.get(b"GNU.sparse.major") == Some(b"1") && pax.get(b"GNU.sparse.minor") == Some(b"0") {
        let size = pax.number(b"GNU.sparse.realsize").map_err(TarError::Bad)?;
        let map = format_1(from, left)?;
        return Ok(Some((size.ok_or_else(|| TarError::Bad("its size is missing".into()))?, map)));
    }
    let Some(size) = pax.number(b"GNU.sparse.size").map_err(TarError::Bad)? else { return Ok(None) };
    let numbers: Vec<&[u8]> = match pax.get(b"GNU.sparse.map") {
        Some(map) => map.split(|b| *b == b',').collect(),
        None => {
            let parts = [&b"GNU.sparse.offset"[..], b"GNU.sparse.numbytes"];
            pax.iter().filter(|(key, _)| parts.contains(key)).map(|(_, value)| value).collect()
        }
    };
    let mut map = Map::default();
    for pair in numbers.chunks(2) {
        let bad = || TarError::Bad("its map of holes is not valid".into());
        let [offset, len] = pair else { return Err(bad()) };
        map.push(pax::number(offset).ok_or_else(bad)?, pax::number(len).ok_or_else(bad)?)?;
    }
    Ok(Some((size, map)))
}

fn gnu(header: &Header, from: &mut impl Read) -> Result<(u64, Map), TarError> {
    let bad = |_| TarError::Bad("its map of holes is not valid".into());
    let gnu = header.as_gnu().ok_or_else(|| TarError::Bad("it is sparse and has no header of GNU tar".into()))?;
    let mut map = Map::default();
    let mut add = |parts: &[tar::GnuSparseHeader]| {
        for part in parts.iter().filter(|part| !part.is_empty()) {
            map.push(part.offset().map_err(bad)?, part.length().map_err(bad)?)?;
        }
        Ok::<_, TarError>(())
    };
    add(&gnu.sparse)?;
    let mut more = gnu.is_extended();
    while more {
        let mut next = GnuExtSparseHeader::new();
        if fill(from, next.as_mut_bytes())? < BLOCK as usize {
            return Err(TarError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        add(next.sparse())?;
        more = next.is_extended();
    }
    Ok((gnu.real_size().map_err(bad)?, map))
}

/// The map that precedes the bytes: decimal numbers, each on a line, filled up with zeros to a whole block.
fn format_1(from: &mut impl Read, left: &mut u64) -> Result<Map, TarError> {
    let mut lines = Lines { from, left, block: [0; BLOCK as usize], at: BLOCK as usize };
    let count = lines.number()?;
    let mut map = Map::default();
    for _ in 0..count {
        let offset = lines.number()?;
        map.push(offset, lines.number()?)?;
    }
    Ok(map)
}

struct Lines<'a, R> {
    from: &'a mut R,
    left: &'a mut u64,
    block: [u8; BLOCK as usize],
    at: usize,
}

impl<R: Read> Lines<'_, R> {
    fn byte(&mut self) -> Result<u8, TarError> {
        if self.at == self.block.len() {
            if *self.left < BLOCK || fill(self.from, &mut self.block)? < self.block.len() {
                return Err(TarError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            *self.left -= BLOCK;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }

    fn number(&mut self) -> Result<u64, TarError> {
        let mut digits = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                digit if digits.len() < 20 => digits.push(digit),
                _ => break,
            }
        }
        pax::number(&digits).ok_or_else(|| TarError::Bad("its map of holes is not valid".into()))
    }
}
