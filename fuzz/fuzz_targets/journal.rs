//! Hostile bytes: recovery of a journal of valid frames with absurd records, then everything one does with a VE.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("journal", data));
