//! Hostile bytes: an ACL attribute's value, through setxattr, inheritance and chmod.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aspfs_tests::hostile::run("acl", data));
