//! Hostile bytes: bundles of new nodes, and certificates and keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile_cluster::run_bundle(data));
