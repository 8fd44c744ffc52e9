//! The wire's golden bytes (promise G28), and random and mutated bytes (promise G29).

use aspfs_replica::wire;
use aspfs_tests::{golden, hostile_wire};
use proptest::prelude::*;

#[test]
fn todays_frames_are_the_golden_ones() {
    golden::check("wire.hex", &hostile_wire::encoded());
}

#[test]
fn golden_frames_are_read() {
    let golden = golden::read("wire.hex");
    for (name, message) in hostile_wire::messages() {
        let bytes = &golden[name];
        let (envelope, got, used) = wire::decode(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((envelope, got, used), (hostile_wire::envelope(), message, bytes.len()), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// checks G29
    #[test]
    fn hostile_frames(
        sample in 0..11usize,
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = hostile_wire::encoded().into_values().nth(sample).unwrap();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        bytes.extend_from_slice(&tail);
        hostile_wire::run(&bytes);
        // The body alone, behind a header that checks out.
        hostile_wire::run(bytes.get(wire::HEADER_LEN..).unwrap_or(&tail));
    }
}
