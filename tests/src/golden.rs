//! Golden files: bytes that a released format has, kept for ever in `tests/golden/`.
//!
//! A file is text: a line `name hex` for each structure. `ASPFS_REGENERATE_GOLDEN=1` writes the files anew from today's code:
//! right for a structure that is new, wrong for one that changed.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Whether the files are to be written anew.
pub fn regenerating() -> bool {
    std::env::var_os("ASPFS_REGENERATE_GOLDEN").is_some_and(|v| v == "1")
}

/// The path of a golden file.
pub fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(file)
}

/// Named byte strings, as a golden file has them.
pub type Entries = BTreeMap<String, Vec<u8>>;

/// Reads a golden file.
pub fn read(file: &str) -> Entries {
    let path = path(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    parse(&text)
}

/// The entries of a golden file's text.
pub fn parse(text: &str) -> Entries {
    let entry = |line: &str| {
        let (name, digits) = line.split_once(' ').unwrap_or((line, ""));
        (name.to_owned(), from_hex(digits).unwrap_or_else(|| panic!("{name}: not hex digits")))
    };
    text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(entry).collect()
}

/// Writes a golden file.
pub fn write(file: &str, entries: &Entries) {
    let text: String = entries.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    std::fs::write(path(file), text).unwrap_or_else(|e| panic!("{file}: {e}"));
}

/// Compares what today's code writes with a golden file, entry by entry; nothing may be missing on either side.
pub fn check(file: &str, now: &Entries) {
    if regenerating() {
        return write(file, now);
    }
    let golden = read(file);
    for (name, bytes) in now {
        let Some(want) = golden.get(name) else {
            panic!("{file}: {name} is new: write it down with ASPFS_REGENERATE_GOLDEN=1");
        };
        assert!(
            want == bytes,
            "{file}: {name} is no longer written as it was. Stores in the field hold the old bytes: raise the format \
             number and keep a reader for the old one.\n golden {}\n  today {}",
            hex(want),
            hex(bytes)
        );
    }
    let gone: Vec<_> = golden.keys().filter(|n| !now.contains_key(*n)).collect();
    assert!(gone.is_empty(), "{file}: {gone:?} were released and nothing checks them any more");
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pair = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}
