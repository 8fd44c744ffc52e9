//! Golden bytes of node lists and bundles (promise G28), and random and mutated bytes (promise G29).

use std::sync::LazyLock;

use aspfs_replica::cluster::{Bundle, ListError, NodeList, list};
use aspfs_tests::golden::{self, Entries};
use aspfs_tests::hostile_cluster;
use proptest::prelude::*;

#[test]
fn todays_lists_and_bundles_are_the_golden_ones() {
    golden::check("cluster.hex", &hostile_cluster::encoded());
}

#[test]
fn golden_lists_and_bundles_are_read() {
    let golden = golden::read("cluster.hex");
    let parts = list::split(&golden["node-list"]).unwrap();
    assert_eq!(NodeList::decode(parts.body).unwrap(), hostile_cluster::node_list());
    let bundle = Bundle::parse(&golden["bundle"]).unwrap();
    assert_eq!(bundle.to_text(), hostile_cluster::bundle().to_text());
}

/// A list of a program to come is refused by its number (checks G28).
#[test]
fn a_list_of_another_format_is_named() {
    let mut bytes = hostile_cluster::signed_list();
    bytes[4] = 2;
    bytes[8..12].fill(0);
    let crc = crc(&bytes[..list::HEADER_LEN]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(list::split(&bytes), Err(ListError::Format { found: 2 })));
}

/// CRC32 of IEEE 802.3, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 })
    })
}

/// Inputs; ten times as many in the nightly run.
fn cases() -> u32 {
    if std::env::var_os("ASPFS_NIGHTLY").is_some() { 20_000 } else { 2000 }
}

static SEEDS: LazyLock<Entries> = LazyLock::new(hostile_cluster::seeds);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// checks G29
    #[test]
    fn hostile_lists_and_bundles(
        seed in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..64),
        whole: bool,
    ) {
        let mut bytes = SEEDS.values().nth(seed.index(SEEDS.len())).unwrap().clone();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len() + 1));
            bytes.extend_from_slice(&tail);
        }
        hostile_cluster::run_list(&bytes);
        hostile_cluster::run_bundle(&bytes);
        // The list alone, behind a header that checks out.
        hostile_cluster::run_list(bytes.get(list::HEADER_LEN..).unwrap_or(&tail));
    }
}
