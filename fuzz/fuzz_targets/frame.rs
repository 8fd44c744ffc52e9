//! Hostile bytes: a journal frame, its body, envelope and seal.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("frame", data));
