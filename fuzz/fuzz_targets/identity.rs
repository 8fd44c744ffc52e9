//! Hostile bytes: a VE's identity.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("identity", data));
