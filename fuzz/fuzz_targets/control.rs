//! Hostile bytes: frames of the control socket and the messages in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile_control::run(data));
