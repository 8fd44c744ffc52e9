//! Housekeeping: quiet files become objects, files in many small pieces get fewer. The bytes stay the same, only the extents
//! change, so these records make no version worth keeping and no exposure; a replica builds the same from its own bytes.
//!
//! Reading and hashing happen without the lock. Whether the file is still what was read is checked under the lock before the
//! record is made; if not, the work is thrown away.

use std::time::Duration;

use bytes::Bytes;

use super::envelope::Envelope;
use super::{State, Ve};
use crate::change::{Change, Purpose};
use crate::content::Location;
use crate::error::Result;
use crate::format::role::RoleKind;
use crate::ids::InodeNo;
use crate::object::Staged;
use crate::state::view::{self, Extents};
use crate::types::{Extent, Inode, Source, mode};

/// Files from this size on are worth an object.
const SEAL_MIN: u64 = 1 << 20;
/// Executables from this size on are, too: many VEs run the same.
const SEAL_EXECUTABLE_MIN: u64 = 64 << 10;
/// A file with at least this many pieces is coalesced.
const PIECES_MIN: usize = 16;
/// Bytes that one coalescing record brings at most.
const COALESCE_MAX: u64 = 1 << 20;
/// Most of these for one file in one go: each is found by looking through its map.
const COALESCE_RUNS: usize = 64;
/// Files whose last write is remembered per VE.
const QUIET_MAX: usize = 10_000;
/// Bytes read at a time.
const STEP: usize = 1 << 20;
/// Most stretches that a file may be sealed in: they are changes of one record.
const RUNS_MAX: usize = crate::limits::CHANGES_MAX / 2;

/// Extents of a file that are looked at in one go, and so the most that a file may have to be sealed: the record takes them all away.
const SEEN_MAX: usize = 128 << 10;
/// Extents among which runs to be coalesced are looked for in one go.
const COALESCE_SEEN: usize = 4096;

/// A file as somebody saw it.
#[derive(PartialEq, Eq)]
pub(super) struct Seen {
    pub inode: Inode,
    /// Where it was looked at from.
    from: u64,
    /// How many extents were looked at, at most.
    most: usize,
    extents: Extents,
    /// Where the next extent begins, if there are more.
    next: Option<u64>,
}

impl Seen {
    fn is_whole(&self) -> bool {
        self.from == 0 && self.next.is_none()
    }

    /// Whether a quiet file is to be made an object.
    pub(super) fn is_sealable(&self) -> bool {
        let Seen { inode, extents, .. } = self;
        let executable = inode.mode & 0o111 != 0 && inode.size >= SEAL_EXECUTABLE_MIN;
        (inode.size >= SEAL_MIN || executable) && self.is_whole() && is_dense(inode, extents)
    }
}

impl State {
    /// Remembers that a file was written, for housekeeping once it is quiet.
    pub fn note_write(&mut self, ino: InodeNo, at: Duration) {
        if self.written_at.len() < QUIET_MAX || self.written_at.contains_key(&ino) {
            self.written_at.insert(ino, at);
        }
    }

    /// A regular file with a name and a map of its own.
    fn see(&self, ino: InodeNo, from: u64, most: usize) -> Result<Option<Seen>> {
        let Some(inode) = view::inode(&self.tables, ino)? else { return Ok(None) };
        if !inode.is_file() || inode.nlink == 0 || inode.flags & Inode::PRIVATE_MAP == 0 || inode.mode & mode::IFMT == 0
        {
            return Ok(None);
        }
        let (extents, next) = view::some_extents(&self.tables, ino, &inode, (from, u64::MAX), most)?;
        Ok(Some(Seen { inode, from, most, extents, next }))
    }

    fn is_as_seen(&self, ino: InodeNo, seen: &Seen) -> Result<bool> {
        let was = &seen.inode;
        Ok(self.see(ino, seen.from, seen.most)?.is_some_and(|now| {
            // The time, too: extents that were replaced and came back, by copy_file_range(2), say nothing of what was read in between.
            let is = &now.inode;
            (is.size, is.flags, is.ctime) == (was.size, was.flags, was.ctime)
                && now.next == seen.next
                && now.extents == seen.extents
        }))
    }
}

