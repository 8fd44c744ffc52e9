//! Following another node's history: transactions come in whole, are proved by their hashes, journalled and applied by the same code as on
//! the node that made them.
//!
//! Crash points (promises G9 to G11): everything is checked before the first byte of a transaction is journalled; its frames and seal
//! are written under one hold of the lock, so no flush ends inside it; recovery of a follower drops a tail without a seal. Bulk bytes
//! that are put aside are not named by anything until their transaction is journalled, and are forgotten by a restart.
//!
//! A record that points a file at an object carries no bytes: the object is made here, from the file as it is, and must have the hash. A primary
//! begins a transaction with such a record, so the file is what it was when the primary sealed it.
//!
//! A payload of which nothing is left when its transaction ends may come without its bytes: a transaction is taken whole, and the states inside
//! it are no versions, so nobody can ask for them. Which payloads those are is found here from the bodies, not believed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::commit::chain_hash;
use super::envelope::Envelope;
use super::feed::cancelled::Tracker;
use super::feed::{FeedPayload, FeedTxn};
use super::{Open, State, Ve};
use crate::change::validate::validate;
use crate::change::{Body, Change, Seal};
use crate::codec;
use crate::content::{ExtentPlace, InBody, Location, Place};
use crate::error::{Error, Result};
use crate::format::record::{FrameKind, frame_len};
use crate::format::role::RoleKind;
use crate::ids::{Hash, InodeNo, PayloadId, TxnNo};
use crate::limits;
use crate::object::Pin;
use crate::state::apply::apply;
use crate::state::key::{Key, Value};
use crate::state::view::View;
use crate::types::{Extent, Source};

/// Bulk bytes that came ahead of their record.
pub(crate) struct Staged {
    place: ExtentPlace,
    hash: Hash,
}

/// Why a transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It is not what its hashes say, or does not follow. Nothing was changed.
    #[error("transaction {txn} is not what its hashes say: {detail}")]
    Corrupt {
        /// Which.
        txn: TxnNo,
        /// What was found.
        detail: String,
    },
    /// The store failed or is full. What was begun is not sealed; the VE has to be opened anew if it is read-only now.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A transaction that was proved.
struct Proved {
    bodies: Vec<Body>,
    seal: Seal,
    /// Places of bulk payloads, by record.
    places: Vec<Option<ExtentPlace>>,
}

impl Ve {
    /// Puts a whole bulk payload aside. `within`: where the primary has it, if it keeps the file's body in one piece.
    pub fn stage(&self, id: PayloadId, bytes: &[u8], within: Option<InBody>) -> Result<()> {
        let hash = Hash::of(bytes);
        let mut s = self.state.lock();
        s.journal.check()?;
        if self.shared.is_tight()? {
            return Err(Error::NoSpace { what: "a payload from a primary" });
        }
        let continued = within.map(|at| s.files.append_followed(at, bytes)).transpose()?.flatten();
        let place = continued.map_or_else(|| s.files.append(bytes), Ok)?;
        self.shared.space.spend(bytes.len() as u64);
        s.staged.insert(id, Staged { place, hash });
        Ok(())
    }

    /// Forgets everything that was put aside.
    pub fn unstage_all(&self) {
        let mut s = self.state.lock();
        s.staged.clear();
        s.files.end_followed();
    }

    /// Takes the transaction behind the head. All or nothing; durable after [`Ve::sync`].
    pub fn receive(&self, txn: &FeedTxn) -> Result<(), ReceiveError> {
        let proved = self.prove(txn)?;
        // From before an object has its name until a record names it, no collection may take it (promise G26).
        let _pins = self.make_objects(txn.position.txn, &proved)?;
        let heavy = {
            let mut s = self.state.lock();
            self.take(&mut s, txn, proved)?;
            s.tables.active.weight() >= self.shared.options.overlay_soft
        };
        if heavy {
            self.relieve(true)?;
        }
        Ok(())
    }

    /// Checks everything about a transaction that can be checked.
    fn prove(&self, txn: &FeedTxn) -> Result<Proved, ReceiveError> {
        let number = txn.position.txn;
        let corrupt = |detail: String| ReceiveError::Corrupt { txn: number, detail };
        let s = self.state.lock();
        let head = &s.head;
        if s.role.kind != RoleKind::Replica {
            return Err(corrupt("this node does not follow the VE".into()));
        }
        if number != head.txn.next() || txn.previous != head.chain || txn.position.lineage != head.lineage {
            return Err(corrupt(format!("it does not follow transaction {}", head.txn)));
        }
        if txn.position.epoch < head.epoch && head.txn != TxnNo(0) {
            return Err(corrupt(format!("epoch {} after {}", txn.position.epoch.0, head.epoch.0)));
        }
        let seal: Seal = codec::decode(&txn.seal).map_err(|e| corrupt(format!("its seal: {e}")))?;
        if seal.records as usize != txn.records.len() || seal.records == 0 || seal.records > limits::TXN_RECORDS_MAX {
            return Err(corrupt(format!("{} records, its seal says {}", txn.records.len(), seal.records)));
        }
        if seal.time < head.time || !seal.time.is_valid() {
            return Err(corrupt("its time is before the one before".into()));
        }
        let mut open = Open::after(head.chain, head.txn);
        let (mut bodies, mut tracker) = (Vec::new(), Tracker::new(number));
        for (i, record) in txn.records.iter().enumerate() {
            let at = |detail: String| corrupt(format!("record {i}: {detail}"));
            if record.body.len() > limits::BODY_MAX {
                return Err(at("its body is too long".into()));
            }
            let body: Body = codec::decode(&record.body).map_err(|e| at(e.to_string()))?;
            validate(&body, number).map_err(|e| at(e.to_string()))?;
            tracker.take(&body);
            open.absorb(&record.body);
            bodies.push(body);
        }
        let places = check_payloads(txn, &bodies, &tracker.cancelled(), &s.staged, &seal.payloads).map_err(corrupt)?;
        let chain = chain_hash(&open, &seal.payloads, seal.time, txn.position.epoch);
        if chain != txn.position.chain || chain != seal.chain {
            return Err(corrupt("its chain hash is another".into()));
        }
        Ok(Proved { bodies, seal, places })
    }

