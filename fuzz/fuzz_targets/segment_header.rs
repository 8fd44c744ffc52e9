//! Hostile bytes: the header of a journal segment.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("segment_header", data));
