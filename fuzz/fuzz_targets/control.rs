//! Hostile bytes: frames of the control socket and what is in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("control", data));
