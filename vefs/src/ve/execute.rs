//! Carrying out an operation: plan, record, apply, answer.
//!
//! Invariant: the record is in the journal (the page cache at least) before it is applied and before anybody is answered;
//! so whatever was answered survives the daemon's death (promise G31).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::envelope::{Envelope, Memo};
use super::{State, Ve};
use crate::change::validate::validate;
use crate::change::{Body, Change, PayloadRef, Purpose, Settings};
use crate::clock::Timestamp;
use crate::codec;
use crate::content::{ExtentPlace, Location, Place};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::format::record::{self, FrameKind};
use crate::ids::{Hash, InodeNo, PayloadId};
use crate::journal::Written;
use crate::limits;
use crate::op::{Op, Reply};
use crate::plan::{self, Context, Then};
use crate::state::apply::apply;
use crate::state::view;
use crate::types::{Extent, Inode, Source};

/// Memory that is kept for encoding the next record.
const ENCODED_MAX: usize = 16 << 10;

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The kernel's number of the request; 0 when nobody will ask again.
    pub unique: u64,
    /// Since when the change may be thought of as made (`CLOCK_BOOTTIME`), where that is not now: pages that waited in the kernel.
    pub since: Option<std::time::Duration>,
}

impl Request {
    /// One that the kernel may send again under this number.
    pub fn numbered(unique: u64) -> Request {
        Request { unique, since: None }
    }
}

impl Ve {
    /// Carries out an operation. When this returns, it survives the daemon's death; it survives power loss after
    /// [`Ve::sync`] or a tick.
    pub fn execute(&self, op: &Op, request: Request) -> Result<Reply> {
        let (mut op, mut is_rest) = (Cow::Borrowed(op), false);
        loop {
            let (reply, then) = self.step(&op, request, is_rest)?;
            match then {
                Then::Nothing => return Ok(reply),
                Then::First(first) => _ = self.execute(&first, Request::default())?,
                Then::Rest(rest) => (op, is_rest) = (Cow::Owned(*rest), true),
                // It was cut before it goes.
                Then::Trim(ino) if matches!(*op, Op::Reap { .. }) => _ = self.trim(ino)?,
                // The file is cut, whatever becomes of this: what it does not need any more goes before its content changes again.
                Then::Trim(ino) => match self.trim(ino) {
                    Ok(inode) => return Ok(Reply::Inode(ino, inode)),
                    Err(e) => {
                        tracing::warn!(ve = %self.id, %ino, error = %e, "taking away what a cut file does not need");
                        return Ok(reply);
                    }
                },
            }
        }
    }

    /// Takes away what a file that was cut does not need. Gives the file as it is then.
    pub(crate) fn trim(&self, ino: InodeNo) -> Result<Inode> {
        self.execute(&Op::Trim { ino, from: 0 }, Request::default())?;
        self.inode(ino)
    }

    /// Carries out an operation, or a first part of it.
    fn step(&self, op: &Op, request: Request, is_rest: bool) -> Result<(Reply, Then)> {
        self.make_room();
        let now = self.shared.clock.wall();
        let mut s = self.recording()?;
        let ctx = Context { is_rest, ..s.context(now, self.shared.options.extents_most) };
        let plan = plan::plan(&s.tables, &ctx, op)?;
        if plan.changes.is_empty() {
            return Ok((plan.reply, plan.then));
        }
        if !plan.frees {
            s.check_room(&self.shared)?;
        }
        match (op, &plan.then) {
            (Op::Write { ino, .. } | Op::CopyRange { dst: ino, .. }, _) => s.note_write(*ino, self.shared.clock.boot()),
            // If it is not trimmed now, it is when it is tidied.
            (_, Then::Trim(ino)) => s.note_write(*ino, self.shared.clock.boot()),
            _ => {}
        }
        // What has happened in part has no answer yet: it is carried out once more when it is asked for again.
        let unique = if matches!(plan.then, Then::Rest(_)) { 0 } else { request.unique };
        let envelope = Envelope { unique, memo: (unique != 0).then(|| Memo::from(&plan.reply)), place: None };
        s.hooks.since = request.since;
        let recorded = s.record(&self.shared, Purpose::Operation, plan.changes, plan.payload, envelope);
        s.hooks.since = None;
        recorded?;
        self.after(s);
        Ok((plan.reply, plan.then))
    }

