//! Nodes as processes, in network namespaces of their own: what an administrator does, and what programs in a VE see.

#![allow(clippy::unwrap_used)]

mod arbiter;
mod chaos;
mod diff;
mod failover;
mod leases;
mod repair;
mod setup;
mod tries;
mod versions;
mod window;
