//! Trust between nodes and the transport below replication, on 127.0.0.1: nodes of a cluster in one process, and peers that mean no good.

#![allow(clippy::unwrap_used)]

mod bed;
mod flow;
mod formats;
mod hostile;
mod lists;
mod raw;
mod streams;
mod trust;
