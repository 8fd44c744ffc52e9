#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Zero(u64, u64),
    Punch(u64, u64),
    /// Keep a copy of now, which later steps must not change.
    Copy,
}

fn step() -> impl Strategy<Value = Step> {
    // Around the edges of chunks and slabs, where the arithmetic can go wrong.
    let offset = (prop::sample::select(vec![0, 4096, 8192, SLAB - 4096, SLAB, 2 * SLAB]), 0..20_u64)
        .prop_map(|(edge, near): (u64, u64)| (edge + near).saturating_sub(10));
    let len = prop::sample::select(vec![0, 1, 20, 4096, 4100, 8192, SLAB + 10]);
    prop_oneof![
        (offset.clone(), prop::sample::select(vec![0, 1, 30, 4096, 9000]), any::<u8>())
            .prop_map(|(at, len, byte)| Step::Write(at, vec![byte; len])),
        (offset.clone(), len.clone()).prop_map(|(at, len)| Step::Zero(at, len)),
        (offset, len).prop_map(|(at, len)| Step::Punch(at, len)),
        Just(Step::Copy),
    ]
}

/// A chunk-wise account of the space taken, next to the plain bytes.
#[derive(Clone, Default)]
struct Model {
    bytes: Vec<u8>,
    taken: Vec<bool>,
}

impl Model {
    fn put(&mut self, at: u64, data: &[u8]) {
        let (at, end) = (at as usize, at as usize + data.len());
        if data.is_empty() {
            return;
        }
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.taken.resize(self.bytes.len().div_ceil(CHUNK), false);
        self.bytes[at..end].copy_from_slice(data);
        self.taken[at / CHUNK..end.div_ceil(CHUNK)].fill(true);
    }

    fn punch(&mut self, at: u64, len: u64) {
        let end = at as usize + len as usize;
        for chunk in (at as usize).div_ceil(CHUNK)..(end / CHUNK).min(self.taken.len()) {
            self.taken[chunk] = false;
        }
        let end = end.min(self.bytes.len());
        if (at as usize) < end {
            self.bytes[at as usize..end].fill(0);
        }
    }

    fn allocated(&self) -> u64 {
        let size = |chunk: usize| CHUNK.min(self.bytes.len() - chunk * CHUNK);
        (0..self.taken.len()).filter(|chunk| self.taken[*chunk]).map(|chunk| size(chunk) as u64).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn behaves_as_plain_bytes(steps in prop::collection::vec(step(), 1..12)) {
        let (mut content, mut model) = (Content::default(), Model::default());
        let mut copies = Vec::new();
        for step in steps {
            match step {
                Step::Write(at, data) => {
                    content.write_at(&data, at);
                    model.put(at, &data);
                }
                Step::Zero(at, len) => {
                    content.zero(at, len);
                    model.put(at, &vec![0; len as usize]);
                }
                Step::Punch(at, len) => {
                    content.punch(at, len);
                    model.punch(at, len);
                }
                Step::Copy => copies.push((content.clone(), model.clone())),
            }
            prop_assert_eq!(content.allocated(), model.allocated());
        }
        copies.push((content, model));
        for (content, model) in &copies {
            prop_assert_eq!(content.len(), model.bytes.len() as u64);
            prop_assert!(content.to_vec() == model.bytes);
        }
        for (one, bytes) in copies.iter().map(|(content, model)| (content, &model.bytes)) {
            for (other, others) in copies.iter().map(|(content, model)| (content, &model.bytes)) {
                prop_assert_eq!(one.hash() == other.hash(), bytes == others);
            }
        }
    }
}

#[test]
fn holes_and_written_zeros_have_one_hash() {
    let mut sparse = Content::default();
    sparse.write_at(b"\0", 3 * SLAB - 1);
    let full = Content::zeros(3 * SLAB);
    assert_eq!(sparse.hash(), full.hash());
    assert_eq!((sparse.allocated(), full.allocated()), (4096, 3 * SLAB));
    assert_ne!(full.hash(), Content::zeros(3 * SLAB + 1).hash());
}

#[test]
fn a_hash_follows_the_bytes() {
    let mut content = Content::zeros(10_000);
    let zeros = content.hash();
    content.write_at(b"x", 5000);
    let first = content.hash();
    content.write_at(b"y", 5000);
    assert_ne!(first, content.hash());
    content.write_at(b"x", 5000);
    assert_eq!(first, content.hash());
    content.write_at(b"\0", 5000);
    assert_eq!(zeros, content.hash());
    content.write_at(b"x", 9000);
    assert_ne!(first, content.hash());
}

#[test]
fn a_read_past_the_end_is_refused() {
    let content = Content::zeros(10);
    assert!(content.read_at(&mut [1; 10], 0));
    assert!(!content.read_at(&mut [1; 10], 1));
    assert!(!content.read_at(&mut [1; 1], u64::MAX));
}