    /// Erases orphans, all in one record, but for those in many pieces. One that has a name again, or is gone already, is left alone. Errors: as
    /// [`Ve::execute`], and then those that were left are not erased.
    pub fn reap(&self, inos: &[InodeNo]) -> Result<()> {
        let mut left: BTreeSet<InodeNo> = inos.iter().copied().collect();
        while !left.is_empty() {
            left = self.reap_some(&left)?;
            left.iter().try_for_each(|ino| self.trim(*ino).map(drop))?;
        }
        Ok(())
    }

    /// Erases orphans. Gives those in many pieces, which were cut instead.
    fn reap_some(&self, inos: &BTreeSet<InodeNo>) -> Result<BTreeSet<InodeNo>> {
        self.make_room();
        let now = self.shared.clock.wall();
        let mut s = self.recording()?;
        let mut changes = Vec::with_capacity(inos.len() + 1);
        let (mut bytes, mut inodes) = (0i64, 0i64);
        let mut left = BTreeSet::new();
        s.tables.know_maps(inos)?;
        // The record has what is taken from all of them.
        let most = (self.shared.options.extents_most / inos.len()).max(1);
        for ino in inos.iter().copied() {
            match plan::plan(&s.tables, &s.context(now, most), &Op::Reap { ino }) {
                Ok(plan) => {
                    if let Then::Trim(heavy) = plan.then {
                        left.insert(heavy);
                    }
                    changes.extend(plan.changes.into_iter().filter(|change| match change {
                        Change::Usage(b, i) => {
                            (bytes, inodes) = (bytes.saturating_add(*b), inodes.saturating_add(*i));
                            false
                        }
                        _ => true,
                    }));
                }
                Err(Error::Posix(Errno::ENOENT | Errno::EBUSY)) => {}
                Err(e) => return Err(e),
            }
        }
        if changes.is_empty() {
            return Ok(left);
        }
        if (bytes, inodes) != (0, 0) {
            changes.push(Change::Usage(bytes, inodes));
        }
        s.record(&self.shared, Purpose::Operation, changes, None, Envelope::default())?;
        self.after(s);
        Ok(left)
    }

    /// The state, for a record to be planned on it. No transaction has more than one may have (a replica would refuse it each time it came): who left
    /// a full one behind has the lock no more, and may not have sealed it yet.
    pub(super) fn recording(&self) -> Result<MutexGuard<'_, State>> {
        let mut s = self.state.lock();
        s.journal.check()?;
        if s.open.is_full() {
            s.seal(&self.shared)?;
        }
        Ok(s)
    }

    /// Before a record: what has grown far too large is published here and now. Not behind one, where somebody publishes in the background: the operation has
    /// its answer then, and until it is given others are carried out; of those many the answers are kept, and not of any number (promise G7).
    fn make_room(&self) {
        if self.crowded.load(Ordering::Relaxed)
            && self.crowded.swap(false, Ordering::Relaxed)
            && self.shared.has_publisher()
            && let Err(e) = self.relieve(true)
        {
            tracing::error!(ve = %self.id, error = %e, "publishing under load");
        }
    }

    /// After a record: what has grown too large is sealed, and handed to who publishes.
    fn after(&self, s: MutexGuard<'_, State>) {
        let full = s.open.is_full();
        // While something is being published already, more transactions would help nobody; only memory's limit counts.
        let bound =
            if s.tables.frozen.is_none() { self.shared.options.overlay_soft } else { self.shared.options.overlay_hard };
        let weight = s.tables.active.weight();
        drop(s);
        let heavy = weight >= bound;
        if weight >= self.shared.options.overlay_hard {
            self.crowded.store(true, Ordering::Relaxed);
        }
        if full || heavy {
            // The operation is done, whatever becomes of this.
            let done = if heavy { self.relieve(false) } else { self.seal() };
            if let Err(e) = done {
                tracing::error!(ve = %self.id, error = %e, "sealing under load");
            }
        }
    }

    /// The overlay has grown: seals, freezes, and sees to it that it is published; with `wait`, or where nobody else does it, before this returns.
    pub(crate) fn relieve(&self, wait: bool) -> Result<()> {
        self.make_hashes();
        let mut s = self.state.lock();
        s.seal(&self.shared)?;
        let hard = s.tables.active.weight() >= self.shared.options.overlay_hard;
        let frozen = s.freeze();
        drop(s);
        if frozen && self.shared.wake_publisher(self.id) {
            return Ok(());
        }
        if (hard && wait) || !self.shared.has_publisher() {
            self.publish()?;
        }
        Ok(())
    }

    /// Changes the VE's settings.
    pub fn set_settings(&self, settings: Settings) -> Result<()> {
        let mut s = self.recording()?;
        let change = Change::PutSettings(settings.clone());
        s.record(&self.shared, Purpose::Operation, vec![change], None, Envelope::default())?;
        s.settings = settings;
        let watcher = s.hooks.watcher.clone();
        drop(s);
        if let Some(watcher) = watcher {
            watcher.durable();
        }
        Ok(())
    }
}

