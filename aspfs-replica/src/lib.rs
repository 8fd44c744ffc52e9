//! `aspfs-replica`: the room for everything that makes a VE's history exist on more than one node: shipping
//! transactions, applying them at a replica, catching up after an outage, leases and epochs, and promotion.
//!
//! The layering rule, which the `tidy` test checks:
//!
//! - It may use `vefs`, and applies records only through `vefs`: primary, replica and recovery share one `apply`.
//! - No FUSE and no ioctl: a replica has no mount, so it can run where none is possible, in a simulator for one.
//! - The protocol parts are state machines without I/O: events and the time come in as arguments, actions come out.
//!   Sockets and threads belong to thin shells around them.
//! - Positions are compared whole ([`vefs::ids::Position`]), never by transaction number alone: numbers repeat on a
//!   branch.

pub mod apply;
pub mod arbiter;
pub mod blob;
pub mod catchup;
pub mod cluster;
mod compress;
pub mod local;
pub mod log;
pub mod member;
pub mod net;
pub mod node;
pub mod promote;
pub mod runtime;
pub mod session;
pub mod ship;
pub mod window;
pub mod wire;
