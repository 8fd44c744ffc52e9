//! What happens to one VE: syncs, versions, holds, garbage collection, quotas.

use vefs::change::Settings;
use vefs::errno::Errno;
use vefs::ids::{InodeNo, TxnNo};
use vefs::types::{Inode, Kind};
use vefs::ve::Retention;
use vefs::{Error, Result as CoreResult, Ve};

use super::event::Event;
use super::runner::Runner;
use super::subject::{Entry, Subject, compare_past};
use crate::model::{Reader, compare, compare_inode};

impl Runner {
    fn subject(&mut self, id: u32) -> &mut Subject {
        self.subjects.get_mut(&id).expect("a drawn VE")
    }

    /// Something happens to a VE; false when it did not come to it.
    pub(super) fn happen_to(&mut self, id: u32, event: Event) -> Result<bool, String> {
        match event {
            Event::Sync => self.flush(id, |s| s.ve().sync()),
            Event::Commit => self.flush(id, |s| s.ve().commit()),
            Event::Publish => self.publish(id),
            Event::Collect => self.collect(id),
            Event::Hold => self.hold(id),
            Event::Release => self.release(id),
            Event::ReadVersion => self.read_version(id),
            Event::OpenVersion => self.open_version(id),
            Event::CloseVersion => self.close_version(id),
            Event::SetQuota => self.set_quota(id),
            Event::Seal => self.rewrite(id, |ve, ino| ve.seal_file(ino)),
            Event::Coalesce => self.rewrite(id, |ve, ino| ve.coalesce(ino)),
            other => Err(format!("{other:?} does not happen to one VE")),
        }
    }

    fn flush(&mut self, id: u32, how: impl FnOnce(&Subject) -> CoreResult<()>) -> Result<bool, String> {
        let result = how(&self.subjects[&id]);
        let done = self.survived(result)?.is_some();
        if done {
            let s = self.subject(id);
            s.acknowledge();
            let position = s.ve().position();
            s.chains.insert(position.txn, position.chain);
        }
        Ok(done)
    }

    /// Housekeeping of one file: the same bytes elsewhere.
    fn rewrite(&mut self, id: u32, how: impl Fn(&Ve, InodeNo) -> CoreResult<bool>) -> Result<bool, String> {
        let start = self.rng.next_u64() as usize;
        let s = &self.subjects[&id];
        let large = |kind, attr: &Inode| kind == Kind::Regular && attr.mapped > 0;
        let Some(ino) = s.now.model.find(start, usize::MAX, large) else { return Ok(false) };
        let done = self.survived(how(s.ve(), ino))?;
        if done == Some(true) {
            compare_inode(&s.now.model, &**s.ve(), ino)?;
        }
        Ok(done == Some(true))
    }

    fn publish(&mut self, id: u32) -> Result<bool, String> {
        let result = self.subjects[&id].ve().publish();
        let done = self.survived(result)?.is_some();
        if done {
            let keep = self.rng.percent(40);
            let s = self.subject(id);
            s.note_version(keep);
            compare(&s.now.model, &**s.ve())?;
        }
        Ok(done)
    }

    pub(super) fn retention(&mut self) -> Retention {
        let steps = match self.rng.below(5) {
            0 => vec![],
            1 => vec![(5, 0)],
            2 => vec![(1, 0), (60, 5)],
            3 => vec![(300, 20)],
            _ => Retention::default().steps,
        };
        Retention { steps }
    }

    fn collect(&mut self, id: u32) -> Result<bool, String> {
        let retention = self.retention();
        let now = vefs::clock::Clock::wall(&**self.world.clock());
        let ve = self.subjects[&id].ve().clone();
        let Some(before) = self.survived(ve.versions())? else { return Ok(false) };
        self.subject(id).note_version(false);
        if self.survived(ve.collect(&retention))?.is_none() {
            return Ok(false);
        }
        let s = self.subject(id);
        let after = s.check_list()?;
        let young = retention.steps.first().filter(|(_, every)| *every == 0).map_or(0, |(age, _)| *age);
        let newest = before.last().map(|r| r.position.txn);
        for row in &before {
            let txn = row.position.txn;
            let held = s.now.holds.values().any(|(t, onwards)| *t == txn || (*onwards && *t <= txn));
            let must = held || Some(txn) == newest || now.secs - row.time.secs < young;
            if must && !after.contains(&txn) {
                return Err(format!("version {txn} (held: {held}) went with {retention:?} at {now:?}: {row:?}"));
            }
        }
        if let Some((snapshot, model)) = &s.reading {
            compare_past(snapshot, model)?;
        }
        compare(&s.now.model, &**s.ve())?;
        self.check_versions(id)?;
        Ok(true)
    }

