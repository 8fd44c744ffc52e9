//! Hostile bytes: a VE over absurd rows of metadata.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("metadata", data));
