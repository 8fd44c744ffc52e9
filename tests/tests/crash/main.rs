//! Crash safety of the core: disks that a power cut or the death of the daemon may leave, class by class, are opened and held against the
//! model; disks that lie, fail or are full; and the files of the real metadata store.

#![allow(clippy::unwrap_used)]

mod damage;
mod faults;
mod full;
mod moving;
mod random;
mod rocks;
mod singles;

/// Whether the long tests were asked for.
fn nightly() -> bool {
    std::env::var_os("ASPFS_NIGHTLY").is_some()
}
