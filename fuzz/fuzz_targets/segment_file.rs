//! Hostile bytes: recovery of a segment full of anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("segment_file", data));
