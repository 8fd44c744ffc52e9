//! What comes of answers, and of their absence.

use std::time::Duration;

use vefs::format::incoming::Manifest;
use vefs::ids::{Epoch, Hash, PayloadId};

use super::{Action, Asked, Fault, GiveUp, Objects, Phase, Puller, RETRY_MAX, RETRY_MIN, SPOILT_MAX, WRONG_MAX};
use crate::catchup::{Answer, Install, Part, Refused};

impl Puller {
    /// Takes an answer in. `Some`: more of it is to come.
    pub(super) fn take(
        &mut self,
        install: &mut dyn Install,
        about: Asked,
        answer: Answer,
    ) -> Result<Option<Asked>, Fault> {
        match (about, answer) {
            (Asked::Done, _) => {
                self.phase = Phase::Over;
                Ok(None)
            }
            (about, Answer::Working) => Ok(Some(about)),
            (_, Answer::Refused(why)) => Err(Fault::Refused(why)),
            (Asked::Snapshot, Answer::Snapshot { manifest, epoch }) => self.take_snapshot(install, manifest, epoch),
            (Asked::Compare(pages), Answer::Same(same)) if pages.len() == same.len() => {
                self.own_over = pages.last().is_some_and(|page| page.last);
                self.compared = pages.into_iter().zip(same).collect();
                Ok(None)
            }
            (Asked::Rows(epoch), Answer::Rows(page)) => {
                let first = page.rows.first().map(|(key, _)| key);
                let last = page.rows.last().map(|(key, _)| key);
                if self.after.is_some() && first.is_some_and(|first| first <= self.after.as_ref().unwrap_or(first)) {
                    return Err(Fault::Wrong("rows that were sent before".into()));
                }
                if self.upto.is_some() && last > self.upto.as_ref() {
                    return Err(Fault::Wrong("rows beyond what was asked for".into()));
                }
                self.source = self.source.max(epoch);
                self.page = page;
                self.phase = Phase::Objects(0);
                Ok(None)
            }
            (Asked::Tree(hash), Answer::Bytes { total, offset, bytes }) => {
                install.put_tree(hash, total, offset, &bytes)?;
                Ok(self.counted(bytes.len(), offset, total).then_some(Asked::Tree(hash)))
            }
            (Asked::Objects(objects), Answer::Parts(parts)) => self.take_objects(install, objects, &parts),
            (Asked::Payloads(ranges, held), Answer::Bytes { offset, bytes, .. }) => {
                self.take_payload(install, ranges, held, offset, bytes)
            }
            _ => Err(Fault::Wrong("an answer to another question".into())),
        }
    }

    fn take_objects(
        &mut self,
        install: &mut dyn Install,
        mut objects: Objects,
        parts: &[Part],
    ) -> Result<Option<Asked>, Fault> {
        for Part { total, offset, bytes } in parts {
            let Some(hash) = objects.wanted.get(objects.done) else {
                return Err(Fault::Wrong("objects beyond what was asked for".into()));
            };
            install.put_object(*hash, *total, *offset, bytes)?;
            if !self.counted(bytes.len(), *offset, *total) {
                objects.done += 1;
            }
        }
        if objects.done < objects.wanted.len() {
            return Ok(Some(Asked::Objects(objects)));
        }
        self.phase = objects.then;
        Ok(None)
    }

    fn take_snapshot(
        &mut self,
        install: &dyn Install,
        manifest: Manifest,
        epoch: Epoch,
    ) -> Result<Option<Asked>, Fault> {
        if manifest.at.lineage != self.lineage {
            return Err(Fault::Refused(Refused::ForeignLineage));
        }
        if epoch < install.highest_epoch() || epoch < manifest.at.epoch {
            return Err(Fault::OldEpoch);
        }
        (self.manifest, self.source, self.phase) = (Some(manifest), epoch, Phase::Tree);
        Ok(None)
    }

    /// Counts what came; whether more is to come.
    fn counted(&mut self, len: usize, offset: u64, total: u64) -> bool {
        self.progress.bytes += len as u64;
        // What came counts as progress even if the answer breaks off later; whether it is right is seen at its end.
        self.failures = 0;
        offset + (len as u64) < total
    }

    /// Proves and puts the ranges that are whole.
    fn take_payload(
        &mut self,
        install: &mut dyn Install,
        mut ranges: Vec<(PayloadId, u64, Hash)>,
        mut held: Vec<u8>,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<Option<Asked>, Fault> {
        // The offset counts from the first range that was asked for: what is held ends where these begin.
        let left: u64 = ranges.iter().map(|(_, len, _)| len).sum();
        if bytes.is_empty() || held.len() + bytes.len() > usize::try_from(left).unwrap_or(usize::MAX) {
            return Err(Fault::Wrong("payload bytes beyond what was asked for".into()));
        }
        if offset != self.received {
            return Err(Fault::Wrong("payload bytes out of order".into()));
        }
        self.received += bytes.len() as u64;
        self.progress.bytes += bytes.len() as u64;
        held.extend_from_slice(&bytes);
        let (mut at, mut done) = (0, 0);
        for (id, len, hash) in &ranges {
            let Some(part) = held.get(at..at + *len as usize) else { break };
            if Hash::of(part) != *hash {
                return Err(Fault::Wrong(format!("payload {id:?} has another hash")));
            }
            install.put_payload(*id, part)?;
            at += part.len();
            done += 1;
        }
        ranges.drain(..done);
        held.drain(..at);
        Ok((!ranges.is_empty()).then_some(Asked::Payloads(ranges, held)))
    }

    /// Something went wrong: how it goes on. `Some`: it does not.
    pub(super) fn fault(&mut self, install: &mut dyn Install, fault: Fault, now: Duration) -> Option<Action> {
        self.question = None;
        let told = self.phase == Phase::Release;
        if told {
            // The state is in place; a hold that was not released ends with the next one, or when this node acknowledges what is behind it.
            self.phase = Phase::Over;
            return None;
        }
        let why = match fault {
            Fault::Broken => None,
            Fault::Refused(Refused::Gone) => {
                self.restart();
                None
            }
            Fault::Refused(Refused::Busy | Refused::Store) => None,
            Fault::Refused(why @ (Refused::Malformed | Refused::NotHeld)) => self.one_more(GiveUp::Refused(why)),
            Fault::Refused(why) => Some(GiveUp::Refused(why)),
            Fault::Wrong(detail) => self.one_more(GiveUp::Wrong(detail)),
            Fault::Restart(detail) => {
                let failed = install.abandon().err().map(|e| GiveUp::Store(e.to_string()));
                self.restart();
                self.spoilt += 1;
                failed.or_else(|| (self.spoilt >= SPOILT_MAX).then_some(GiveUp::Wrong(detail)))
            }
            Fault::OldEpoch => Some(GiveUp::OldEpoch),
            Fault::Store(detail) => Some(GiveUp::Store(detail)),
        };
        if let Some(why) = why {
            self.gave_up = Some(why.clone());
            return Some(Action::GiveUp(why));
        }
        let wait = RETRY_MIN.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
        self.failures += 1;
        self.not_before = now + wait;
        None
    }

    fn one_more(&mut self, why: GiveUp) -> Option<GiveUp> {
        self.wrong += 1;
        (self.wrong >= WRONG_MAX).then_some(why)
    }

    fn restart(&mut self) {
        (self.manifest, self.after, self.upto) = (None, None, None);
        self.compared.clear();
        self.own_over = false;
        self.page = Default::default();
        self.phase = Phase::Snapshot;
        self.progress.restarts += 1;
    }
}
