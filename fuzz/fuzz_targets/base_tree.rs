//! Hostile bytes: a base tree's file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("base_tree", data));
