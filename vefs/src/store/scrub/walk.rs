//! Going through the parts. Whatever is found damaged is looked at a second time: it may have been removed or moved just then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{PIECE, Part, Scrub, Thing};
use crate::base::{BaseError, BaseTree};
use crate::content::read::read_extent;
use crate::content::{ExtentPlace, extent_file};
use crate::error::{Error, Result};
use crate::ids::{Hash, VeId};
use crate::meta::{MetaError, Scan, Table, rows};
use crate::object::ObjectError;
use crate::state::key::Value;
use crate::store::Store;
use crate::types::Source;
use crate::ve::Ve;

/// Rows looked at in one go.
const ROWS: usize = 4096;
/// The tables whose rows are checked.
const TABLES: [Table; 2] = [Table::Current, Table::History];

impl Store {
    /// Goes on in the present part until about `budget` bytes are checked or the part is over.
    pub(super) fn scrub_part(&self, scrub: &mut Scrub, budget: u64) -> Result<()> {
        let more = match scrub.part {
            Part::Trees => self.scrub_tree(scrub)?,
            Part::Objects => self.scrub_object(scrub, budget)?,
            Part::Payloads => self.scrub_payloads(scrub, budget)?,
            Part::Journals => self.scrub_journal(scrub)?,
            Part::Rows => self.scrub_rows(scrub)?,
            Part::Ended => false,
        };
        if !more {
            scrub.key.clear();
            scrub.part = match scrub.part {
                Part::Trees => Part::Objects,
                Part::Objects => Part::Payloads,
                Part::Payloads => Part::Journals,
                Part::Journals => Part::Rows,
                Part::Rows | Part::Ended => Part::Ended,
            };
            if scrub.part == Part::Ended {
                scrub.ended = Some(self.shared.clock.wall());
                // What this pass has not seen damaged is whole again, or gone.
                scrub.damage.retain(|bad| bad.pass == scrub.pass);
            }
        }
        Ok(())
    }

    fn scrub_tree(&self, scrub: &mut Scrub) -> Result<bool> {
        let mut all = self.trees()?;
        all.sort_unstable();
        let Some(hash) = all.into_iter().find(|hash| scrub.key.as_slice() < &hash.0[..]) else { return Ok(false) };
        scrub.key = hash.0.to_vec();
        scrub.things += 1;
        let storage = &*self.shared.storage;
        let path = BaseTree::path(hash);
        scrub.bytes += storage.open(&path).and_then(|f| f.len()).unwrap_or(0);
        match twice(|| BaseTree::open(storage, hash)) {
            Ok(tree) => {
                for object in tree.objects() {
                    if !self.shared.objects.has_body(object)? && storage.open(&path).is_ok() {
                        self.scrub_found(scrub, Thing::Object(object), &format!("it is missing, tree {hash} names it"));
                    }
                }
            }
            Err(BaseError::NotFound { .. }) => {}
            Err(e) => self.scrub_found(scrub, Thing::Tree(hash), &e),
        }
        Ok(true)
    }

    /// The key is the object's name, and how far it is checked where it is not done.
    fn scrub_object(&self, scrub: &mut Scrub, budget: u64) -> Result<bool> {
        let (last, offset) = match scrub.key.split_at_checked(32) {
            Some((hash, [])) => (Some(hash), None),
            Some((hash, offset)) => (Some(hash), Some(number(offset))),
            None => (None, None),
        };
        let all = self.shared.objects.list()?;
        let next = match (last, offset) {
            (Some(hash), Some(_)) => all.binary_search_by(|h| h.0[..].cmp(hash)).unwrap_or_else(|i| i),
            (Some(hash), None) => all.partition_point(|h| &h.0[..] <= hash),
            (None, _) => 0,
        };
        // The list is long to make: as many as the budget takes.
        let (mut left, mut from) = (budget, offset.filter(|_| all.get(next).map(|h| &h.0[..]) == last).unwrap_or(0));
        for hash in &all[next..] {
            if left == 0 {
                return Ok(true);
            }
            let checked = twice(|| self.shared.objects.verify_part(*hash, from, left.max(PIECE as u64)));
            scrub.key = hash.0.to_vec();
            match checked {
                Ok((read, more)) => {
                    scrub.bytes += read;
                    left = left.saturating_sub(read.max(512));
                    if more {
                        scrub.key.extend_from_slice(&(from + read).to_be_bytes());
                        return Ok(true);
                    }
                }
                Err(ObjectError::NotFound { .. }) => {}
                Err(e) => self.scrub_found(scrub, Thing::Object(*hash), &e),
            }
            scrub.things += 1;
            from = 0;
        }
        Ok(false)
    }

    /// The slots whose rows count, with their VEs.
    pub(super) fn named_slots(&self) -> Result<BTreeMap<VeId, VeId>> {
        let mut slots = BTreeMap::new();
        for ve in self.list()? {
            slots.extend(self.read_identity(ve)?.map(|i| (i.slot, ve)));
            for name in self.branch_names(ve)? {
                slots.extend(self.read_branch(ve, &name)?.map(|i| (i.slot, ve)));
            }
        }
        Ok(slots)
    }

    /// The key is the last row's.
    fn scrub_payloads(&self, scrub: &mut Scrub, budget: u64) -> Result<bool> {
        let slots = self.named_slots()?;
        let keys = self.rows_after(Table::Places, &scrub.key)?;
        let mut left = budget;
        let more = keys.len() == ROWS;
        for (key, value) in keys {
            if left == 0 {
                return Ok(true);
            }
            scrub.key.clone_from(&key);
            let slot = slot_of(&key);
            if !slots.contains_key(&slot) {
                continue;
            }
            scrub.things += 1;
            match rows::parse_place(&key, &value) {
                Err(e) => self.scrub_found(scrub, row(Table::Places, &key), &e),
                Ok((id, place)) => {
                    scrub.bytes += place.len;
                    left = left.saturating_sub(place.len.max(512));
                    if let Err(e) = self.check_payload(slot, &place)
                        // A collection may have moved it.
                        && self.shared.meta.get(Table::Places, &key)?.as_deref() == Some(&value)
                        && self.check_payload(slot, &place).is_err()
                    {
                        self.scrub_found(scrub, Thing::Payload(slot, id), &e);
                    }
                }
            }
        }
        Ok(more)
    }

