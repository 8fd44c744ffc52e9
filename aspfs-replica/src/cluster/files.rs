//! The folder of a cluster: files that are there whole or not at all, and a lock.
//!
//! A file is written as `NAME.new`, flushed, renamed, and the folder flushed. Secrets are readable by their owner alone, from the
//! first byte on, and are refused when others may read them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::ClusterError;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Everybody who may enter the folder.
    Open,
    /// Its owner.
    Secret,
}

/// The folder, locked: one process at a time has it open.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

fn failed(path: &Path, source: io::Error) -> ClusterError {
    ClusterError::Io { path: path.to_owned(), source }
}

impl Folder {
    /// Locks an existing folder.
    pub fn open(path: &Path) -> Result<Folder, ClusterError> {
        let lock = path.join("lock");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let file = match file {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ClusterError::NotHere(path.to_owned())),
            other => other.map_err(|e| failed(&lock, e))?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Err(ClusterError::Locked(path.to_owned())),
            Err(e) => Err(failed(&lock, e.into())),
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: file }),
        }
    }

    /// Makes the folder, if it is not there, for its owner alone, and locks it.
    pub fn create(path: &Path) -> Result<Folder, ClusterError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(path, e)),
            Err(_) => {}
            Ok(()) => {
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                File::open(parent).and_then(|p| p.sync_all()).map_err(|e| failed(parent, e))?;
            }
        }
        Folder::open(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it, for messages.
    pub fn place(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file of at most `max` bytes; `None` when it is not there.
    pub fn read(&self, name: &str, max: usize, secrecy: Secrecy) -> Result<Option<Vec<u8>>, ClusterError> {
        let path = self.place(name);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| failed(&path, e))?,
        };
        let mode = file.metadata().map_err(|e| failed(&path, e))?.permissions().mode() & 0o777;
        if secrecy == Secrecy::Secret && mode & 0o077 != 0 {
            return Err(ClusterError::Exposed { path, mode });
        }
        let mut bytes = Vec::new();
        file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(|e| failed(&path, e))?;
        if bytes.len() > max { Err(ClusterError::Large { path, max }) } else { Ok(Some(bytes)) }
    }

    /// Gives a file, if it is there, another name: `NAME.1`, or the next one that is free. Durable.
    pub fn set_aside(&self, name: &str) -> Result<(), ClusterError> {
        let path = self.place(name);
        let free = (1u32..).map(|n| self.place(&format!("{name}.{n}"))).find(|free| !free.exists());
        match free.map_or(Ok(()), |free| fs::rename(&path, free)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.and_then(|()| File::open(&self.path)?.sync_all()).map_err(|e| failed(&path, e)),
        }
    }

    /// Puts a file there, in place of one that is there, durably.
    pub fn write(&self, name: &str, bytes: &[u8], secrecy: Secrecy) -> Result<(), ClusterError> {
        let (path, new) = (self.place(name), self.place(&format!("{name}.new")));
        let mode = if secrecy == Secrecy::Secret { 0o600 } else { 0o644 };
        let written = || -> io::Result<()> {
            // One that a crash left may have had another mode.
            match fs::remove_file(&new) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        };
        written().map_err(|e| failed(&path, e))
    }
}
