#![allow(clippy::unwrap_used, unused)]
#[path = "../../tests/tests/sim/cluster/mod.rs"]
mod cluster;
#[path = "../../tests/tests/sim/random.rs"]
mod random;
