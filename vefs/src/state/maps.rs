//! Extent maps and payload places that were used of late, whole and in order, so that reading and writing a file in many pieces does
//! not go through the metadata store for each of them.
//!
//! Invariants
//! - A map that is here is complete: the same as the layers below and above give together. Every change of an extent goes through
//!   [`Maps::set`] as well; publishing changes the layers and not what they give.
//! - A place that is here is what the metadata store has, or had before its bytes were moved: [`Places::clear`] is called, under the
//!   VE's lock, after each write of places, and what was moved away is removed later still.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use crate::content::Place;
use crate::ids::{InodeNo, PayloadId};
use crate::types::Extent;

/// Extents of a file beyond which its map is not kept.
pub(super) const FILE_MAX: usize = 64 << 10;
/// Extents kept per VE, about 80 bytes each.
const TOTAL_MAX: usize = 96 << 10;
/// Questions about maps that are not kept after which all are let go, so that those in use now get their turn: reading them in again costs little
/// beside so many questions.
const PATIENCE: usize = 32 << 10;
/// Places kept per VE.
const PLACES_MAX: usize = 4096;

/// A file's extents by offset; `None` for one that has too many.
type Map = Option<BTreeMap<u64, Extent>>;

/// The maps.
#[derive(Default)]
pub struct Maps {
    files: RefCell<HashMap<InodeNo, Map, RandomState>>,
    total: Cell<usize>,
    /// Questions about maps that are not kept.
    turned_away: Cell<usize>,
}

/// Whether a map is known.
pub enum Known<T> {
    /// It is; this was asked of it.
    Map(T),
    /// Nobody has read it yet.
    Unknown,
    /// It has too many extents.
    TooLarge,
}

impl Maps {
    /// Asks something of a file's map.
    pub fn ask<T>(&self, ino: InodeNo, question: impl FnOnce(&BTreeMap<u64, Extent>) -> T) -> Known<T> {
        match self.files.borrow().get(&ino) {
            None => return Known::Unknown,
            Some(Some(map)) => return Known::Map(question(map)),
            Some(None) => {}
        }
        self.turned_away.set(self.turned_away.get() + 1);
        if self.turned_away.get() >= PATIENCE {
            self.let_go();
        }
        Known::TooLarge
    }

    /// Forgets everything, and gives back its memory. Gives how many extents that were.
    pub fn let_go(&self) -> usize {
        *self.files.borrow_mut() = HashMap::default();
        self.turned_away.set(0);
        self.total.replace(0)
    }

    /// Takes a file's whole map in, if it fits. It does not make the others go: with more maps in use than fit, each question would read a
    /// whole map in, to be let go before it is asked anything again.
    pub fn put(&self, ino: InodeNo, map: BTreeMap<u64, Extent>) {
        if self.files.borrow().len() >= PLACES_MAX {
            self.let_go();
        }
        let mut files = self.files.borrow_mut();
        let fits = map.len() <= FILE_MAX && self.total.get() + map.len() <= TOTAL_MAX;
        self.total.set(self.total.get() + if fits { map.len() } else { 0 });
        files.insert(ino, fits.then_some(map));
    }

    /// Takes note that a file has more extents than are kept.
    pub fn put_too_large(&self, ino: InodeNo) {
        if self.files.borrow().len() >= PLACES_MAX {
            self.let_go();
        }
        self.files.borrow_mut().insert(ino, None);
    }

    /// An extent is now this, or gone.
    pub fn set(&mut self, ino: InodeNo, offset: u64, extent: Option<Extent>) {
        let files = self.files.get_mut();
        let Some(Some(map)) = files.get_mut(&ino) else { return };
        let before = map.len();
        match extent {
            Some(e) => map.insert(offset, e),
            None => map.remove(&offset),
        };
        let after = map.len();
        self.total.set((self.total.get() + after).saturating_sub(before));
        if after > FILE_MAX || self.total.get() > TOTAL_MAX {
            self.total.set(self.total.get().saturating_sub(after));
            files.insert(ino, None);
        }
    }

