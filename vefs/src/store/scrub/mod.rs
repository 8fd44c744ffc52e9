//! The scrub: everything that the store keeps is read and checked while it is used, a little at a time (promise G24).
//!
//! A *pass* goes through the parts in order: base trees, objects, payloads in extent files, journals, rows. How far it is stands in one row, so
//! that it goes on after a restart; what it found stands there too, until a later pass finds it whole, or it is repaired. A pass sees what was
//! there when it came by; what is written meanwhile is checked by the next one.
//!
//! What is read comes from the page cache where it is there: bytes that rot on the disk below a page in memory are found by the first pass
//! after that page has gone. Not read: checkpoints of the metadata, and bytes that nothing names.
//!
//! Lock order: `scrubbing` is taken before every other lock of the store, and held over a step. Nothing of a VE is locked while bytes are read.

mod owners;
mod walk;

use std::io::Read;

use bincode::{Decode, Encode};

use super::{Store, TreeCopy};
use crate::clock::Timestamp;
use crate::codec;
use crate::error::{Error, Result};
use crate::ids::{Hash, InodeNo, PayloadId, VeId};
use crate::meta::{Batch, Table, rows};
use crate::object::OBJECT_LEN_MAX;

/// Most damaged things that are listed; more are counted.
pub const DAMAGE_MAX: usize = 256;
/// Longest description of one in bytes.
const DETAIL_MAX: usize = 512;
/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// A part of the store, in the order of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Part {
    /// Base trees.
    Trees,
    /// Objects, bodies and sidecars.
    Objects,
    /// Payloads in extent files, by the rows that name them.
    Payloads,
    /// Journals of open VEs, up to what is durable.
    Journals,
    /// Rows of the metadata store.
    Rows,
    /// The pass is over.
    Ended,
}

/// Something that can be damaged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Thing {
    /// A base tree.
    Tree(Hash),
    /// An object: [`Store::repair_object`] takes good bytes for it.
    Object(Hash),
    /// A payload of the VE whose rows lie under this slot.
    Payload(VeId, PayloadId),
    /// The journal under this slot.
    Journal(VeId),
    /// A row: the table's name and the key.
    Row(String, Vec<u8>),
}

/// A file that reads a damaged thing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reader {
    /// Of which VE.
    pub ve: VeId,
    /// Its inode.
    pub ino: InodeNo,
    /// Its path, where it has one.
    pub path: Option<Vec<u8>>,
}

/// A damaged thing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Bad {
    /// What.
    pub thing: Thing,
    /// What is wrong, for people.
    pub detail: String,
    /// When it was seen first.
    pub since: Timestamp,
    /// The pass that saw it last.
    pub pass: u64,
    /// Some of the files that read it now. None: only a template or an old version does, or it is not known.
    pub readers: Vec<Reader>,
}

/// How the scrub is: the row `S`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Scrub {
    /// Number of the present or last pass; 0 before the first.
    pub pass: u64,
    /// When it began.
    pub begun: Timestamp,
    /// When a pass ended last.
    pub ended: Option<Timestamp>,
    /// Where the pass is.
    pub part: Part,
    /// The last key that was checked in that part; empty before the first.
    pub key: Vec<u8>,
    /// What the pass has checked so far.
    pub things: u64,
    /// Bytes that it has read.
    pub bytes: u64,
    /// Damaged things that it has found, those that are not listed among them.
    pub found: u64,
    /// What is damaged, as far as is known; at most [`DAMAGE_MAX`].
    pub damage: Vec<Bad>,
}

impl Scrub {
    fn new() -> Scrub {
        Scrub {
            pass: 0,
            begun: Timestamp::default(),
            ended: None,
            part: Part::Ended,
            key: Vec::new(),
            things: 0,
            bytes: 0,
            found: 0,
            damage: Vec::new(),
        }
    }

    /// Whether a pass is under way.
    pub fn is_running(&self) -> bool {
        self.part != Part::Ended
    }
}

impl Store {
    /// How the scrub is.
    pub fn scrub_status(&self) -> Result<Scrub> {
        match self.shared.meta.get(Table::System, &rows::scrub())? {
            None => Ok(Scrub::new()),
            // It says nothing that the next pass would not find.
            Some(row) => Ok(rows::decode("system", &row).unwrap_or_else(|_| Scrub::new())),
        }
    }

