//! Hostile bytes: frames between a primary and a replica, and the messages in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile_wire::run(data));
