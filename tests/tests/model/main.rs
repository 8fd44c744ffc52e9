//! The core against the oracle: random operations and random misfortunes, the same answers, the same states.
//!
//! `ASPFS_SEED=n` replays one seed, `ASPFS_OPS=n` bounds its steps, `ASPFS_SEEDS=n` the number of seeds; `ASPFS_NIGHTLY=1`
//! runs twenty times as many.

#![allow(clippy::unwrap_used)]

mod diff;
mod long;
mod regressions;
mod short;
mod smoke;
mod threads;