    /// Reads some of the versions whose states are known, the held ones first.
    pub(super) fn check_versions(&mut self, id: u32) -> Result<(), String> {
        let s = self.subjects.get_mut(&id).expect("a drawn VE");
        let listed = match s.check_list() {
            Ok(listed) => listed,
            Err(_) if self.world.fuse().is_blown() => return Ok(()),
            Err(e) => return Err(e),
        };
        let held: Vec<TxnNo> = s.now.holds.values().map(|(t, _)| *t).collect();
        let mut some: Vec<TxnNo> = s.versions.keys().copied().collect();
        while some.len() > 3 {
            some.swap_remove(self.rng.below(some.len() as u64) as usize);
        }
        some.extend(held.iter().filter(|t| s.versions.contains_key(t)).take(2));
        for txn in some {
            let there = s.check_version(txn)?;
            if !there && (listed.contains(&txn) || held.contains(&txn)) {
                return Err(format!("version {txn} is listed or held and cannot be read"));
            }
            if there {
                self.counts.add("versions read");
            }
        }
        Ok(())
    }

    fn read_version(&mut self, id: u32) -> Result<bool, String> {
        self.check_versions(id)?;
        let s = self.subject(id);
        let future = TxnNo(s.ve().position().txn.0 + 3);
        match s.ve().version(future) {
            Err(Error::Posix(Errno::ENOENT)) => Ok(true),
            Err(_) if self.world.fuse().is_blown() => Ok(false),
            Err(e) => Err(format!("version {future} of the future: {e}")),
            Ok(_) => Err(format!("version {future} of the future can be read")),
        }
    }

    fn hold(&mut self, id: u32) -> Result<bool, String> {
        let s = self.subjects.get_mut(&id).expect("a drawn VE");
        let name = format!("h{}", self.rng.below(6));
        let Some(txn) = s.versions.keys().copied().nth(self.rng.below(s.versions.len().max(1) as u64) as usize) else {
            return Ok(false);
        };
        let onwards = self.rng.percent(20);
        let known = s.now.holds.contains_key(&name);
        let result = s.ve().hold(&name, txn, onwards, "model");
        if self.world.fuse().is_blown() {
            s.unanswered = Some(Entry::Hold(name, txn, onwards));
            return Ok(false);
        }
        match result {
            Ok(()) if known => Err(format!("the name {name:?} was given twice")),
            Ok(()) => {
                s.answered(Entry::Hold(name, txn, onwards));
                s.acknowledge();
                Ok(true)
            }
            Err(Error::Posix(Errno::EEXIST)) if known => Ok(true),
            Err(Error::Posix(Errno::ENOENT)) => {
                let listed = s.check_list()?;
                if listed.contains(&txn) {
                    Err(format!("version {txn} is listed and cannot be held"))
                } else {
                    Ok(true)
                }
            }
            Err(e) => Err(e.to_string()),
        }
    }

    fn release(&mut self, id: u32) -> Result<bool, String> {
        let s = self.subjects.get_mut(&id).expect("a drawn VE");
        let name = format!("h{}", self.rng.below(6));
        let known = s.now.holds.contains_key(&name);
        match s.ve().release(&name) {
            Ok(()) if !known => Err(format!("there was no hold {name:?}")),
            Ok(()) => {
                s.answered(Entry::Release(name));
                Ok(true)
            }
            Err(Error::Posix(Errno::ENOENT)) if !known => Ok(false),
            Err(_) if self.world.fuse().is_blown() => {
                s.unanswered = Some(Entry::Release(name));
                Ok(false)
            }
            Err(e) => Err(e.to_string()),
        }
    }

    fn open_version(&mut self, id: u32) -> Result<bool, String> {
        let s = self.subjects.get_mut(&id).expect("a drawn VE");
        let n = self.rng.below(s.versions.len().max(1) as u64) as usize;
        let Some((txn, version)) = s.versions.iter().nth(n) else { return Ok(false) };
        match s.ve().version(*txn) {
            Ok(snapshot) => {
                s.reading = Some((snapshot, version.model.clone()));
                Ok(true)
            }
            Err(Error::Posix(Errno::ENOENT)) => Ok(false),
            Err(_) if self.world.fuse().is_blown() => Ok(false),
            Err(e) => Err(e.to_string()),
        }
    }

    fn close_version(&mut self, id: u32) -> Result<bool, String> {
        if self.world.fuse().is_blown() {
            return Ok(false);
        }
        match self.subject(id).reading.take() {
            Some((snapshot, model)) => compare_past(&snapshot, &model).map(|()| true),
            None => Ok(false),
        }
    }

    fn set_quota(&mut self, id: u32) -> Result<bool, String> {
        let s = self.subjects.get_mut(&id).expect("a drawn VE");
        let (bytes, inodes) = s.now.model.usage().map_err(|e| e.to_string())?;
        let quota = match self.rng.below(4) {
            0 => (bytes / 2, inodes / 2),
            1 => (bytes + (64 << 10), inodes + 10),
            2 => (u64::MAX, u64::MAX),
            _ => (8 << 20, 400),
        };
        let settings = Settings { quota_bytes: quota.0, quota_inodes: quota.1, ..s.ve().settings() };
        let entry = Entry::Quota(quota.0, quota.1);
        match s.ve().set_settings(settings) {
            Ok(()) => {
                s.answered(entry);
                Ok(true)
            }
            Err(_) if self.world.fuse().is_blown() => {
                s.unanswered = Some(entry);
                Ok(false)
            }
            Err(e) => Err(e.to_string()),
        }
    }
}
