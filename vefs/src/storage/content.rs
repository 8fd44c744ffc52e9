//! The bytes of a file in memory, copied on write.
//!
//! A file is a map of 1 MiB slabs of 4 KiB chunks, shared between copies until one of them writes, so that a copy costs
//! a few pointers and a write to a copy costs one chunk. Bytes beyond the length are zeros at all times.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

const CHUNK: usize = 4096;
const CHUNKS: usize = 256;
const SLAB: u64 = (CHUNK * CHUNKS) as u64;

static ZERO_SLAB: LazyLock<Arc<Slab>> =
    LazyLock::new(|| Arc::new(Slab { chunks: vec![Chunk::Zeros; CHUNKS], hash: OnceLock::new() }));

/// The bytes of one file. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Content {
    len: u64,
    slabs: BTreeMap<u64, Arc<Slab>>,
}

#[derive(Clone, Debug)]
struct Slab {
    /// Always `CHUNKS` of them.
    chunks: Vec<Chunk>,
    hash: OnceLock<u64>,
}

#[derive(Clone, Debug)]
enum Chunk {
    /// Never written or punched: takes no space.
    Hole,
    /// Written zeros: takes space.
    Zeros,
    Data(Arc<Page>),
}

#[derive(Clone, Debug)]
struct Page {
    bytes: [u8; CHUNK],
    hash: OnceLock<u64>,
}

impl Content {
    /// A file of written zeros.
    pub fn zeros(len: u64) -> Content {
        let mut content = Content::default();
        content.zero(0, len);
        content
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of space taken: the length without the holes (of whole, aligned 4 KiB).
    pub fn allocated(&self) -> u64 {
        let taken = |slab: &Arc<Slab>| slab.chunks.iter().filter(|chunk| !matches!(chunk, Chunk::Hole)).count();
        let whole = self.slabs.values().map(taken).sum::<usize>() as u64 * CHUNK as u64;
        let tail = self.len % CHUNK as u64;
        let last = self.len / CHUNK as u64;
        let in_slab = (last % CHUNKS as u64) as usize;
        match self.slabs.get(&(last / CHUNKS as u64)).map(|slab| &slab.chunks[in_slab]) {
            Some(Chunk::Zeros | Chunk::Data(_)) if tail != 0 => whole - (CHUNK as u64 - tail),
            _ => whole,
        }
    }

    /// Fills `buf` from `offset`; false when the file ends before.
    #[must_use]
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> bool {
        let Some(end) = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len) else { return false };
        let mut rest = buf;
        for (slab, range) in slabs_of(offset, end) {
            let (here, after) = rest.split_at_mut(range.len());
            rest = after;
            match self.slabs.get(&slab) {
                Some(slab) => slab.read(range.start, here),
                None => here.fill(0),
            }
        }
        true
    }

    /// All bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        let whole = self.read_at(&mut bytes, 0);
        debug_assert!(whole, "the length is the content's own");
        bytes
    }

    /// Writes `data`, extending the file with a hole if need be. The end must fit into 64 bits.
    pub fn write_at(&mut self, data: &[u8], offset: u64) {
        let end = offset + data.len() as u64;
        let mut rest = data;
        for (slab, range) in slabs_of(offset, end) {
            let (here, after) = rest.split_at(range.len());
            rest = after;
            self.slab(slab).write(range.start, here);
        }
        if !data.is_empty() {
            self.len = self.len.max(end);
        }
    }

    /// Writes zeros that take space, extending the file if need be. The end must fit into 64 bits.
    pub fn zero(&mut self, offset: u64, len: u64) {
        for (slab, range) in slabs_of(offset, offset + len) {
            if range.len() as u64 == SLAB {
                self.slabs.insert(slab, Arc::clone(&ZERO_SLAB));
            } else {
                self.slab(slab).clear(range, &Chunk::Zeros);
            }
        }
        if len > 0 {
            self.len = self.len.max(offset + len);
        }
    }

    /// Makes a range read as zeros and gives back the space of the whole chunks in it; the length stays.
    pub fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let touched = offset / SLAB..end.div_ceil(SLAB);
        if touched.is_empty() {
            return;
        }
        self.slabs.retain(|at, slab| {
            if !touched.contains(at) {
                return true;
            }
            let start = at * SLAB;
            let from = offset.saturating_sub(start).min(SLAB);
            let to = (end - start).min(SLAB);
            if (from, to) == (0, SLAB) {
                return false;
            }
            Slab::edit(slab).clear(from as usize..to as usize, &Chunk::Hole);
            true
        });
    }

    /// A hash of length and bytes; holes and written zeros are the same. Only for telling contents apart in one process.
    pub fn hash(&self) -> u64 {
        self.slabs.iter().fold(mix(self.len, 0x6c65_6e67), |sum, (at, slab)| match slab.hash() {
            0 => sum,
            hash => sum.wrapping_add(mix(hash, *at)),
        })
    }

    fn slab(&mut self, at: u64) -> &mut Slab {
        Slab::edit(self.slabs.entry(at).or_insert_with(|| Arc::new(Slab::hole())))
    }
}

