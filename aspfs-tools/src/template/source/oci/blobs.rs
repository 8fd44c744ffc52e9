//! The files of an image layout, in a directory or in a tar archive, and the check of what is read of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageIndex, OciLayout};
use sha2::{Digest, Sha256, Sha512};

use super::super::super::event::What;
use super::super::tar::members::{Body, Members, TarError};
use super::super::tar::unpack;
use super::super::{Result, SourceError, io_at};

/// Most bytes of a JSON document.
const DOCUMENT_MAX: u64 = 4 << 20;
/// Free space that unpacking an archive leaves where temporary files lie.
const KEPT_FREE: u64 = 256 << 20;
/// It is looked at each time so many bytes have been written.
const SPOOL_STEP: u64 = 16 << 20;
/// Most files of an archive of a layout.
const FILES_MAX: usize = 1 << 16;
/// What lies at the top of a layout, besides what other tools put there.
const TOP: [&[u8]; 6] = [b"blobs", b"index.json", b"oci-layout", b"manifest.json", b"repositories", b"refs"];

/// Whether a directory is an image layout.
pub fn is_layout(dir: &Path) -> bool {
    dir.join("oci-layout").is_file() && dir.join("index.json").is_file()
}

/// The files of a layout.
pub enum Blobs {
    /// In a directory.
    Folder(PathBuf),
    /// In an archive: where each begins and how long it is.
    Archive { place: String, file: Arc<File>, files: HashMap<String, (u64, u64)> },
}

