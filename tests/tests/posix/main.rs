//! A mounted VE behaves as a local Linux file system does (promises G7, G8, G31): checked with what others wrote to test file systems,
//! and against ext4 on the same machine.
//!
//! Everything here needs root and `/dev/fuse`, and says why where it skips. `ASPFS_NIGHTLY=1` makes the random parts longer.

#![allow(clippy::unwrap_used)]

mod coherence;
mod conformance;
mod corners;
mod documentation;
mod extra;
mod kills;
mod mirror;
mod pages;
mod stalled;
mod tree;
mod writer;

use std::time::Duration;

use aspfs_tests::mounted::Bed;

/// The program of the beds.
const PROGRAM: &str = env!("CARGO_BIN_EXE_aspfs-bed");

/// A bed with one VE over the empty tree, mounted; `None` where that cannot be.
fn bed(seconds: u64) -> Option<(Bed, std::path::PathBuf)> {
    let bed = Bed::start(PROGRAM, Duration::from_secs(seconds))?;
    let ve = bed.ve(VE, &[]);
    Some((bed, ve))
}

/// The VE of a bed with one.
const VE: &str = "0000002A";

/// How often something random is done: `usual` times, or what the variable says, or ten times as often at night.
fn rounds(variable: &str, usual: u64) -> u64 {
    let said = std::env::var(variable).ok().and_then(|v| v.parse().ok());
    said.unwrap_or(if std::env::var_os("ASPFS_NIGHTLY").is_some() { usual * 10 } else { usual })
}
