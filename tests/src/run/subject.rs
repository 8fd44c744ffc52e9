//! One VE under test: what it must be now, what it must at least be after a power cut, and what its versions were.

use std::collections::BTreeMap;
use std::sync::Arc;

use vefs::Ve;
use vefs::clock::Timestamp;
use vefs::ids::{Hash, InodeNo, Lineage, TxnNo};
use vefs::op::Op;
use vefs::ve::Snapshot;

use crate::model::{Model, Reader, compare};
use crate::reader::Past;

/// Something that was carried out as one record.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A file operation, at a time.
    Op(Op, Timestamp),
    /// New quotas: bytes, inodes.
    Quota(u64, u64),
    /// A hold of this name on a version, or on all from there on.
    Hold(String, TxnNo, bool),
    /// It was released.
    Release(String),
}

/// The state of a VE as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The file system.
    pub model: Model,
    /// The quotas: bytes, inodes.
    pub quota: (u64, u64),
    /// The holds: the version, and whether all later ones as well.
    pub holds: BTreeMap<String, (TxnNo, bool)>,
}

impl Expected {
    /// Carries an entry out.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Op(op, now) => drop(self.model.apply(op, *now)),
            Entry::Quota(bytes, inodes) => {
                self.model.set_quota(*bytes, *inodes);
                self.quota = (*bytes, *inodes);
            }
            Entry::Hold(name, txn, onwards) => drop(self.holds.insert(name.clone(), (*txn, *onwards))),
            Entry::Release(name) => drop(self.holds.remove(name)),
        }
    }

    /// Says where a VE first differs from this: attributes of some inodes first, as that is cheap.
    pub fn compare(&self, ve: &Ve, cheap_first: &[InodeNo]) -> Result<(), String> {
        let settings = ve.settings();
        let quota = (settings.quota_bytes, settings.quota_inodes);
        if quota != self.quota {
            return Err(format!("quota: model {:?}, real {quota:?}", self.quota));
        }
        for ino in cheap_first {
            let (model, real) = (self.model.inode(*ino), Reader::inode(ve, *ino));
            if model != real {
                return Err(format!("inode {ino}: model {model:?}, real {real:?}"));
            }
        }
        let holds = ve.holds().map_err(|e| format!("holds: {e}"))?;
        let holds: BTreeMap<_, _> = holds.into_iter().map(|(name, h)| (name, (h.txn, h.onwards))).collect();
        if holds != self.holds {
            return Err(format!("holds: model {:?}, real {holds:?}", self.holds));
        }
        compare(&self.model, ve)?;
        let mut orphans = ve.orphans().map_err(|e| format!("orphans: {e}"))?;
        orphans.sort();
        let ours = self.model.orphans();
        if orphans != ours {
            return Err(format!("orphans: model {ours:?}, real {orphans:?}"));
        }
        Ok(())
    }
}

/// A version whose state is known.
#[derive(Clone)]
pub struct Version {
    /// Its chain hash.
    pub chain: Hash,
    /// Its state.
    pub model: Arc<Model>,
}

/// A VE under test.
pub struct Subject {
    /// The VE, while a process runs.
    pub ve: Option<Arc<Ve>>,
    /// Its lineage, which never changes.
    pub lineage: Lineage,
    /// What it must be now.
    pub now: Expected,
    /// What it was when it was last made durable.
    pub durable: Expected,
    /// What was answered since then.
    pub since: Vec<Entry>,
    /// What was asked and not answered before the process died.
    pub unanswered: Option<Entry>,
    /// The last transaction that was sealed when it was last made durable.
    pub durable_txn: TxnNo,
    /// Versions with known states.
    pub versions: BTreeMap<TxnNo, Version>,
    /// Chain hashes of all transactions that were seen.
    pub chains: BTreeMap<TxnNo, Hash>,
    /// A version that somebody is reading, and what it must read.
    pub reading: Option<(Snapshot, Arc<Model>)>,
}

impl Subject {
    /// A VE that was just created, durably.
    pub fn new(ve: Arc<Ve>, model: Model, quota: (u64, u64)) -> Subject {
        let now = Expected { model, quota, holds: BTreeMap::new() };
        let mut subject = Subject {
            lineage: ve.position().lineage,
            ve: Some(ve),
            durable: now.clone(),
            now,
            since: Vec::new(),
            unanswered: None,
            durable_txn: TxnNo(0),
            versions: BTreeMap::new(),
            chains: BTreeMap::new(),
            reading: None,
        };
        subject.note_version(true);
        subject.acknowledge();
        subject
    }

    /// The running VE.
    pub fn ve(&self) -> &Arc<Ve> {
        self.ve.as_ref().expect("a process runs")
    }

    /// Something was carried out and answered.
    pub fn answered(&mut self, entry: Entry) {
        if !matches!(entry, Entry::Op(..)) {
            self.now.apply(&entry);
        }
        self.since.push(entry);
    }

    /// Everything up to now was said to be durable.
    pub fn acknowledge(&mut self) {
        self.durable_txn = self.ve().position().txn;
        if !self.since.is_empty() {
            self.durable = self.now.clone();
            self.since.clear();
        }
    }

