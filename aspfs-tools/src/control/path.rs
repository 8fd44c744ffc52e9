//! Paths inside VEs, which are bytes, in JSON, which is text.

use serde::{Deserialize, Serialize};

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

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Path::Text(text) => text.as_bytes(),
            Path::Raw(bytes) => bytes,
        }
    }
}