    /// Makes the objects that the transaction names and that are not here.
    fn make_objects(&self, txn: TxnNo, proved: &Proved) -> Result<Vec<Pin>, ReceiveError> {
        let mut wanted: BTreeMap<Hash, (usize, InodeNo)> = BTreeMap::new();
        for (i, body) in proved.bodies.iter().enumerate() {
            for change in &body.changes {
                if let Change::Map(ino, _, Extent { source: Source::Object { hash, .. }, .. }) = change {
                    wanted.entry(*hash).or_insert((i, *ino));
                }
            }
        }
        let mut pins = Vec::new();
        for (hash, (record, ino)) in wanted {
            pins.push(self.shared.objects.pin(hash));
            if self.shared.objects.contains(hash).map_err(Error::from)? {
                continue;
            }
            let corrupt = |detail: &str| ReceiveError::Corrupt { txn, detail: format!("record {record}: {detail}") };
            if record != 0 {
                return Err(corrupt("it names an object that is not here"));
            }
            let seen = self.see(ino)?.ok_or_else(|| corrupt("it seals a file that is not here"))?;
            let staged = self.stage_body(ino, &seen)?;
            let staged = staged.ok_or_else(|| corrupt("the sealed file is too short"))?;
            if staged.hash() != hash {
                return Err(corrupt("the sealed file has another hash"));
            }
            self.shared.objects.place(vec![staged]).map_err(Error::from)?;
        }
        Ok(pins)
    }

    /// How often another node's changes were taken since this was opened, or another state took this one's place: whoever keeps something of the state asks.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// Once more.
    pub(crate) fn count_received(&self) {
        self.received.fetch_add(1, Ordering::SeqCst);
    }

    /// Journals and applies what was proved, under the lock.
    fn take(&self, s: &mut State, txn: &FeedTxn, proved: Proved) -> Result<()> {
        let number = txn.position.txn;
        s.journal.check()?;
        // Nobody else changes a follower, but a promotion or another session may have come in between.
        if s.head.txn.next() != number || s.head.chain != txn.previous || s.role.kind != RoleKind::Replica {
            return Err(Error::Store(format!("VE {} changed while transaction {number} was taken", self.id)));
        }
        let inline = |r: &super::feed::FeedRecord| match &r.payload {
            Some(FeedPayload::Inline(bytes)) => bytes.len(),
            _ => 0,
        };
        let total: u64 = txn.records.iter().map(|r| frame_len(r.body.len(), 64, inline(r))).sum();
        if self.shared.is_tight()? || total > self.shared.space.room() {
            self.shared.measure_space()?;
            if self.shared.space.is_tight() || total > self.shared.space.room() {
                return Err(Error::NoSpace { what: "a transaction from a primary" });
            }
        }
        let begun = (s.journal.position(), s.head.chain);
        self.count_received();
        s.open = Open::after(s.head.chain, s.head.txn);
        for ((record, body), place) in txn.records.iter().zip(&proved.bodies).zip(proved.places) {
            if let Err(e) = self.take_record(s, txn, record, body, place) {
                // Part of the transaction is in the journal: only a replay, which drops it, can put that right.
                return Err(s.journal.poison(format!("taking transaction {number}: {e}")));
            }
        }
        let payload = s.open.payload;
        let epoch = txn.position.epoch;
        let written = match s.journal.append(FrameKind::Seal, number, epoch, &txn.seal, &[], &[]) {
            Ok(written) => written,
            Err(e) => return Err(s.journal.poison(format!("sealing transaction {number}: {e}"))),
        };
        s.sealed(&proved.seal, epoch, begun.0, written.end, payload);
        s.note_received(&proved.bodies, self.shared.clock.boot());
        s.staged = s.staged.split_off(&PayloadId { txn: number.next(), offset: 0 });
        for change in proved.bodies.iter().flat_map(|b| &b.changes) {
            if let Change::PutSettings(settings) = change {
                s.settings = settings.clone();
            }
        }
        Ok(())
    }