impl Ve {
    /// Seals or coalesces the files that were written and then quiet for `quiet`. Returns how many it changed. A follower changes none: it makes
    /// objects ahead.
    pub fn housekeep(&self, quiet: Duration) -> Result<usize> {
        if self.role().kind == RoleKind::Replica {
            self.make_ahead(quiet)?;
            return Ok(0);
        }
        if !self.is_writer() || self.fenced().is_some() {
            return Ok(0);
        }
        self.ahead.lock().clear();
        let mut changed = 0;
        for ino in self.quiet_files(|_| Some(quiet)) {
            match self.tidy(ino) {
                Ok(tidied) => changed += usize::from(tidied),
                Err(e) if self.read_only_reason().is_some() => return Err(e),
                // What one file meets is not the others' trouble: they are not remembered any longer.
                Err(e) => tracing::warn!(ve = %self.id, %ino, error = %e, "tidying a quiet file"),
            }
        }
        Ok(changed)
    }

    /// The files that were written and then quiet for so long, in order; `None` is for ever. They are not remembered any longer.
    pub(super) fn quiet_files(&self, quiet: impl Fn(InodeNo) -> Option<Duration>) -> Vec<InodeNo> {
        let now = self.shared.clock.boot();
        let mut due: Vec<InodeNo> = Vec::new();
        self.state.lock().written_at.retain(|ino, at| {
            let keep = quiet(*ino).is_none_or(|quiet| now.saturating_sub(*at) < quiet);
            if !keep {
                due.push(*ino);
            }
            keep
        });
        due.sort_unstable();
        due
    }

    fn tidy(&self, ino: InodeNo) -> Result<bool> {
        let Some(seen) = self.see(ino)? else { return Ok(false) };
        if seen.inode.flags & Inode::CUT != 0 {
            return self.trim(ino).map(|_| true);
        }
        if seen.is_sealable() {
            return self.seal_file(ino);
        }
        if seen.extents.len() < PIECES_MIN {
            return Ok(false);
        }
        let runs = self.coalesce_some(ino)?;
        if runs == COALESCE_RUNS && !seen.is_whole() {
            // The others' turn; then this one's once more, until it can be sealed. Not for every large file: that would copy a whole database for some
            // pages of it.
            self.state.lock().written_at.entry(ino).or_default();
        }
        Ok(runs > 0)
    }

    /// A regular file with a name and a map of its own.
    pub(super) fn see(&self, ino: InodeNo) -> Result<Option<Seen>> {
        self.state.lock().see(ino, 0, SEEN_MAX)
    }

    /// Makes a file's body an object, so that equal files of all VEs are one. False when too little of it is the file's own, or when the file was
    /// changed meanwhile.
    pub fn seal_file(&self, ino: InodeNo) -> Result<bool> {
        let Some(seen) = self.see(ino)? else { return Ok(false) };
        let Seen { inode, extents, .. } = &seen;
        if !seen.is_whole() || !is_dense(inode, extents) {
            return Ok(false);
        }
        let Some(staged) = self.stage_body(ino, &seen)? else { return Ok(false) };
        let hash = staged.hash();
        // From before it has its name until a record names it, no collection may take it (promise G26).
        let _pin = self.shared.objects.pin(hash);
        self.shared.objects.place(vec![staged])?;
        let changes = sealed_runs(extents, inode.size)
            .map(|(offset, len)| Change::Map(ino, offset, Extent { len, source: Source::Object { hash, offset } }))
            .collect();
        self.replace(ino, &seen, changes)
    }

    /// A file's body, for an object: the extent file that holds it, or a copy. `None` when the file got shorter meanwhile.
    pub(super) fn stage_body(&self, ino: InodeNo, seen: &Seen) -> Result<Option<Staged>> {
        let size = seen.inode.size;
        let body = if seen.is_whole() { self.body_of(ino, &seen.inode, &seen.extents)? } else { None };
        match body {
            Some(path) => {
                let staged = self.shared.objects.share(&path, size)?;
                self.check_body(ino, size)?;
                Ok(Some(staged))
            }
            None => self.copy_body(ino, size),
        }
    }

    /// The extent file that holds this file's body and nothing else, if there is one. Nothing is appended to it from now on.
    fn body_of(&self, ino: InodeNo, inode: &Inode, extents: &[(u64, Extent)]) -> Result<Option<String>> {
        let mut s = self.state.lock();
        s.files.end_body(ino);
        let mut number = None;
        let mut at = 0;
        for (offset, e) in extents {
            let Source::Payload(id) = e.source else { return Ok(None) };
            let mut done = 0;
            while *offset == at && done < e.len {
                let Some((begin, place)) = s.tables.place(id.plus(done))? else { return Ok(None) };
                let Location::Extent(place) = place.at else { return Ok(None) };
                let skip = id.offset + done - begin.offset;
                if *number.get_or_insert(place.file) != place.file || place.offset + skip != at + done {
                    return Ok(None);
                }
                done += (place.len - skip).min(e.len - done);
            }
            if done < e.len {
                return Ok(None);
            }
            at += e.len;
        }
        let Some(number) = number.filter(|_| at == inode.size) else { return Ok(None) };
        // A follower's body has no file yet by which it could be ended.
        s.files.end_body_in(number);
        let whole = s.files.is_body(number) && s.files.file(number)?.len().is_ok_and(|l| l == inode.size);
        Ok(whole.then(|| crate::content::extent_file::path(self.slot, number)))
    }

