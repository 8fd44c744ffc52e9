//! Hostile bytes: a store's superblock.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("superblock", data));
