//! The state of a VE while its journal is being read: each frame is checked and applied, and bulk bytes that nothing says were flushed are
//! remembered until something does, or until they are looked at.

use super::Open;
use super::commit::chain_hash;
use super::envelope::Envelope;
use super::feed::{Index, Sealed};
use super::hashing::PendingHash;
use super::recent::Recent;
use crate::change::validate::validate;
use crate::change::{Body, Seal};
use crate::codec;
use crate::content::extent_file::ExtentFiles;
use crate::content::read::read_extent;
use crate::content::{ExtentPlace, Location, Place};
use crate::error::{Error, Result};
use crate::format::record::FrameKind;
use crate::ids::Hash;
use crate::journal::Recovered;
use crate::meta::{Table, rows, rows::Head};
use crate::state::apply::apply;
use crate::state::publish;
use crate::state::tables::Tables;
use crate::store::Shared;

/// Bulk bytes of a frame that nothing yet says were flushed.
pub(super) struct Unproven {
    /// Journal position of the frame and after it, and its number.
    pub position: u64,
    pub end: u64,
    pub seq: u64,
    pub place: ExtentPlace,
}

/// The state that is being put together.
pub(super) struct Loader<'a> {
    pub shared: &'a Shared,
    pub index: Index,
    pub tables: Tables,
    pub files: ExtentFiles,
    pub head: Head,
    pub open: Open,
    pub unproven: Vec<Unproven>,
}

