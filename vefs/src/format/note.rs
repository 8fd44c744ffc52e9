//! Notes `notes/LINEAGE.KIND`: what replication has to remember of a VE's history beside the VE, which may not be here yet. See
//! `docs/format/store.md`. What the bytes of the body say is its matter.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use super::sealed::{Prefix, open_whole, seal, sealed};
use crate::ids::Lineage;

/// Magic bytes of a note.
pub const MAGIC: [u8; 8] = *b"ASPFSNT1";
/// The one format of notes.
pub const FORMAT: u32 = 1;
/// Bytes of the file.
pub const LEN: usize = 512;
/// Most bytes of a note's body.
pub const BODY_MAX: usize = LEN - 72;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    prefix: Prefix,
    store: [u8; 16],
    lineage: [u8; 16],
    kind: U32,
    len: U32,
    cipher: U32,
    reserved: U32,
    key_id: U64,
    body: [u8; BODY_MAX],
}

sealed!(Raw, MAGIC, FORMAT, LEN);

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What this node promised other nodes about the VE.
    Promises,
    /// Who has to promise changed, and it is not known who has heard of it.
    Unsettled,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 2] = [Kind::Promises, Kind::Unsettled];

    /// The end of the file's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Promises => "promises",
            Kind::Unsettled => "unsettled",
        }
    }

    fn number(self) -> u32 {
        match self {
            Kind::Promises => 1,
            Kind::Unsettled => 2,
        }
    }
}

/// A note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The store it lives in.
    pub store: [u8; 16],
    /// The history that it is about.
    pub lineage: Lineage,
    /// What about it.
    pub kind: Kind,
    /// What is noted.
    pub body: Vec<u8>,
}

impl Note {
    /// The bytes of the file; `Err` where the body is too long.
    pub fn to_bytes(&self) -> Result<[u8; LEN], FormatError> {
        let mut body = [0; BODY_MAX];
        let part = body.get_mut(..self.body.len()).ok_or(FormatError::Field("length of the body"))?;
        part.copy_from_slice(&self.body);
        Ok(seal(Raw {
            prefix: Prefix::new::<Raw>(),
            store: self.store,
            lineage: self.lineage.0,
            kind: self.kind.number().into(),
            len: (self.body.len() as u32).into(),
            cipher: 0.into(),
            reserved: 0.into(),
            key_id: 0.into(),
            body,
        }))
    }

    /// Checks and reads it.
    pub fn parse(bytes: &[u8]) -> Result<Note, FormatError> {
        let raw: Raw = open_whole(bytes)?;
        let kind = Kind::ALL.into_iter().find(|k| k.number() == raw.kind.get()).ok_or(FormatError::Field("kind"))?;
        let body = raw.body.get(..raw.len.get() as usize).ok_or(FormatError::Field("length of the body"))?;
        Ok(Note { store: raw.store, lineage: Lineage(raw.lineage), kind, body: body.to_vec() })
    }
}