impl State {
    /// ENOSPC for operations that take space, while the disk is nearly full, or while publishing does not keep up with memory.
    fn check_room(&self, shared: &crate::store::Shared) -> Result<()> {
        if shared.is_tight()? {
            return Err(Error::NoSpace { what: "an operation beyond the reserve" });
        }
        if self.tables.active.weight() >= shared.options.overlay_hard.saturating_mul(4) {
            return Err(Error::NoSpace { what: "state that cannot be published" });
        }
        Ok(())
    }

    /// What a plan looks at besides the state.
    fn context(&self, now: Timestamp, extents_most: usize) -> Context<'_> {
        let (usage, payload) = (self.tables.usage, self.next_payload());
        Context { now, usage, settings: &self.settings, payload, extents_most, is_rest: false }
    }

    /// The id that the next record's payload gets.
    pub fn next_payload(&self) -> PayloadId {
        PayloadId { txn: self.open.txn, offset: self.open.payload }
    }

    /// Writes one record, planned on what [`Ve::recording`] gave, and applies it. After an error of the journal the VE is read-only; after any other
    /// nothing changed.
    pub fn record(
        &mut self,
        shared: &crate::store::Shared,
        purpose: Purpose,
        changes: Vec<Change>,
        payload: Option<Bytes>,
        mut envelope: Envelope,
    ) -> Result<()> {
        self.check_writer()?;
        self.check_fence()?;
        if changes.len() > limits::CHANGES_MAX {
            return Err(Errno::EINVAL.into());
        }
        if let Some(bytes) = &payload {
            envelope.place = self.place_beside(bytes, &changes)?;
        }
        let bulk = envelope.place.is_some();
        let inline: &[u8] = if bulk { &[] } else { payload.as_deref().unwrap_or(&[]) };
        let payload_ref =
            payload.as_ref().map(|p| PayloadRef { len: p.len() as u64, hash: (!bulk).then(|| Hash::of(p)) });
        let body = Body { purpose, changes, payload: payload_ref };
        // What recovery would refuse must never be written: it would cost the VE everything behind it.
        validate(&body, self.open.txn).map_err(Error::Change)?;
        let (mut body_bytes, mut envelope_bytes) = std::mem::take(&mut self.encoded);
        body_bytes.clear();
        envelope_bytes.clear();
        codec::encode_into(&body, &mut body_bytes);
        codec::encode_into(&envelope, &mut envelope_bytes);
        if body_bytes.len() > limits::BODY_MAX || envelope_bytes.len() > limits::ENVELOPE_MAX {
            return Err(Errno::EFBIG.into());
        }
        let (txn, epoch) = (self.open.txn, self.epoch);
        self.journal.allow_growth(shared.space.room());
        let written = self.journal.append(FrameKind::Body, txn, epoch, &body_bytes, &envelope_bytes, inline)?;
        if self.journal.asks_for_spare() {
            shared.wake_preparer(self.tables.ve);
        }
        self.written += record::frame_len(body_bytes.len(), envelope_bytes.len(), inline.len());
        let frame = record::frame_len(body_bytes.len(), envelope_bytes.len(), 0);
        shared.space.spend(frame + body.payload.map_or(0, |p| p.len));
        shared.space.hold(inline.len() as u64);
        self.tables.active.inline += inline.len() as u64;
        if let Some(bytes) = payload.as_ref().filter(|_| bulk) {
            self.open.pending.push(shared.hashes.hash(bytes));
        }
        self.tell(&body, body_bytes.len() as u64, bulk);
        self.enter(&body, &body_bytes, envelope.place, written_place(&written, inline));
        if body_bytes.capacity() + envelope_bytes.capacity() <= ENCODED_MAX {
            self.encoded = (body_bytes, envelope_bytes);
        }
        if envelope.unique != 0
            && let Some(memo) = envelope.memo
        {
            self.answered.push(envelope.unique, memo);
        }
        if let Err(e) = apply(&mut self.tables, txn, body.purpose, &body.changes) {
            // The journal has it and the state does not: only a replay can put that right.
            return Err(self.journal.poison(format!("applying a record: {e}")));
        }
        Ok(())
    }

    /// Tells who follows of a record that the journal has and the open transaction has not yet.
    fn tell(&self, body: &Body, len: u64, bulk: bool) {
        let Some(watcher) = &self.hooks.watcher else { return };
        let payload = body.payload.map_or(0, |p| p.len);
        if bulk {
            watcher.bulk(self.next_payload(), payload);
        }
        match self.hooks.since {
            _ if body.purpose != Purpose::Operation => {}
            None => watcher.accepted(self.open.txn, len + payload),
            Some(since) => watcher.accepted_late(self.open.txn, len + payload, since),
        }
    }

    /// Writes a payload that does not belong into the journal to an extent file: bulk, and what continues a file's body.
    fn place_beside(&mut self, bytes: &[u8], changes: &[Change]) -> Result<Option<ExtentPlace>> {
        let mapped = changes.iter().find_map(|c| match c {
            Change::Map(ino, offset, Extent { source: Source::Payload(_), .. }) => Some((*ino, *offset)),
            _ => None,
        });
        if let Some((ino, offset)) = mapped
            && (bytes.len() >= limits::INLINE_MAX || self.files.has_body(ino))
        {
            let size = view::inode(&self.tables, ino)?.map_or(0, |i| i.size);
            if let Some(place) = self.files.append_body(ino, offset, size, bytes)? {
                return Ok(Some(place));
            }
        }
        if bytes.len() >= limits::INLINE_MAX { self.files.append(bytes).map(Some) } else { Ok(None) }
    }

    /// Takes a record that is in the journal into the open transaction: chain hash, payload ids, place.
    pub fn enter(&mut self, body: &Body, bytes: &[u8], place: Option<ExtentPlace>, inline: Option<Place>) {
        if let Some(payload) = &body.payload {
            let id = self.next_payload();
            let place = place.map(Place::from).or(inline);
            if let Some(place) = place {
                self.tables.active.places.insert(id, place);
            }
            self.open.payload += payload.len;
        }
        self.open.absorb(bytes);
    }
}

fn written_place(written: &Written, inline: &[u8]) -> Option<Place> {
    if inline.is_empty() {
        return None;
    }
    let (offset, crc) = (written.payload_offset, written.payload_crc);
    let at = Location::Journal { segment: written.segment.clone(), offset, crc };
    Some(Place { len: inline.len() as u64, at })
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;