    /// Begins a pass, unless one is under way.
    pub fn scrub_begin(&self) -> Result<Scrub> {
        let _one = self.scrubbing.lock();
        let mut scrub = self.scrub_status()?;
        if !scrub.is_running() {
            let Scrub { pass, ended, damage, .. } = scrub;
            let begun = self.shared.clock.wall();
            scrub = Scrub { pass: pass + 1, begun, ended, damage, part: Part::Trees, ..Scrub::new() };
            self.write_scrub(&scrub)?;
        }
        Ok(scrub)
    }

    /// Goes on with the pass that is under way, if one is, until about `budget` bytes have been checked, at least one thing.
    ///
    /// # Errors
    /// The store cannot be listed, or its row cannot be written. Damage is no error: it is in the answer.
    pub fn scrub_step(&self, budget: u64) -> Result<Scrub> {
        let _one = self.scrubbing.lock();
        let mut scrub = self.scrub_status()?;
        if !scrub.is_running() {
            return Ok(scrub);
        }
        let mut left = budget.max(1);
        while left > 0 && scrub.is_running() {
            let before = (scrub.bytes, scrub.things);
            self.scrub_part(&mut scrub, left)?;
            // Things cost something even where they have no bytes.
            left = left.saturating_sub((scrub.bytes - before.0) + (scrub.things - before.1) * 512);
        }
        self.write_scrub(&scrub)?;
        Ok(scrub)
    }

    /// Replaces a damaged or missing object by good bytes, for instance a replica's. Nothing happens to the store before all of them were read
    /// and proved to be the object's. Files that the kernel reads from the old one by itself go on with that until they are closed.
    ///
    /// # Errors
    /// The bytes are not the object's; they cannot be read, or not be written.
    pub fn repair_object(&self, hash: Hash, bytes: &mut dyn Read) -> Result<()> {
        let mut writer = self.shared.objects.writer()?;
        let mut piece = vec![0; PIECE];
        loop {
            let n = match bytes.read(&mut piece) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.map_err(Error::io("reading bytes for", hash.to_string()))?,
            };
            if n == 0 {
                break;
            }
            if writer.len() + n as u64 > OBJECT_LEN_MAX {
                return Err(Error::Store(format!("the bytes offered for object {hash} are longer than any object")));
            }
            writer.write(&piece[..n])?;
        }
        self.shared.objects.repair(hash, writer.seal()?)?;
        self.scrub_repaired(&Thing::Object(hash))
    }

    /// Puts a copy of a base tree, all of whose bytes are there, in the place of a damaged one, once it is proved to be that tree. VEs that
    /// have it in memory go on with what they read when it was whole.
    ///
    /// # Errors
    /// The bytes are not the tree's: nothing was changed. The store failed.
    pub fn repair_tree(&self, hash: Hash, copy: TreeCopy) -> Result<()> {
        let _pin = self.place_tree(copy, hash)?;
        self.scrub_repaired(&Thing::Tree(hash))
    }

    /// A thing is whole again: it is listed no longer.
    fn scrub_repaired(&self, thing: &Thing) -> Result<()> {
        let _one = self.scrubbing.lock();
        let mut scrub = self.scrub_status()?;
        scrub.damage.retain(|bad| bad.thing != *thing);
        self.write_scrub(&scrub)
    }

    fn write_scrub(&self, scrub: &Scrub) -> Result<()> {
        let mut batch = Batch::default();
        batch.put(Table::System, rows::scrub(), codec::encode(scrub));
        Ok(self.shared.meta.write(batch)?)
    }

    /// Takes note of a damaged thing.
    fn scrub_found(&self, scrub: &mut Scrub, thing: Thing, detail: &dyn std::fmt::Display) {
        let mut detail = detail.to_string();
        let end = (0..=DETAIL_MAX.min(detail.len())).rev().find(|n| detail.is_char_boundary(*n)).unwrap_or(0);
        detail.truncate(end);
        tracing::error!(?thing, detail, "scrub: damage");
        scrub.found += 1;
        let pass = scrub.pass;
        if let Some(known) = scrub.damage.iter_mut().find(|bad| bad.thing == thing) {
            (known.pass, known.detail) = (pass, detail);
            return;
        }
        if scrub.damage.len() < DAMAGE_MAX {
            let readers = self.readers_of(&thing).unwrap_or_else(|e| {
                tracing::warn!(error = %e, "scrub: looking for who reads it");
                Vec::new()
            });
            scrub.damage.push(Bad { thing, detail, since: self.shared.clock.wall(), pass, readers });
        }
    }
}

#[cfg(test)]
mod tests;
