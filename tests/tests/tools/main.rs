//! The programs: what they say, what they refuse, how they start and stop, and mounts through all of them.

#![allow(clippy::unwrap_used)]

mod cli;
mod control;
mod daemon;
mod diff;
mod mounts;
mod takeover;
mod versions;
