//! Hostile bytes: whole states and questions between nodes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile_blobs::run(data));
