//! Hostile bytes: every type that the codec decodes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("codec", data));