impl Slab {
    fn hole() -> Slab {
        Slab { chunks: vec![Chunk::Hole; CHUNKS], hash: OnceLock::new() }
    }

    /// The slab for writing: its own copy, its hash forgotten.
    fn edit(shared: &mut Arc<Slab>) -> &mut Slab {
        let slab = Arc::make_mut(shared);
        slab.hash = OnceLock::new();
        slab
    }

    fn read(&self, start: usize, mut buf: &mut [u8]) {
        for (chunk, range) in chunks_of(start, start + buf.len()) {
            let (here, after) = buf.split_at_mut(range.len());
            buf = after;
            match &self.chunks[chunk] {
                Chunk::Hole | Chunk::Zeros => here.fill(0),
                Chunk::Data(page) => here.copy_from_slice(&page.bytes[range]),
            }
        }
    }

    fn write(&mut self, start: usize, mut data: &[u8]) {
        for (chunk, range) in chunks_of(start, start + data.len()) {
            let (here, after) = data.split_at(range.len());
            data = after;
            self.chunks[chunk].bytes()[range].copy_from_slice(here);
        }
    }

    /// Makes a range zeros; whole chunks become `as_chunk`.
    fn clear(&mut self, range: Range<usize>, as_chunk: &Chunk) {
        for (at, range) in chunks_of(range.start, range.end) {
            let chunk = &mut self.chunks[at];
            match (&*chunk, as_chunk) {
                _ if range.len() == CHUNK => *chunk = as_chunk.clone(),
                (Chunk::Hole, _) => *chunk = as_chunk.clone(),
                (Chunk::Zeros, _) => {}
                (Chunk::Data(_), _) => chunk.bytes()[range].fill(0),
            }
        }
    }

    /// Zero when all bytes are zeros.
    fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| {
            self.chunks.iter().enumerate().fold(0, |sum: u64, (at, chunk)| match chunk {
                Chunk::Hole | Chunk::Zeros => sum,
                Chunk::Data(page) => match page.hash() {
                    0 => sum,
                    hash => sum.wrapping_add(mix(hash, at as u64)),
                },
            })
        })
    }
}

impl Chunk {
    /// The chunk's bytes for writing: its own copy, its hash forgotten.
    fn bytes(&mut self) -> &mut [u8; CHUNK] {
        if !matches!(self, Chunk::Data(_)) {
            *self = Chunk::Data(Arc::new(Page { bytes: [0; CHUNK], hash: OnceLock::new() }));
        }
        let Chunk::Data(page) = self else { unreachable!("made just above") };
        let page = Arc::make_mut(page);
        page.hash = OnceLock::new();
        &mut page.bytes
    }
}

impl Page {
    /// Zero when all bytes are zeros.
    fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| {
            if self.bytes.iter().all(|byte| *byte == 0) {
                return 0;
            }
            let hash = blake3::hash(&self.bytes);
            let mut word = [0; 8];
            word.copy_from_slice(&hash.as_bytes()[..8]);
            u64::from_le_bytes(word).max(1)
        })
    }
}

/// Spreads two words over one (the finaliser of SplitMix64).
fn mix(word: u64, salt: u64) -> u64 {
    let mut z = word ^ salt.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The slabs a range of a file lies in, and the part of each.
fn slabs_of(start: u64, end: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
    (start / SLAB..end.div_ceil(SLAB)).filter_map(move |slab| {
        let base = slab * SLAB;
        let range = (start.max(base) - base) as usize..((end - base).min(SLAB)) as usize;
        (!range.is_empty()).then_some((slab, range))
    })
}

/// The chunks a range of a slab lies in, and the part of each.
fn chunks_of(start: usize, end: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    (start / CHUNK..end.div_ceil(CHUNK)).filter_map(move |chunk| {
        let base = chunk * CHUNK;
        let range = start.max(base) - base..(end - base).min(CHUNK);
        (!range.is_empty()).then_some((chunk, range))
    })
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
