//! Hostile bytes: the label of a template, and a stack.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("template_label", data));