    /// Reads the file's body as anybody reads it, checked: what is shared is hashed as it lies on disk, and what rotted there must not get a good name
    /// (promise G24).
    fn check_body(&self, ino: InodeNo, size: u64) -> Result<()> {
        let mut at = 0;
        while at < size {
            self.read(ino, at, STEP.min((size - at) as usize))?;
            at += STEP as u64;
        }
        Ok(())
    }

    /// Writes the file's body anew, for an object. `None` when the file got shorter meanwhile.
    pub(crate) fn copy_body(&self, ino: InodeNo, size: u64) -> Result<Option<Staged>> {
        let mut writer = self.shared.objects.writer()?;
        let mut at = 0;
        while at < size {
            let bytes = self.read(ino, at, STEP.min((size - at) as usize))?;
            if bytes.is_empty() {
                return Ok(None);
            }
            at += bytes.len() as u64;
            writer.write(&bytes)?;
        }
        Ok(Some(writer.seal()?))
    }

    /// Rewrites runs of adjacent small pieces as one piece each, [`COALESCE_RUNS`] at most. False when there was nothing to do, or when the file was
    /// changed meanwhile.
    pub fn coalesce(&self, ino: InodeNo) -> Result<bool> {
        Ok(self.coalesce_some(ino)? > 0)
    }

    /// Gives how many runs it rewrote.
    fn coalesce_some(&self, ino: InodeNo) -> Result<usize> {
        let (mut runs, mut from) = (0, 0);
        while runs < COALESCE_RUNS {
            let Some(seen) = self.state.lock().see(ino, from, COALESCE_SEEN)? else { break };
            let most = self.shared.options.extents_most;
            let Some((offset, len)) = next_run(&seen.extents, seen.inode.size, most) else {
                match seen.next {
                    Some(next) => from = next,
                    None => break,
                }
                continue;
            };
            let bytes = self.read(ino, offset, len as usize)?;
            if bytes.len() as u64 != len || !self.replace_by(ino, &seen, offset, bytes)? {
                break;
            }
            runs += 1;
            from = offset + len;
        }
        Ok(runs)
    }

    fn replace_by(&self, ino: InodeNo, seen: &Seen, offset: u64, bytes: Vec<u8>) -> Result<bool> {
        let mut s = self.recording()?;
        if !s.is_as_seen(ino, seen)? {
            return Ok(false);
        }
        let len = bytes.len() as u64;
        let change = Change::Map(ino, offset, Extent { len, source: Source::Payload(s.next_payload()) });
        let payload = Some(Bytes::from(bytes));
        s.record(&self.shared, Purpose::Housekeeping, vec![change], payload, Envelope::default())?;
        Ok(true)
    }

    fn replace(&self, ino: InodeNo, seen: &Seen, changes: Vec<Change>) -> Result<bool> {
        self.make_hashes();
        let mut s = self.state.lock();
        if !s.is_as_seen(ino, seen)? {
            return Ok(false);
        }
        // A replica makes the object from the file as it was before the transaction.
        s.seal(&self.shared)?;
        s.record(&self.shared, Purpose::Housekeeping, changes, None, Envelope::default())?;
        Ok(true)
    }
}

/// Whether at least half of a file is bytes that were written since it became an object, or since it came from a template. So no more than twice
/// what somebody wrote is copied: not a whole database for a page of it. Nor are terabytes of holes around a few bytes.
fn is_dense(inode: &Inode, extents: &[(u64, Extent)]) -> bool {
    let own = extents.iter().filter(|(o, e)| *o < inode.size && matches!(e.source, Source::Payload(_)));
    let own = own.map(|(o, e)| e.len.min(inode.size - o)).fold(0u64, u64::saturating_add);
    let fits = || inode.size <= crate::object::OBJECT_LEN_MAX && sealed_runs(extents, inode.size).count() <= RUNS_MAX;
    own > 0 && own >= inode.size / 2 && fits()
}

