//! What is said of the scrub. Damaged things travel as rows before the answer, which has an empty list of them.

use serde::{Deserialize, Serialize};

use super::message::Id;
use super::path::Path;

/// How the scrub is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubRow {
    /// Number of the present or last pass; 0 before the first.
    pub pass: u64,
    /// When it began.
    pub begun: Option<String>,
    /// When a pass ended last.
    pub ended: Option<String>,
    /// What is being checked; nothing between passes.
    pub part: Option<String>,
    /// Things that the pass has checked.
    pub things: u64,
    /// Bytes that it has read.
    pub bytes: u64,
    /// Damaged things that it has found.
    pub found: u64,
    /// Damaged things that were repaired with the bytes of another node, since the daemon started.
    pub repaired: u64,
    /// What is damaged, as far as is known.
    pub damage: Vec<DamageRow>,
}

/// A damaged thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageRow {
    /// `tree`, `object`, `payload`, `journal` or `row`.
    pub kind: String,
    /// Which.
    pub name: String,
    /// What is wrong.
    pub detail: String,
    /// When it was seen first.
    pub since: String,
    /// Some of the files that read it.
    pub readers: Vec<ReaderRow>,
}

/// A file that reads a damaged thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderRow {
    /// Of which VE.
    pub ve: Id,
    /// Its inode number.
    pub ino: u64,
    /// Its path, where it has one; of a long one its beginning and its end ([`Path::shortened`]).
    pub path: Option<Path>,
}
