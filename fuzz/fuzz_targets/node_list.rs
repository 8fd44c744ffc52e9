//! Hostile bytes: signed node lists, and the lists in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile_cluster::run_list(data));
