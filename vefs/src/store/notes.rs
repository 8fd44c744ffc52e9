//! Notes: what replication remembers of a VE's history beside the VE. Each is replaced whole, and durable when that returns; one at a time for a
//! history and a kind is the caller's matter.

use super::Store;
use super::files::{read_whole, write_whole};
use crate::error::{Error, Result};
use crate::format::note::{self, Kind, Note};
use crate::ids::Lineage;

const FOLDER: &str = "notes";

fn path(lineage: Lineage, kind: Kind) -> String {
    let lineage: String = lineage.0.iter().map(|b| format!("{b:02x}")).collect();
    format!("{FOLDER}/{lineage}.{}", kind.name())
}

impl Store {
    /// What is noted, if anything is.
    ///
    /// # Errors
    /// A damaged note, or one of another store or history.
    pub fn note(&self, lineage: Lineage, kind: Kind) -> Result<Option<Vec<u8>>> {
        let path = path(lineage, kind);
        let Some(bytes) = read_whole(&*self.shared.storage, &path, note::LEN)? else { return Ok(None) };
        let note = Note::parse(&bytes).map_err(|e| e.at("note", path.clone()))?;
        if (note.store, note.lineage, note.kind) != (self.shared.store, lineage, kind) {
            let detail = "it is about another store, history or matter".into();
            return Err(Error::Damage { what: "note", place: path, detail });
        }
        Ok(Some(note.body))
    }

    /// Notes this in the place of what was noted. Durable on return.
    ///
    /// # Errors
    /// More than [`note::BODY_MAX`] bytes; what the storage refuses.
    pub fn put_note(&self, lineage: Lineage, kind: Kind, body: &[u8]) -> Result<()> {
        let path = path(lineage, kind);
        let note = Note { store: self.shared.store, lineage, kind, body: body.to_vec() };
        let bytes = note.to_bytes().map_err(|e| e.at("note", path.clone()))?;
        write_whole(&*self.shared.storage, &path, &bytes)
    }

    /// Nothing is noted any more. A power cut may bring it back.
    pub fn drop_note(&self, lineage: Lineage, kind: Kind) -> Result<()> {
        self.remove_small(&path(lineage, kind))
    }

    /// How many notes there are.
    pub fn notes(&self) -> Result<usize> {
        Ok(self.shared.storage.list(FOLDER).map_err(Error::io("listing", FOLDER))?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    /// A note is there after a restart; one of another history, and one that was damaged, are told apart (checks G24, G28).
    #[test]
    fn notes_last() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("store");
        Store::create(&at).unwrap();
        let open = || Store::open(&at, Options { reserve: 0, ..Options::default() }).unwrap();
        let (one, two) = (Lineage([1; 16]), Lineage([2; 16]));
        let store = open();
        assert_eq!((store.note(one, Kind::Promises).unwrap(), store.notes().unwrap()), (None, 0));
        store.put_note(one, Kind::Promises, b"first").unwrap();
        store.put_note(one, Kind::Promises, b"then").unwrap();
        store.put_note(two, Kind::Unsettled, b"").unwrap();
        assert!(store.put_note(two, Kind::Unsettled, &[0; note::BODY_MAX + 1]).is_err());
        drop(store);
        let store = open();
        assert_eq!(store.note(one, Kind::Promises).unwrap().unwrap(), b"then");
        assert_eq!(store.note(two, Kind::Unsettled).unwrap().unwrap(), b"");
        assert_eq!(store.note(one, Kind::Unsettled).unwrap(), None);
        let file = |l: Lineage, k| at.join(path(l, k));
        std::fs::copy(file(one, Kind::Promises), file(two, Kind::Promises)).unwrap();
        assert!(matches!(store.note(two, Kind::Promises), Err(Error::Damage { .. })));
        let mut bytes = std::fs::read(file(one, Kind::Promises)).unwrap();
        bytes[80] ^= 1;
        std::fs::write(file(one, Kind::Promises), bytes).unwrap();
        assert!(store.note(one, Kind::Promises).unwrap_err().to_string().contains("damage in note at notes/01"));
        store.drop_note(one, Kind::Promises).unwrap();
        assert_eq!(store.note(one, Kind::Promises).unwrap(), None);
        store.drop_note(one, Kind::Promises).unwrap();
    }
}
