//! A cluster in memory: two to five nodes, an arbiter, one or two VEs, programs that write; all of it from a seed, with real frames and blobs between
//! the machines of `aspfs-replica`.
//!
//! What may break: nodes lose power (what was not flushed is gone) or their processes die (it is not); a node stands still while time
//! passes; clocks run wrong by up to 3 %; directions of links carry nothing; packets are lost, late, out of order, double, or have a flipped bit;
//! links are slow; disks are full; journals are recycled; the arbiter is away or forgets its leases. People and the nodes themselves promote, hand over
//! and state; what is stated is true.
//!
//! What is checked, by somebody who sees everything, at the moment it happens: G9 (a replica's state is one of its primary's, after power cuts and
//! installations too), G10, G11, G12, G13 (positions and state roots), G14 (at each completion by what the disks have, and at each promotion by what is
//! missing), G16 (no unrecorded lagging, no promotion by itself meanwhile), G18 and G19 (nothing completes once a higher epoch was
//! opened, nor in another's epoch), G21 (role and fork durable before the first write, objects there), G22 (a tail is kept under its name),
//! G23 (a state is proved before it is in place). G15 and G17 are the window's own tests; here it is in the loop. At the end everything is repaired, and each VE must have one primary
//! and equal copies.

mod content;
mod incoming;
mod net;
mod oracle;
mod people;
mod primary;
mod pull;
mod replica;
mod runs;
mod seat;
mod store;
mod world;