impl Loader<'_> {
    pub fn take(&mut self, r: &Recovered<'_>, answered: &mut Recent) -> Result<()> {
        let place = || format!("{} position {}", r.segment.path, r.position);
        let damage = |detail: String| Error::Damage { what: "journal frame", place: place(), detail };
        let header = &r.frame.header;
        if header.txn != self.open.txn {
            return Err(damage(format!("transaction {} where {} goes on", header.txn, self.open.txn)));
        }
        self.head.epoch = header.epoch;
        match header.kind {
            FrameKind::Body => {
                let body: Body = codec::decode(r.frame.body).map_err(|e| e.at("record body", place()))?;
                let envelope: Envelope =
                    codec::decode(r.frame.envelope).map_err(|e| e.at("record envelope", place()))?;
                validate(&body, header.txn).map_err(|e| damage(e.to_string()))?;
                self.body(r, body, envelope, answered).map_err(|e| match e {
                    Loading::Frame(detail) => damage(detail),
                    Loading::Other(e) => e,
                })
            }
            FrameKind::Seal => {
                let seal: Seal = codec::decode(r.frame.body).map_err(|e| e.at("seal", place()))?;
                let chain = chain_hash(&self.open, &seal.payloads, seal.time, header.epoch);
                let sound = seal.time >= self.head.time && seal.time.is_valid();
                if seal.records != self.open.records || seal.chain != chain || !sound {
                    return Err(damage(format!("seal of transaction {} does not match its records", header.txn)));
                }
                self.seal(&seal, r.end, header.seq + 1);
                Ok(())
            }
        }
    }

    fn body(
        &mut self,
        r: &Recovered<'_>,
        body: Body,
        envelope: Envelope,
        answered: &mut Recent,
    ) -> std::result::Result<(), Loading> {
        let place = match (&body.payload, &envelope.place) {
            (None, None) if r.frame.payload.is_empty() => None,
            // Its bytes are not here, as its primary sent none: nothing is left of them when the transaction ends, which was proved before it was
            // journalled. No payload that is written here is empty.
            (Some(_), None) if r.frame.payload.is_empty() => None,
            (Some(p), None) if p.len == r.frame.payload.len() as u64 => {
                if p.hash.is_some_and(|h| h != Hash::of(r.frame.payload)) {
                    return Err(Loading::Frame("payload does not match its hash".into()));
                }
                let at = Location::Journal {
                    segment: r.segment.clone(),
                    offset: r.payload_offset,
                    crc: r.frame.header.payload_crc(),
                };
                Some(Place { len: p.len, at })
            }
            (Some(p), Some(place)) if p.len == place.len && place.is_sane() && r.frame.payload.is_empty() => {
                self.unproven.push(Unproven {
                    position: r.position,
                    end: r.end,
                    seq: r.frame.header.seq,
                    place: place.clone(),
                });
                if p.hash.is_none()
                    && let Ok(file) = self.files.file(place.file)
                {
                    self.open.pending.push(PendingHash::stored(file, place.clone()));
                }
                Some(Place::from(place.clone()))
            }
            _ => return Err(Loading::Frame("payload and its description differ".into())),
        };
        if let Some(payload) = &body.payload {
            self.tables.active.inline += r.frame.payload.len() as u64;
            if let Some(place) = place {
                let id = crate::ids::PayloadId { txn: self.open.txn, offset: self.open.payload };
                self.tables.active.places.insert(id, place);
            }
            self.open.payload += payload.len;
        }
        self.open.absorb(r.frame.body);
        if envelope.unique != 0
            && let Some(memo) = envelope.memo
        {
            answered.push(envelope.unique, memo);
        }
        apply(&mut self.tables, self.open.txn, body.purpose, &body.changes).map_err(Loading::Other)
    }

    fn seal(&mut self, seal: &Seal, end: u64, seq: u64) {
        let txn = self.open.txn;
        let (begin, epoch, previous) = (self.head.journal, self.head.epoch, self.head.chain);
        let sealed = Sealed { txn, epoch, chain: seal.chain, previous, begin, end, volume: 0 };
        self.index.push(sealed, self.open.payload);
        let row = rows::TxnRow { time: seal.time, chain: seal.chain, epoch };
        self.tables.active.txns.push((txn, row));
        self.head = Head {
            txn,
            chain: seal.chain,
            time: seal.time,
            journal: end,
            seq,
            bytes: self.tables.usage.bytes,
            inodes: self.tables.usage.inodes,
            next_ino: self.tables.usage.next_ino,
            ..self.head.clone()
        };
        self.open = Open::after(seal.chain, txn);
    }

    /// Publishes what was read so far, so that a long journal needs no more memory than a short one. It is durable: what was in files
    /// was flushed before anything was opened.
    pub fn publish(&mut self, answered: &Recent) -> Result<()> {
        let overlay = std::mem::take(&mut self.tables.active);
        let files = &mut self.files;
        let moved = publish::move_inline(&overlay, &mut |bytes| files.append_packed(bytes))?;
        if let Some(flush) = self.files.flush_wanted() {
            let place = self.tables.ve.to_string();
            let sync = || -> std::io::Result<()> {
                flush.files.iter().try_for_each(|f| f.sync())?;
                flush.dir.iter().try_for_each(|d| self.shared.storage.sync_dir(d))
            };
            sync().map_err(Error::io("flushing extent files of VE", place))?;
            self.files.flushed(&flush);
        }
        let target = publish::Target {
            ve: self.tables.ve,
            meta: &*self.shared.meta,
            base: &self.tables.base,
            fresh_from: self.tables.fresh_from,
        };
        let (mut batch, after) = publish::rows(&target, &overlay, &moved, self.head.clone())?;
        let answers = codec::encode(&answered.to_row());
        batch.put(Table::System, rows::answers(self.tables.ve), answers);
        self.shared.meta.write(batch)?;
        self.head.history = after.history;
        self.tables.fresh_from = self.tables.usage.next_ino;
        self.tables.found.published(&overlay);
        self.tables.places.clear();
        self.tables.active = overlay.emptied();
        Ok(())
    }

    /// The first frame whose bulk bytes are not there, among those that nothing says were flushed.
    pub fn first_unproven(&mut self) -> Result<Option<(u64, u64)>> {
        for u in std::mem::take(&mut self.unproven) {
            let mut bytes = vec![0; u.place.len as usize];
            let there = match self.files.file(u.place.file) {
                Ok(file) => read_extent(&*file, &u.place, 0, &mut bytes),
                Err(e) => Err(e),
            };
            match there {
                Ok(()) => {}
                Err(Error::Damage { .. }) => return Ok(Some((u.position, u.seq))),
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(Some((u.position, u.seq)));
                }
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Ok(Some((u.position, u.seq)));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}

/// Why a frame could not be taken.
enum Loading {
    /// It contradicts itself.
    Frame(String),
    /// Something below failed.
    Other(Error),
}