/// A part of a file, read without moving the file's own position.
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = (self.end - self.at).min(buf.len() as u64) as usize;
        let n = self.file.read_at(&mut buf[..want], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Blobs {
    /// The layout in a directory.
    pub fn folder(dir: &Path) -> Blobs {
        Blobs::Folder(dir.to_owned())
    }

    /// The layout in a tar archive; `None` when the archive is not of one. A compressed archive of a layout is unpacked to a file without
    /// a name, because blobs are not in the order in which they are needed: below `TMPDIR`, as far as there is room.
    pub fn archive(path: &Path, file: &File) -> Result<Option<Blobs>> {
        let place = path.display().to_string();
        let failed = |e: io::Error| io_at("reading", path)(e);
        let file = Arc::new(file.try_clone().map_err(failed)?);
        let whole = |file: &Arc<File>| -> io::Result<Part> {
            Ok(Part { file: file.clone(), at: 0, end: file.metadata()?.len() })
        };
        let part = whole(&file).map_err(failed)?;
        let mut unpacked = unpack::open(Box::new(part)).map_err(|e| TarError::from(e).at(&place))?;
        if !begins_like_one(&mut unpacked) {
            return Ok(None);
        }
        let mut first = [0; 6];
        let n = unpack::fill(&mut whole(&file).map_err(failed)?, &mut first).map_err(failed)?;
        let file = match unpack::is_packed(&first[..n]) {
            false => file,
            true => {
                let part = whole(&file).map_err(failed)?;
                let mut unpacked = unpack::open(Box::new(part)).map_err(|e| TarError::from(e).at(&place))?;
                let folder = std::env::temp_dir();
                let mut spool = tempfile::tempfile().map_err(io_at("making a file in", &folder))?;
                match spool_into(&mut unpacked, &mut spool, free_bytes) {
                    Ok(true) => Arc::new(spool),
                    Ok(false) => {
                        let detail = format!(
                            "unpacked it does not fit in {} with {} left free: unpack it, or set TMPDIR to a folder with more room",
                            folder.display(),
                            crate::units::show_size(KEPT_FREE)
                        );
                        return Err(SourceError::Archive { place, detail });
                    }
                    Err(e) => return Err(TarError::from(e).at(&place)),
                }
            }
        };
        let from = Position { inner: io::BufReader::new(whole(&file).map_err(failed)?), at: 0 };
        let files = list(from).map_err(|e| e.at(&place))?;
        let is_layout = files.contains_key("oci-layout") && files.contains_key("index.json");
        Ok(is_layout.then_some(Blobs::Archive { place, file, files }))
    }

    fn file(&self, name: &str) -> Result<Box<dyn Read>> {
        match self {
            Blobs::Folder(dir) => {
                let path = dir.join(name);
                Ok(Box::new(File::open(&path).map_err(io_at("opening", path))?))
            }
            Blobs::Archive { place, file, files } => {
                let absent = || SourceError::Archive { place: place.clone(), detail: format!("{name} is missing") };
                let (at, len) = *files.get(name).ok_or_else(absent)?;
                Ok(Box::new(Part { file: file.clone(), at, end: at + len }))
            }
        }
    }

    fn small(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let place = match self {
            Blobs::Folder(dir) => dir.join(name).display().to_string(),
            Blobs::Archive { place, .. } => format!("{place}: {name}"),
        };
        let mut from = self.file(name)?.take(DOCUMENT_MAX + 1);
        from.read_to_end(&mut bytes).map_err(|e| TarError::from(e).at(&place))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            let detail = format!("it has more than {DOCUMENT_MAX} bytes");
            return Err(SourceError::Archive { place, detail });
        }
        Ok(bytes)
    }

    /// The layout's index, after a look at the layout's version.
    pub fn index(&self) -> Result<ImageIndex> {
        let bad = |what: &str, e: &dyn std::error::Error| {
            SourceError::Image(format!("{what} cannot be read: {}", super::why(e)))
        };
        let layout = OciLayout::from_reader(&self.small("oci-layout")?[..]).map_err(|e| bad("oci-layout", &e))?;
        let version = layout.image_layout_version();
        if !version.starts_with("1.") {
            return Err(SourceError::Image(format!(
                "the image layout is of version {version:?}, this program knows 1"
            )));
        }
        ImageIndex::from_reader(&self.small("index.json")?[..]).map_err(|e| bad("index.json", &e))
    }

    /// A blob, to be read and then [finished](Checked::finish).
    pub fn open(&self, descriptor: &Descriptor) -> Result<Checked> {
        let digest = descriptor.digest().to_string();
        let bad = || SourceError::Image(format!("digest {digest:?} is not one of sha256 or sha512"));
        let (name, hex) = digest.split_once(':').ok_or_else(bad)?;
        let hasher = match name {
            "sha256" => Hasher::Sha256(Sha256::new()),
            "sha512" => Hasher::Sha512(Sha512::new()),
            _ => return Err(bad()),
        };
        let digits = if name == "sha256" { 64 } else { 128 };
        if hex.len() != digits || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        let from = self.file(&format!("blobs/{name}/{hex}"))?;
        Ok(Checked { from, hasher: Some(hasher), size: descriptor.size(), done: 0, digest })
    }

    /// A JSON document, checked.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = descriptor.digest();
        if descriptor.size() > DOCUMENT_MAX {
            return Err(SourceError::Image(format!("document {digest} has more than {DOCUMENT_MAX} bytes")));
        }
        let mut blob = self.open(descriptor)?;
        let mut bytes = Vec::new();
        let read = blob.read_to_end(&mut bytes);
        blob.finish()?;
        read.map_err(|e| SourceError::Image(format!("document {digest}: {e}")))?;
        Ok(bytes)
    }
}

/// Copies to the end; ends before with `false` where too little would be left free. A few bytes may unpack to any number.
fn spool_into(from: &mut dyn Read, to: &mut File, free: impl Fn(&File) -> io::Result<u64>) -> io::Result<bool> {
    loop {
        if free(to)? < KEPT_FREE + SPOOL_STEP {
            return Ok(false);
        }
        if io::copy(&mut from.take(SPOOL_STEP), to)? < SPOOL_STEP {
            return Ok(true);
        }
    }
}

/// Bytes free on a file's file system.
fn free_bytes(file: &File) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(file)?;
    // Some file systems in memory have no bound, and say 0 of 0.
    Ok(if stat.f_blocks == 0 { u64::MAX } else { stat.f_bavail.saturating_mul(stat.f_frsize) })
}