    fn check_payload(&self, slot: VeId, place: &ExtentPlace) -> Result<()> {
        let path = extent_file::path(slot, place.file);
        let file = self.shared.storage.open(&path).map_err(Error::io("opening extent file", path))?;
        let mut bytes = vec![0; PIECE.min(place.len as usize)];
        let mut done = 0;
        while done < place.len {
            let n = (place.len - done).min(PIECE as u64) as usize;
            read_extent(&*file, place, done, &mut bytes[..n])?;
            done += n as u64;
        }
        Ok(())
    }

    /// The key is a slot, the position up to which its journal was read, and up to where that goes: as far as it was durable when the pass came.
    fn scrub_journal(&self, scrub: &mut Scrub) -> Result<bool> {
        let branches = self.branches.lock().values().cloned().collect::<Vec<_>>();
        let mut all: Vec<Arc<Ve>> = self.opened().into_iter().chain(branches).collect();
        all.sort_by_key(|ve| ve.slot());
        let (slot, from, upto) = match scrub.key.split_at_checked(12) {
            Some((first, upto)) => (slot_of(first), number(&first[4..]), number(upto)),
            None => (VeId(0), 0, 0),
        };
        for ve in all.into_iter().filter(|ve| ve.slot() >= slot) {
            let part = {
                let s = ve.state.lock();
                let (from, upto) = if ve.slot() == slot { (from, upto) } else { (0, s.journal.durable()) };
                s.journal.durable_part(from, upto).map(|(span, begin, end)| (span, begin, end, upto))
            };
            let Some((span, begin, end, upto)) = part else { continue };
            scrub.key = [&ve.slot().0.to_be_bytes()[..], &end.to_be_bytes(), &upto.to_be_bytes()].concat();
            scrub.things += 1;
            scrub.bytes += end - begin;
            if let Err(e) = twice(|| span.each(&mut |_, _| Ok(()))) {
                self.scrub_found(scrub, Thing::Journal(ve.slot()), &e);
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// The key is the number of a table and the last row's key.
    fn scrub_rows(&self, scrub: &mut Scrub) -> Result<bool> {
        let slots = self.named_slots()?;
        let (number, after) = match scrub.key.split_first() {
            Some((number, after)) => (usize::from(*number), after.to_vec()),
            None => (0, Vec::new()),
        };
        let Some(table) = TABLES.get(number).copied() else { return Ok(false) };
        let found = self.rows_after(table, &after)?;
        let Some((last, _)) = found.last() else {
            scrub.key = vec![number as u8 + 1];
            return Ok(true);
        };
        scrub.key = [&[number as u8][..], last].concat();
        let mut seen = BTreeSet::new();
        for (key, value) in found.iter().filter(|(key, _)| slots.contains_key(&slot_of(key))) {
            scrub.things += 1;
            scrub.bytes += (key.len() + value.len()) as u64;
            match check_row(table, key, value) {
                Err(e) => self.scrub_found(scrub, row(table, key), &e),
                Ok(Some(object)) if seen.insert(object) && !self.shared.objects.has_body(object)? => {
                    // A collection removes rows first, then what only they name.
                    if self.shared.meta.get(table, key)?.as_ref() == Some(value)
                        && !self.shared.objects.has_body(object)?
                    {
                        self.scrub_found(scrub, Thing::Object(object), &"it is missing, a file names it");
                    }
                }
                Ok(_) => {}
            }
        }
        Ok(true)
    }

    /// Up to [`ROWS`] rows of a table behind a key.
    fn rows_after(&self, table: Table, after: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let from = if after.is_empty() { Vec::new() } else { [after, &[0]].concat() };
        let mut out = Vec::new();
        self.shared.meta.scan(table, &from, &[0xff; 512], &mut |k, v| {
            out.push((k.to_vec(), v.to_vec()));
            if out.len() < ROWS { Scan::Next } else { Scan::Stop }
        })?;
        Ok(out)
    }
}

/// What fails is tried a second time.
fn twice<T, E>(check: impl Fn() -> std::result::Result<T, E>) -> std::result::Result<T, E> {
    check().or_else(|_| check())
}

fn row(table: Table, key: &[u8]) -> Thing {
    Thing::Row(table.name().to_owned(), key.to_vec())
}

fn slot_of(key: &[u8]) -> VeId {
    VeId(key.first_chunk().map_or(0, |b| u32::from_be_bytes(*b)))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_be_bytes(*b))
}

/// Checks a row; the object that it names.
fn check_row(table: Table, key: &[u8], value: &[u8]) -> std::result::Result<Option<Hash>, MetaError> {
    let value = if table == Table::Current {
        rows::current_row(&rows::parse_current(key)?, value)?.value
    } else {
        let (logical, birth) = rows::parse_history(key)?;
        rows::former_row(&logical, birth, value)?.value
    };
    let Value::Extent(extent) = value else { return Ok(None) };
    Ok(object_of(&extent.source))
}

/// The object that an extent's source names.
pub(super) fn object_of(source: &Source) -> Option<Hash> {
    match source {
        Source::Object { hash, .. } | Source::Base { hash, .. } => Some(*hash),
        Source::Payload(_) | Source::Unwritten => None,
    }
}