/// The ranges of payload bytes within the file's size, adjacent ones joined.
fn sealed_runs(extents: &[(u64, Extent)], size: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (offset, e) in extents {
        let end = (offset + e.len).min(size);
        if !matches!(e.source, Source::Payload(_)) || *offset >= end {
            continue;
        }
        match runs.last_mut() {
            Some((start, len)) if *start + *len == *offset => *len = end - *start,
            _ => runs.push((*offset, end - offset)),
        }
    }
    runs.into_iter()
}

/// The first run of two to `most` adjacent payload pieces, at most [`COALESCE_MAX`] bytes, within the size.
fn next_run(extents: &[(u64, Extent)], size: u64, most: usize) -> Option<(u64, u64)> {
    let mut run: Option<(u64, u64, usize)> = None;
    for (offset, e) in extents.iter().filter(|(o, e)| o + e.len <= size) {
        let small = matches!(e.source, Source::Payload(_)) && e.len <= COALESCE_MAX / 4;
        match &mut run {
            Some((start, len, n)) if small && *n < most && *start + *len == *offset && *len + e.len <= COALESCE_MAX => {
                *len += e.len;
                *n += 1;
            }
            Some((start, len, n)) if *n >= 2 => return Some((*start, *len)),
            _ => run = small.then_some((*offset, e.len, 1)),
        }
    }
    run.filter(|(_, _, n)| *n >= 2).map(|(start, len, _)| (start, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Hash, PayloadId, TxnNo};
    use crate::op::Op;
    use crate::store::bed::{create, in_memory, write};
    use crate::ve::Request;

    fn piece(offset: u64, len: u64) -> (u64, Extent) {
        (offset, Extent { len, source: Source::Payload(PayloadId { txn: TxnNo(offset + 1), offset: 0 }) })
    }

    #[test]
    fn runs_are_adjacent_small_pieces() {
        let e = [
            piece(0, 100),
            piece(100, 50),
            piece(200, 10),
            piece(210, 10),
            (220, Extent { len: 5, source: Source::Unwritten }),
        ];
        assert_eq!(next_run(&e, 1000, 9), Some((0, 150)));
        assert_eq!(next_run(&e[2..], 1000, 9), Some((200, 20)));
        assert_eq!(next_run(&e[4..], 1000, 9), None);
        let five: Vec<_> = (0..5).map(|n| piece(n * 10, 10)).collect();
        assert_eq!(next_run(&five, 1000, 4), Some((0, 40)));
        assert_eq!(sealed_runs(&e, 1000).collect::<Vec<_>>(), [(0, 150), (200, 20)]);
        assert_eq!(sealed_runs(&e, 205).collect::<Vec<_>>(), [(0, 150), (200, 5)]);
    }

    /// A file in more stretches than a record has changes was copied whole, could not be recorded, and ended its VE's round, so that others were never
    /// tidied.
    #[test]
    fn a_file_in_too_many_stretches_is_not_sealed() {
        let (_store, ve, _) = in_memory();
        let ino = create(&ve, "file");
        let mut inode = ve.inode(ino).unwrap();
        let every_other = |runs: usize| (0..runs as u64).map(|n| piece(n * 8192, 4096)).collect::<Vec<_>>();
        for (runs, dense) in [(RUNS_MAX, true), (RUNS_MAX + 1, false)] {
            inode.size = runs as u64 * 8192;
            assert_eq!(is_dense(&inode, &every_other(runs)), dense);
        }
    }

    /// While a file's body was copied, for its object, the file was overwritten, and then given its former extents back from another file that shared them:
    /// nothing seemed to have changed, and the object with the bytes in between became the file's content for good (checks G1).
    #[test]
    fn a_file_that_came_back_has_changed() {
        let (_store, ve, clock) = in_memory();
        let (ino, twin) = (create(&ve, "file"), create(&ve, "twin"));
        write(&ve, ino, 0, vec![1; 100_000]).unwrap();
        let copy = |src, dst| {
            let op = Op::CopyRange { src, src_offset: 0, dst, dst_offset: 0, len: 100_000 };
            ve.execute(&op, Request::default()).unwrap();
        };
        copy(ino, twin);
        let seen = ve.see(ino).unwrap().unwrap();
        clock.advance(Duration::from_millis(10));
        write(&ve, ino, 0, vec![2; 100_000]).unwrap();
        copy(twin, ino);
        assert!(ve.see(ino).unwrap().unwrap().extents == seen.extents);
        let len = seen.inode.size;
        let wrong = Source::Object { hash: Hash::of(&[2; 100_000]), offset: 0 };
        let changes = vec![Change::Map(ino, 0, Extent { len, source: wrong })];
        assert!(!ve.replace(ino, &seen, changes).unwrap());
        assert_eq!(ve.read(ino, 0, 3).unwrap(), [1; 3]);
    }
}
