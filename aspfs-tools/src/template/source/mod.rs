//! Reading a template's source: what kind it is, and telling of it.
//!
//! Whatever the kind, the events for the same tree make the same tree. A source is read once, from front to end, and no more of
//! it is held in memory than the names of what it contains.

mod dir;
mod names;
mod oci;
mod tar;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::event::Event;

/// How a source is to be read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Go into file systems that are mounted in a directory. Else their mount points are told of as empty directories, and files that are
    /// mounted over others are left out; [`Progress::skipped`] counts both.
    pub cross_mounts: bool,
    /// Which image of several, by its name, digest (or the digest's beginning), or platform (`linux/amd64`).
    pub image: Option<String>,
}

/// How far reading is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries told of.
    pub entries: u64,
    /// Bytes of content told of.
    pub bytes: u64,
    /// Entries that are on other mounts: what is in or below them is left out.
    pub skipped: u64,
    /// Bytes read of the source, and how many there are, where that is known beforehand.
    pub read: Option<(u64, u64)>,
}

/// The kinds of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory tree.
    Directory,
    /// A tar archive, compressed or not.
    Tar,
    /// An OCI image layout, as a directory or in a tar archive.
    Oci,
}

impl std::fmt::Display for SourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SourceKind::Directory => "directory",
            SourceKind::Tar => "tar archive",
            SourceKind::Oci => "OCI image",
        })
    }
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The operating system refused.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// With which file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// The archive, or a layer of an image, is not what it should be.
    #[error("{place}: {detail}")]
    Archive {
        /// Which archive.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// A member of an archive cannot be taken.
    #[error("{place}: member {member:?}: {detail}")]
    Member {
        /// Which archive.
        place: String,
        /// The member's name.
        member: String,
        /// What is wrong.
        detail: String,
    },
    /// The image cannot be used, or it is not clear which one is meant.
    #[error("{0}")]
    Image(String),
    /// Whoever takes the events has stopped.
    #[error(transparent)]
    Receiver(Box<dyn std::error::Error + Send + Sync>),
}

type Result<T, E = SourceError> = std::result::Result<T, E>;

/// Takes events; its error ends the reading.
pub type Emit<'a> = &'a mut dyn FnMut(Event) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Where events and figures go.
struct Out<'a> {
    emit: Emit<'a>,
    progress: &'a mut dyn FnMut(Progress),
    now: Progress,
    /// Bytes and entries at the last report.
    told: (u64, u64),
}

impl Out<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        match &event {
            Event::Node { .. } | Event::Link { .. } => self.now.entries += 1,
            Event::Data { bytes, .. } => self.now.bytes += bytes.len() as u64,
            _ => {}
        }
        (self.emit)(event).map_err(SourceError::Receiver)?;
        let (entries, bytes) = self.told;
        if self.now.entries - entries >= 256 || self.now.bytes - bytes >= 4 << 20 {
            self.tell();
        }
        Ok(())
    }

    fn tell(&mut self) {
        self.told = (self.now.entries, self.now.bytes);
        (self.progress)(self.now);
    }

    /// Takes note of an entry that is on another mount.
    fn skip(&mut self) {
        self.now.skipped += 1;
    }

    /// Takes note of how much of the source has been read.
    fn read(&mut self, done: u64, of: u64) {
        self.now.read = Some((done, of));
    }
}

/// Reads a source and tells of it; the last event is [`Event::End`]. A symbolic link as the source itself is followed.
///
/// # Errors
/// The source cannot be read or is damaged, or whoever takes the events has stopped. Some events may have been told by then.
pub fn read(
    source: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
    emit: Emit<'_>,
) -> Result<SourceKind> {
    let mut out = Out { emit, progress, now: Progress::default(), told: (0, 0) };
    let found = std::fs::metadata(source).map_err(io_at("opening", source))?;
    let kind = if found.is_dir() {
        if oci::is_layout(source) {
            oci::read(oci::Blobs::folder(source), options, &mut out)?;
            SourceKind::Oci
        } else {
            dir::read(source, options, &mut out)?;
            SourceKind::Directory
        }
    } else if found.is_file() {
        let file = File::open(source).map_err(io_at("opening", source))?;
        read_file(source, file, options, &mut out)?
    } else {
        let detail = "it is neither a directory nor a file".to_owned();
        return Err(SourceError::Archive { place: source.display().to_string(), detail });
    };
    out.event(Event::End)?;
    out.tell();
    Ok(kind)
}

/// Reads a tar archive, compressed or not, from its first byte to its last, as [`read`] does; `place` is what errors call it. An image in it is
/// not recognized: its parts may come in any order.
///
/// # Errors
/// As [`read`].
pub fn read_tar(
    place: &str,
    from: impl io::Read,
    progress: &mut dyn FnMut(Progress),
    emit: Emit<'_>,
) -> Result<SourceKind> {
    let mut out = Out { emit, progress, now: Progress::default(), told: (0, 0) };
    tar::read(place, from, None, &mut out)?;
    out.event(Event::End)?;
    out.tell();
    Ok(SourceKind::Tar)
}

fn read_file(path: &Path, file: File, options: &Options, out: &mut Out<'_>) -> Result<SourceKind> {
    match oci::Blobs::archive(path, &file)? {
        Some(blobs) => {
            oci::read(blobs, options, out)?;
            Ok(SourceKind::Oci)
        }
        None => {
            let total = file.metadata().map_err(io_at("looking at", path))?.len();
            tar::read(&path.display().to_string(), file, Some(total), out)?;
            Ok(SourceKind::Tar)
        }
    }
}

/// Whether an extended attribute belongs to a template: `user.`, file capabilities, POSIX ACLs, and `trusted.` but for overlayfs's own. What
/// security modules write is for the machine it was written on.
pub fn keeps_xattr(name: &[u8]) -> bool {
    const WHOLE: [&[u8]; 3] = [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
    let trusted = name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay.");
    WHOLE.contains(&name) || name.starts_with(b"user.") || trusted
}

fn io_at(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.into();
    move |source| SourceError::Io { what, path: path.display().to_string(), source }
}

/// A name for people.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