/// Whether an archive's first members could be those of a layout. What cannot be read is for others to complain about.
fn begins_like_one(from: &mut dyn Read) -> bool {
    let mut members = Members::new(from);
    while let Ok(Some(member)) = members.next() {
        let first = member.path.split(|b| *b == b'/').find(|part| !part.is_empty() && *part != b".");
        match first {
            None => {}
            Some(first) => return TOP.contains(&first),
        }
    }
    false
}

/// Counts what is consumed.
struct Position<R> {
    inner: R,
    at: u64,
}

impl<R: Read> Read for Position<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Where the files of a plain archive are. Those with odd names or holes are no part of a layout.
fn list(from: Position<impl Read>) -> Result<HashMap<String, (u64, u64)>, TarError> {
    let mut files = HashMap::new();
    let mut members = Members::new(from);
    while let Some(member) = members.next()? {
        let Body::Other(What::File { size, sparse: false }) = member.body else { continue };
        let name = member.path.strip_prefix(b"./").unwrap_or(&member.path);
        if let Ok(name) = std::str::from_utf8(name) {
            files.insert(name.to_owned(), (members.reader().at, size));
        }
        if files.len() > FILES_MAX {
            return Err(TarError::Bad(format!("it has more than {FILES_MAX} files")));
        }
    }
    Ok(files)
}

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// A blob whose length and digest are checked.
pub struct Checked {
    from: Box<dyn Read>,
    hasher: Option<Hasher>,
    size: u64,
    done: u64,
    digest: String,
}

impl Checked {
    /// Bytes read so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Reads what is left, and checks everything.
    pub fn finish(&mut self) -> Result<()> {
        let longer = match self.drain() {
            Ok(longer) => longer,
            Err(e) => return Err(SourceError::Image(format!("blob {}: {e}", self.digest))),
        };
        if longer || self.done != self.size {
            let got = if longer { "more".to_owned() } else { self.done.to_string() };
            let say = format!("blob {} has {got} bytes, not {}", self.digest, self.size);
            return Err(SourceError::Image(say));
        }
        let got = match self.hasher.take() {
            Some(Hasher::Sha256(hasher)) => format!("sha256:{}", hex(&hasher.finalize())),
            Some(Hasher::Sha512(hasher)) => format!("sha512:{}", hex(&hasher.finalize())),
            None => return Ok(()),
        };
        if got == self.digest {
            return Ok(());
        }
        Err(SourceError::Image(format!("blob {} is damaged: its digest is {got}", self.digest)))
    }

    /// Reads what is left; answers whether the file goes on behind the blob.
    fn drain(&mut self) -> io::Result<bool> {
        let mut buf = vec![0; 64 << 10];
        while self.read(&mut buf)? > 0 {}
        Ok(self.from.read(&mut buf[..1])? > 0)
    }
}

impl Read for Checked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = (self.size - self.done).min(buf.len() as u64) as usize;
        let n = self.from.read(&mut buf[..want])?;
        match &mut self.hasher {
            Some(Hasher::Sha256(hasher)) => hasher.update(&buf[..n]),
            Some(Hasher::Sha512(hasher)) => hasher.update(&buf[..n]),
            None => {}
        }
        self.done += n as u64;
        Ok(n)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A compressed archive of some megabytes unpacks to terabytes of zeros: it filled the file system of temporary files, for everybody who uses
    /// it.
    #[test]
    fn unpacking_ends_before_the_disk_is_full() {
        let room = KEPT_FREE + 3 * SPOOL_STEP;
        let free = |file: &File| Ok(room - file.metadata()?.len());
        let mut file = tempfile::tempfile().unwrap();
        assert!(!spool_into(&mut io::repeat(0), &mut file, free).unwrap());
        assert!(free(&file).unwrap() >= KEPT_FREE);
        let mut file = tempfile::tempfile().unwrap();
        assert!(spool_into(&mut io::repeat(7).take(SPOOL_STEP + 5), &mut file, free).unwrap());
        assert_eq!(file.metadata().unwrap().len(), SPOOL_STEP + 5);
        assert!(free_bytes(&file).unwrap() > 0);
    }
}
