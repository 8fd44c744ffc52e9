//! Hostile bytes: an object and its sidecar.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("object", data));
