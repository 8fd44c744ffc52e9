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
use crate::state::view;
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

/// Mapped runs of a file with their offsets.
type Extents = Vec<(u64, Extent)>;

impl State {
    /// Remembers that a file was written, for housekeeping once it is quiet.
    pub fn note_write(&mut self, ino: InodeNo, at: Duration) {
        if self.written_at.len() < QUIET_MAX || self.written_at.contains_key(&ino) {
            self.written_at.insert(ino, at);
        }
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
        let Some((inode, extents)) = self.private_file(ino)? else { return Ok(false) };
        if is_sealable(&inode, &extents) {
            self.seal_file(ino)
        } else if extents.len() >= PIECES_MIN {
            self.coalesce(ino)
        } else {
            Ok(false)
        }
    }

    /// A regular file with a name and a map of its own, and its extents.
    pub(super) fn private_file(&self, ino: InodeNo) -> Result<Option<(Inode, Extents)>> {
        let s = self.state.lock();
        let Some(inode) = view::inode(&s.tables, ino)? else { return Ok(None) };
        if !inode.is_file() || inode.nlink == 0 || inode.flags & Inode::PRIVATE_MAP == 0 || inode.mode & mode::IFMT == 0
        {
            return Ok(None);
        }
        let extents = view::extents(&s.tables, ino, &inode, 0, u64::MAX)?;
        Ok(Some((inode, extents)))
    }

    /// Makes a file's body an object, so that equal files of all VEs are one. False when too little of it is the file's own, or when the file was
    /// changed meanwhile.
    pub fn seal_file(&self, ino: InodeNo) -> Result<bool> {
        let Some((inode, extents)) = self.private_file(ino)? else { return Ok(false) };
        if !is_dense(&inode, &extents) {
            return Ok(false);
        }
        let Some(staged) = self.stage_body(ino, &inode, &extents)? else { return Ok(false) };
        let hash = staged.hash();
        // From before it has its name until a record names it, no collection may take it (promise G26).
        let _pin = self.shared.objects.pin(hash);
        self.shared.objects.place(vec![staged])?;
        let changes = sealed_runs(&extents, inode.size)
            .map(|(offset, len)| Change::Map(ino, offset, Extent { len, source: Source::Object { hash, offset } }))
            .collect();
        self.replace(ino, &inode, &extents, changes, None)
    }