    /// Notes the last sealed transaction, whose state is the present one; with `keep` the state as well.
    pub fn note_version(&mut self, keep: bool) {
        let position = self.ve().position();
        self.chains.insert(position.txn, position.chain);
        if keep && (self.versions.len() < 40 || position.txn.0.is_multiple_of(16)) {
            let model = Arc::new(self.now.model.clone());
            self.versions.insert(position.txn, Version { chain: position.chain, model });
        }
    }

    /// Notes the last sealed transaction if it is a new one.
    pub fn note_new_version(&mut self) {
        if self.chains.keys().next_back().is_none_or(|last| *last < self.ve().position().txn) {
            self.note_version(true);
        }
    }

    /// After a restart: finds the state the VE is in among those it may be in, and goes on from there. With `all` nothing that was
    /// answered may be missing.
    pub fn settle(&mut self, all: bool) -> Result<(), String> {
        let ve = self.ve().clone();
        let entries: Vec<Entry> = self.since.drain(..).collect();
        let answered = entries.len();
        let entries: Vec<Entry> = entries.into_iter().chain(self.unanswered.take()).collect();
        let mut state = self.durable.clone();
        let mut touched = Vec::new();
        {
            let mut scout = state.clone();
            for entry in &entries {
                if let Entry::Op(op, now) = entry {
                    super::touched::of(&scout.model, op, &mut touched);
                    if let Ok(vefs::op::Reply::Inode(ino, _)) = scout.model.apply(op, *now) {
                        touched.push(ino);
                    }
                } else {
                    scout.apply(entry);
                }
            }
        }
        touched.sort_unstable();
        touched.dedup();
        let mut reasons = Vec::new();
        for k in 0..=entries.len() {
            if k > 0 {
                state.apply(&entries[k - 1]);
            }
            if all && k < answered {
                continue;
            }
            match state.compare(&ve, &touched) {
                Ok(()) => return self.settled(state),
                Err(e) => reasons.push(format!("  after {k}: {e}")),
            }
        }
        let skip = reasons.len().saturating_sub(12);
        let least = if all { answered } else { 0 };
        let list = reasons[skip..].join("\n");
        Err(format!("the state is none of those after {least} to {} of the operations since:\n{list}", entries.len()))
    }

    fn settled(&mut self, state: Expected) -> Result<(), String> {
        let position = self.ve().position();
        if position.lineage != self.lineage {
            return Err(format!("the lineage was {}, is {}", self.lineage, position.lineage));
        }
        if position.txn < self.durable_txn {
            return Err(format!("{} was durable, the position is {}", self.durable_txn, position.txn));
        }
        // Checks G13: the same number, the same chain hash, except for what was never durable.
        if let Some(chain) = self.chains.get(&position.txn)
            && *chain != position.chain
            && position.txn <= self.durable_txn
        {
            return Err(format!("transaction {}: chain hash was {chain}, is {}", position.txn, position.chain));
        }
        let lost =
            |txn: &TxnNo, chain: &Hash| *txn > position.txn || (*txn == position.txn && *chain != position.chain);
        self.chains.retain(|txn, chain| !lost(txn, chain));
        self.versions.retain(|txn, v| !lost(txn, &v.chain));
        self.now = state.clone();
        self.durable = state;
        self.durable_txn = position.txn;
        self.note_version(false);
        Ok(())
    }

    /// Reads a version whose state is known, if it is still kept, and compares; true when it was there.
    pub fn check_version(&self, txn: TxnNo) -> Result<bool, String> {
        let Some(version) = self.versions.get(&txn) else { return Ok(false) };
        let snapshot = match self.ve().version(txn) {
            Ok(s) => s,
            Err(vefs::Error::Posix(vefs::errno::Errno::ENOENT)) => return Ok(false),
            Err(e) => return Err(format!("version {txn}: {e}")),
        };
        compare_past(&snapshot, &version.model)?;
        Ok(true)
    }

    /// Compares the list of versions with the chain hashes seen and the holds, and forgets the states of versions that are gone.
    pub fn check_list(&mut self) -> Result<Vec<TxnNo>, String> {
        let listed = self.ve().versions().map_err(|e| format!("versions: {e}"))?;
        for row in &listed {
            if let Some(chain) = self.chains.get(&row.position.txn)
                && *chain != row.position.chain
            {
                return Err(format!("version {}: chain {chain} became {}", row.position.txn, row.position.chain));
            }
        }
        let txns: Vec<TxnNo> = listed.iter().map(|r| r.position.txn).collect();
        if let Some((name, (txn, _))) = self.now.holds.iter().find(|(_, (t, _))| *t > TxnNo(0) && !txns.contains(t)) {
            return Err(format!("version {txn}, which {name:?} holds, is not listed"));
        }
        for txn in self.versions.keys().copied().collect::<Vec<_>>() {
            if !txns.contains(&txn) {
                if txn > TxnNo(0) && self.check_version(txn)? {
                    return Err(format!("version {txn} is not listed and can be read"));
                }
                self.versions.remove(&txn);
            }
        }
        Ok(txns)
    }
}

/// Compares a version with the state it had.
pub fn compare_past(snapshot: &Snapshot, model: &Model) -> Result<(), String> {
    let usage = model.usage().map_err(|e| format!("usage: {e}"))?;
    compare(model, &Past(snapshot, usage)).map_err(|e| format!("version {}: {e}", snapshot.txn()))
}
