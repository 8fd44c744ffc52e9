//! Hostile bytes: logical keys and keys of rows.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("key", data));