    /// A file's body, for an object: the extent file that holds it, or a copy. `None` when the file got shorter meanwhile.
    pub(super) fn stage_body(&self, ino: InodeNo, inode: &Inode, extents: &[(u64, Extent)]) -> Result<Option<Staged>> {
        match self.body_of(ino, inode, extents)? {
            Some(path) => {
                let staged = self.shared.objects.share(&path, inode.size)?;
                self.check_body(ino, inode.size)?;
                Ok(Some(staged))
            }
            None => self.copy_body(ino, inode.size),
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
        let mut any = false;
        let mut from = 0;
        for _ in 0..COALESCE_RUNS {
            let Some((inode, extents)) = self.private_file(ino)? else { return Ok(any) };
            let Some((offset, len)) = next_run(&extents, from, inode.size) else { return Ok(any) };
            let bytes = self.read(ino, offset, len as usize)?;
            let source = |s: &State| Source::Payload(s.next_payload());
            if bytes.len() as u64 != len || !self.replace_with(ino, &inode, &extents, offset, bytes, source)? {
                return Ok(any);
            }
            any = true;
            from = offset + len;
        }
        Ok(any)
    }

    fn replace_with(
        &self,
        ino: InodeNo,
        inode: &Inode,
        extents: &[(u64, Extent)],
        offset: u64,
        bytes: Vec<u8>,
        source: impl Fn(&State) -> Source,
    ) -> Result<bool> {
        let mut s = self.recording()?;
        if !unchanged(&s, ino, inode, extents)? {
            return Ok(false);
        }
        let len = bytes.len() as u64;
        let change = Change::Map(ino, offset, Extent { len, source: source(&s) });
        let payload = Some(Bytes::from(bytes));
        s.record(&self.shared, Purpose::Housekeeping, vec![change], payload, Envelope::default())?;
        Ok(true)
    }

    fn replace(
        &self,
        ino: InodeNo,
        inode: &Inode,
        extents: &[(u64, Extent)],
        changes: Vec<Change>,
        payload: Option<Bytes>,
    ) -> Result<bool> {
        self.make_hashes();
        let mut s = self.state.lock();
        if !unchanged(&s, ino, inode, extents)? {
            return Ok(false);
        }
        // A replica makes the object from the file as it was before the transaction.
        s.seal(&self.shared)?;
        s.record(&self.shared, Purpose::Housekeeping, changes, payload, Envelope::default())?;
        Ok(true)
    }
}

/// Whether a quiet file with these extents is to be made an object.
pub(super) fn is_sealable(inode: &Inode, extents: &[(u64, Extent)]) -> bool {
    let executable = inode.mode & 0o111 != 0 && inode.size >= SEAL_EXECUTABLE_MIN;
    (inode.size >= SEAL_MIN || executable) && is_dense(inode, extents)
}

/// Whether at least half of a file is bytes that were written since it became an object, or since it came from a template. So no more than twice
/// what somebody wrote is copied: not a whole database for a page of it. Nor are terabytes of holes around a few bytes.
fn is_dense(inode: &Inode, extents: &[(u64, Extent)]) -> bool {
    let own = extents.iter().filter(|(o, e)| *o < inode.size && matches!(e.source, Source::Payload(_)));
    let own = own.map(|(o, e)| e.len.min(inode.size - o)).fold(0u64, u64::saturating_add);
    let fits = || inode.size <= crate::object::OBJECT_LEN_MAX && sealed_runs(extents, inode.size).count() <= RUNS_MAX;
    own > 0 && own >= inode.size / 2 && fits()
}

fn unchanged(s: &State, ino: InodeNo, inode: &Inode, extents: &[(u64, Extent)]) -> Result<bool> {
    match view::inode(&s.tables, ino)? {
        // The time, too: extents that were replaced and came back, by copy_file_range(2), say nothing of what was read in between.
        Some(now)
            if now.size == inode.size && now.flags == inode.flags && now.ctime == inode.ctime && now.nlink > 0 =>
        {
            Ok(view::extents(&s.tables, ino, &now, 0, u64::MAX)? == extents)
        }
        _ => Ok(false),
    }
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

/// The next run of at least two adjacent payload pieces from `from` on, at most [`COALESCE_MAX`] bytes, within the size.
fn next_run(extents: &[(u64, Extent)], from: u64, size: u64) -> Option<(u64, u64)> {
    let mut run: Option<(u64, u64, usize)> = None;
    for (offset, e) in extents.iter().filter(|(o, e)| *o >= from && o + e.len <= size) {
        let small = matches!(e.source, Source::Payload(_)) && e.len <= COALESCE_MAX / 4;
        match &mut run {
            Some((start, len, n)) if small && *start + *len == *offset && *len + e.len <= COALESCE_MAX => {
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
        assert_eq!(next_run(&e, 0, 1000), Some((0, 150)));
        assert_eq!(next_run(&e, 150, 1000), Some((200, 20)));
        assert_eq!(next_run(&e, 220, 1000), None);
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
        let (inode, extents) = ve.private_file(ino).unwrap().unwrap();
        clock.advance(Duration::from_millis(10));
        write(&ve, ino, 0, vec![2; 100_000]).unwrap();
        copy(twin, ino);
        assert_eq!(ve.private_file(ino).unwrap().unwrap().1, extents);
        let len = inode.size;
        let wrong = Source::Object { hash: Hash::of(&[2; 100_000]), offset: 0 };
        let changes = vec![Change::Map(ino, 0, Extent { len, source: wrong })];
        assert!(!ve.replace(ino, &inode, &extents, changes, None).unwrap());
        assert_eq!(ve.read(ino, 0, 3).unwrap(), [1; 3]);
    }
}
