//! How far a ratio is to be trusted on this machine at this moment: the same work runs against itself, and beside it
//! other work that is known to be cheaper. A first line far from the second means that other figures mean little too.

use std::convert::Infallible;
use std::hint::black_box;

use crate::harness::{Contender, Plan, Report, interleave};

/// Bytes hashed at a time: one object's checksum chunk.
const LEN: usize = vefs::limits::OBJECT_CHUNK;

/// BLAKE3 of 64 KiB against itself and against CRC-32 of the same bytes.
pub fn run(plan: Plan) -> Result<Report, Infallible> {
    let data: Vec<u8> = (0..LEN).map(|i| (i * 31) as u8).collect();
    let blake = |name| {
        Contender::timed(name, || {
            black_box(vefs::ids::Hash::of(black_box(&data)));
            Ok(())
        })
    };
    let crc = Contender::timed("crc32", || {
        black_box(crc32fast::hash(black_box(&data)));
        Ok(())
    });
    interleave("noise: 64 KiB hashed", plan, vec![blake("blake3"), blake("blake3 again"), crc])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_has_a_duration_per_round() {
        let Ok(report) = run(Plan { rounds: 3, warm_up: 1 });
        assert_eq!(report.series.len(), 3);
        assert!(report.series.iter().all(|s| s.times.len() == 3));
    }
}
