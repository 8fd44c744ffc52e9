//! The only room that draws random numbers: lineages, store ids and segment incarnations. A simulator gives a seeded one.

use std::sync::atomic::{AtomicU64, Ordering};

/// Source of unpredictable numbers.
pub trait Entropy: Send + Sync + 'static {
    /// A fresh 64-bit number.
    fn next_u64(&self) -> u64;

    /// 16 fresh bytes.
    fn bytes16(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.next_u64().to_le_bytes());
        out[8..].copy_from_slice(&self.next_u64().to_le_bytes());
        out
    }
}

/// The kernel's generator (getrandom(2)).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        let mut buf = [0u8; 8];
        let mut have = 0;
        while have < buf.len() {
            match rustix::rand::getrandom(&mut buf[have..], rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => have += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => panic!("getrandom(2) failed: {e}"),
            }
        }
        u64::from_le_bytes(buf)
    }
}

/// A deterministic sequence (splitmix64) for tests and the simulator.
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        SeededEntropy(AtomicU64::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn next_u64(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
