//! The thin shells around the machines, on a node: a VE's window, its streams to replicas, the streams of VEs that this node follows.

mod exposed;

pub use exposed::{Exposed, Standing, Tail, policy_of};
