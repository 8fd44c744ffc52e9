//! Identifiers as text: what is accepted comes out again as it went in, letter case aside; nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vefs::ids::{Hash, VeId};

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<VeId>() {
        assert_eq!(id.to_string(), text.to_ascii_uppercase());
    }
    if let Some(hash) = Hash::from_hex(text) {
        assert_eq!(hash.to_hex(), text.to_ascii_lowercase());
    }
});
