//! A tar archive as a source: plain, or compressed with gzip, xz or zstd, which its first bytes tell.
//!
//! Member names lose a leading slash, as tar has it. A name or the target of a hard link with `..` in it is refused, and so is a member
//! below a symbolic link; the target of a symbolic link is a mere string. A later member replaces an earlier one of the same
//! name. Owners are the numbers in the archive. An archive without its end is an error.

pub(super) mod acl;
pub(super) mod members;
pub(super) mod pax;
pub(super) mod sparse;
pub(super) mod unpack;

use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;

use super::super::event::Event;
use super::names::{NameError, Names};
use super::{Out, Result, SourceError, shown};
use members::{Body, Member, Members, TarError};

/// Reads a tar archive, of `total` bytes where that is known.
pub(super) fn read(place: &str, from: impl Read, total: Option<u64>, out: &mut Out<'_>) -> Result<()> {
    let counted = Counted { inner: from, read: Rc::default() };
    let read = counted.read.clone();
    let unpacked = unpack::open(Box::new(counted)).map_err(|e| TarError::from(e).at(place))?;
    let mut names = Names::new();
    let mut archive = Archive { place: place.to_owned(), names: &mut names, layered: false };
    let mut note = |out: &mut Out<'_>| {
        if let Some(total) = total {
            out.read(read.get(), total);
        }
    };
    archive.read(unpacked, &mut note, out)
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

/// An archive, or a layer of an image, on top of what came before.
pub(super) struct Archive<'a> {
    /// What it is called in errors.
    pub place: String,
    pub names: &'a mut Names,
    /// Whether names that begin with `.wh.` are whiteouts.
    pub layered: bool,
}

impl Archive<'_> {
    /// Reads it from its first byte to its last; `note` is called now and then.
    pub fn read(&mut self, from: impl Read, note: &mut dyn FnMut(&mut Out<'_>), out: &mut Out<'_>) -> Result<()> {
        let mut members = Members::new(from);
        loop {
            let member = match members.next() {
                Ok(Some(member)) => member,
                Ok(None) => break,
                Err(e) => return Err(e.at(&self.place)),
            };
            self.member(&mut members, &member, out)?;
            note(out);
        }
        members.finish().map_err(|e| e.at(&self.place))?;
        note(out);
        Ok(())
    }

    fn member(&mut self, members: &mut Members<impl Read>, member: &Member, out: &mut Out<'_>) -> Result<()> {
        let refused = |place: &str, e: NameError| match e {
            NameError::Out(e) => e,
            NameError::Refused(detail) => {
                SourceError::Member { place: place.to_owned(), member: shown(&member.path), detail }
            }
        };
        if self.layered
            && let Some(done) = self.whiteout(&member.path, out)
        {
            return done.map_err(|e| refused(&self.place, e));
        }
        let what = match &member.body {
            Body::Link(target) => {
                return self.names.link(out, &member.path, target).map_err(|e| refused(&self.place, e));
            }
            Body::Other(what) => what.clone(),
        };
        self.names.put(out, &member.path, member.meta, what).map_err(|e| refused(&self.place, e))?;
        for (name, value) in &member.xattrs {
            out.event(Event::Xattr { name: name.clone(), value: value.clone() })?;
        }
        while let Some((offset, bytes)) = members.piece().map_err(|e| e.at(&self.place))? {
            out.event(Event::Data { offset, bytes })?;
        }
        Ok(())
    }

    /// Carries out a whiteout, if that is what the path is (OCI image specification, "Whiteouts").
    fn whiteout(&mut self, mut path: &[u8], out: &mut Out<'_>) -> Option<Result<(), NameError>> {
        // The names of directories end in a slash.
        while let Some(rest) = path.strip_suffix(b"/") {
            path = rest;
        }
        let at = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
        let (dir, name) = path.split_at(at);
        let hidden = name.strip_prefix(b".wh.")?;
        if hidden == b".wh..opq" {
            return Some(self.names.hide_below(out, dir));
        }
        if hidden.is_empty() || hidden.starts_with(b".wh.") || matches!(hidden, b"." | b"..") {
            // Others of the kind were notes of aufs to itself.
            return Some(Ok(()));
        }
        Some(self.names.hide(out, &[dir, hidden].concat()))
    }
}
