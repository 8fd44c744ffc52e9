//! Hostile bytes: what nodes ask each other about a VE, and an arbiter's record.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile_talk::run(data));