    fn take_record(
        &self,
        s: &mut State,
        txn: &FeedTxn,
        record: &super::feed::FeedRecord,
        body: &Body,
        place: Option<ExtentPlace>,
    ) -> Result<()> {
        let inline: &[u8] = match &record.payload {
            Some(FeedPayload::Inline(bytes)) => bytes,
            _ => &[],
        };
        let envelope = codec::encode(&Envelope { place: place.clone(), ..Envelope::default() });
        s.journal.allow_growth(self.shared.space.room());
        let (number, epoch) = (txn.position.txn, txn.position.epoch);
        let written = s.journal.append(FrameKind::Body, number, epoch, &record.body, &envelope, inline)?;
        if s.journal.asks_for_spare() {
            self.shared.wake_preparer(s.tables.ve);
        }
        let frame = frame_len(record.body.len(), envelope.len(), inline.len());
        s.written += frame;
        self.shared.space.spend(frame);
        self.shared.space.hold(inline.len() as u64);
        s.tables.active.inline += inline.len() as u64;
        let inline = (!inline.is_empty()).then(|| Place {
            len: inline.len() as u64,
            at: Location::Journal {
                segment: written.segment.clone(),
                offset: written.payload_offset,
                crc: written.payload_crc,
            },
        });
        s.enter(body, &record.body, place, inline);
        apply(&mut s.tables, number, body.purpose, &body.changes)
    }

    /// How the VE is replicated.
    pub fn policy(&self) -> Result<crate::change::Policy> {
        match self.state.lock().tables.get(&Key::policy())? {
            Some(Value::Policy(policy)) => Ok(policy),
            _ => Ok(crate::change::Policy::default()),
        }
    }

    /// Changes how the VE is replicated. EINVAL for a policy that cannot be.
    pub fn set_policy(&self, policy: crate::change::Policy) -> Result<()> {
        crate::change::validate::policy(&policy).map_err(|_| crate::errno::Errno::EINVAL)?;
        let mut s = self.recording()?;
        let change = Change::PutPolicy(policy);
        s.record(&self.shared, crate::change::Purpose::Operation, vec![change], None, Envelope::default())
    }
}

/// Checks the payloads of a transaction against what its records and its seal say of them; the places of bulk ones.
fn check_payloads(
    txn: &FeedTxn,
    bodies: &[Body],
    cancelled: &[bool],
    staged: &BTreeMap<PayloadId, Staged>,
    late: &[Hash],
) -> Result<Vec<Option<ExtentPlace>>, String> {
    let mut late = late.iter().copied();
    let mut id = PayloadId { txn: txn.position.txn, offset: 0 };
    let mut places = Vec::with_capacity(bodies.len());
    for (i, ((record, body), cancelled)) in txn.records.iter().zip(bodies).zip(cancelled).enumerate() {
        let found = match (body.payload, &record.payload) {
            (None, None) => Ok(None),
            (Some(described), Some(payload)) => {
                let hash = described.hash.or_else(|| late.next());
                check_payload(described.len, hash, payload, *cancelled, staged.get(&id).filter(|_| names(payload, id)))
            }
            _ => Err("payload and its description differ".into()),
        };
        places.push(found.map_err(|detail| format!("record {i}: {detail}"))?);
        id.offset = id.offset.saturating_add(body.payload.map_or(0, |p| p.len));
    }
    match late.next() {
        Some(_) => Err("its seal has hashes of payloads that are not there".into()),
        None => Ok(places),
    }
}

fn names(payload: &FeedPayload, id: PayloadId) -> bool {
    matches!(payload, FeedPayload::Bulk(named, _) if *named == id)
}

/// Checks a payload against its length and hash; the place of a bulk one, which is `staged`.
fn check_payload(
    len: u64,
    hash: Option<Hash>,
    payload: &FeedPayload,
    cancelled: bool,
    staged: Option<&Staged>,
) -> Result<Option<ExtentPlace>, String> {
    let hash = hash.ok_or("no hash of its payload")?;
    if payload.size() != len {
        return Err(format!("{} bytes of payload where {len} are described", payload.size()));
    }
    match payload {
        FeedPayload::Inline(bytes) if bytes.len() > limits::INLINE_MAX => {
            Err(format!("{} bytes of payload within a record", bytes.len()))
        }
        FeedPayload::Inline(bytes) if Hash::of(bytes) == hash => Ok(None),
        FeedPayload::Bulk(..) => {
            let found = staged.ok_or("its payload is not here")?;
            let whole = found.place.len == len && found.hash == hash;
            if whole { Ok(Some(found.place.clone())) } else { Err("its payload has another hash".into()) }
        }
        // Bytes that something in the state after the transaction is made of have to be here.
        FeedPayload::Cancelled(_) if cancelled => Ok(None),
        FeedPayload::Cancelled(_) => Err("its payload is missing, and not all of it is overwritten or removed".into()),
        FeedPayload::Inline(_) => Err("its payload has another hash".into()),
    }
}

impl State {
    /// Extent files with bytes that were put aside.
    pub fn staged_files(&self) -> impl Iterator<Item = u64> {
        self.staged.values().map(|s| s.place.file)
    }
}