    /// The file is gone, or its map may be another.
    pub fn forget(&mut self, ino: InodeNo) {
        if let Some(Some(map)) = self.files.get_mut().remove(&ino) {
            self.total.set(self.total.get().saturating_sub(map.len()));
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.files.get_mut().clear();
        self.total.set(0);
    }
}

/// Places of payloads by the id that they begin at.
#[derive(Default)]
pub struct Places(RefCell<BTreeMap<PayloadId, Place>>);

impl Places {
    /// The place that holds `id`, with the id that it begins at.
    pub fn get(&self, id: PayloadId) -> Option<(PayloadId, Place)> {
        let places = self.0.borrow();
        let (start, place) = places.range(..=id).next_back()?;
        (start.txn == id.txn && id.offset - start.offset < place.len).then(|| (*start, place.clone()))
    }

    /// Takes one in.
    pub fn put(&self, start: PayloadId, place: Place) {
        let mut places = self.0.borrow_mut();
        if places.len() >= PLACES_MAX {
            places.clear();
        }
        places.insert(start, place);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.get_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Source;

    fn piece() -> Extent {
        Extent { len: 1, source: Source::Unwritten }
    }

    #[test]
    fn a_map_that_grows_too_large_is_let_go() {
        let mut maps = Maps::default();
        maps.put(InodeNo(1), BTreeMap::new());
        for n in 0..FILE_MAX as u64 {
            maps.set(InodeNo(1), n * 2, Some(piece()));
        }
        assert!(matches!(maps.ask(InodeNo(1), BTreeMap::len), Known::Map(FILE_MAX)));
        maps.set(InodeNo(1), 1, Some(piece()));
        assert!(matches!(maps.ask(InodeNo(1), |_| ()), Known::TooLarge));
        assert_eq!(maps.total.get(), 0);
    }

    #[test]
    fn all_maps_together_are_bounded() {
        let maps = Maps::default();
        for ino in 0..10 {
            maps.put(InodeNo(ino), (0..FILE_MAX as u64 / 2).map(|n| (n * 2, piece())).collect());
            assert!(maps.total.get() <= TOTAL_MAX);
        }
        assert!(matches!(maps.ask(InodeNo(0), |_| ()), Known::Map(())));
        assert!(matches!(maps.ask(InodeNo(9), |_| ()), Known::TooLarge));
    }

    /// Maps that were small when they came grew one beside the other, without a bound.
    #[test]
    fn maps_that_grow_are_bounded_together() {
        let mut maps = Maps::default();
        (0..10).for_each(|ino| maps.put(InodeNo(ino), BTreeMap::new()));
        for n in 0..FILE_MAX as u64 / 2 {
            for ino in 0..10 {
                maps.set(InodeNo(ino), n * 2, Some(piece()));
                assert!(maps.total.get() <= TOTAL_MAX);
            }
        }
        let kept = (0..10).filter(|ino| matches!(maps.ask(InodeNo(*ino), |_| ()), Known::Map(()))).count();
        assert!((1..10).contains(&kept), "{kept}");
    }

    /// Random writes to more files than fit made each write read the map of its file, thousands of extents: a journal of 570 MB took minutes
    /// to be replayed.
    #[test]
    fn maps_that_do_not_fit_are_not_read_again_and_again() {
        let maps = Maps::default();
        let mut read = 0;
        for round in 0..1000 {
            for ino in (0..64).map(InodeNo) {
                if matches!(maps.ask(ino, |_| ()), Known::Unknown) {
                    read += 1;
                    maps.put(ino, (0..4096).map(|n| (n * 2, piece())).collect());
                }
            }
            assert!(round > 0 || read == 64);
        }
        assert!(read <= 64 * 3, "{read}");
        // Whoever is used alone gets his turn.
        while !matches!(maps.ask(InodeNo(63), |_| ()), Known::Map(())) {
            if matches!(maps.ask(InodeNo(63), |_| ()), Known::Unknown) {
                maps.put(InodeNo(63), (0..4096).map(|n| (n * 2, piece())).collect());
            }
        }
    }
}
