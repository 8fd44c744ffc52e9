//! Paths inside VEs, which are bytes, in JSON, which is text.

use serde::{Deserialize, Serialize};

/// Longest path that is shown where it is not asked for.
pub const SHOWN_MAX: usize = 1024;
/// Stands for what was left out.
const ELLIPSIS: &str = "…";

/// A path inside a VE: text where it is UTF-8, else its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Path {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Raw(Vec<u8>),
}

impl Path {
    /// From bytes.
    pub fn new(bytes: &[u8]) -> Path {
        match std::str::from_utf8(bytes) {
            Ok(text) => Path::Text(text.to_owned()),
            Err(_) => Path::Raw(bytes.to_vec()),
        }
    }

    /// At most [`SHOWN_MAX`] bytes of it: of a longer one the beginning, an ellipsis and the end. A VE's root chooses how long and how deep its
    /// paths are.
    pub fn shortened(bytes: &[u8]) -> Path {
        if bytes.len() <= SHOWN_MAX {
            return Path::new(bytes);
        }
        let half = (SHOWN_MAX - ELLIPSIS.len()) / 2;
        let (mut head, mut tail) = (half, bytes.len() - half);
        // No character is cut in two.
        let inside = |at: usize| bytes[at] & 0xC0 == 0x80;
        while head > half - 3 && inside(head) {
            head -= 1;
        }
        while tail < bytes.len() - half + 3 && inside(tail) {
            tail += 1;
        }
        Path::new(&[&bytes[..head], ELLIPSIS.as_bytes(), &bytes[tail..]].concat())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Path::Text(text) => text.as_bytes(),
            Path::Raw(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_shown_by_its_ends() {
        let short = vec![b'x'; SHOWN_MAX];
        assert_eq!(Path::shortened(&short).bytes(), short);
        for part in ["/d", "/ä", "/€", "/\u{1F980}", "/x€"] {
            let long = part.repeat(4000) + "/end";
            let Path::Text(shown) = Path::shortened(long.as_bytes()) else { panic!("a character of {part} was cut") };
            assert!(shown.len() <= SHOWN_MAX && shown.len() > SHOWN_MAX - 16, "{}", shown.len());
            assert!(shown.starts_with(part) && shown.contains(ELLIPSIS) && shown.ends_with("/end"), "{shown}");
        }
        assert!(Path::shortened(&[0xBF; 5000]).bytes().len() <= SHOWN_MAX);
    }
}
