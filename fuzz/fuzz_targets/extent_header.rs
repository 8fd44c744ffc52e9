//! Hostile bytes: the header of an extent file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("extent_header", data));
