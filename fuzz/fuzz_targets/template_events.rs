//! Hostile bytes: a stream of events of a template.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("template_events", data));
