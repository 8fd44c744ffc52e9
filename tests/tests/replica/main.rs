//! Replication with real stores: what a VE hands to its followers, and what becomes of it there.

#![allow(clippy::unwrap_used)]

mod alike;
mod cancelled;
mod compared;
mod first;
mod follow;
mod install;
mod leases;
mod lives;
mod mounted;
mod nodes;
mod pair;
mod strangers;
mod stretches;
mod stuck;
mod twice;
