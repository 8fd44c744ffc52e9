//! Replication: the bytes on the wire, and what the machines that speak them promise.

#![allow(clippy::unwrap_used)]

mod alike;
mod blobs;
mod bulk;
mod cluster;
mod double;
mod etcd;
mod random;
mod stream;
mod talk;
mod turned_away;
mod wire;
