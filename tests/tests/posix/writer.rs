//! A program that changes files at random and knows what must be there: everything that it was answered. No answer may be an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aspfs_tests::opgen::Rng;
use rustix::fs::{FallocateFlags, XattrFlags};

/// What a file must be.
#[derive(Clone, Debug)]
struct Body {
    bytes: Vec<u8>,
    ino: u64,
    mode: u32,
    nlink: u64,
    attribute: Option<Vec<u8>>,
}

/// One writer in a folder of its own.
pub struct Writer {
    dir: PathBuf,
    rng: Rng,
    names: BTreeMap<String, usize>,
    bodies: Vec<Body>,
    /// Operations that were answered.
    pub answered: u64,
    /// The longest that one took.
    pub longest: Duration,
}

const FOLDERS: [&str; 2] = ["a", "b"];
const FILE_MAX: usize = 600_000;
const NAMES_MAX: usize = 60;

impl Writer {
    /// In a folder that it makes.
    pub fn new(dir: PathBuf, seed: u64) -> Writer {
        fs::create_dir(&dir).unwrap();
        FOLDERS.iter().for_each(|f| fs::create_dir(dir.join(f)).unwrap());
        let (names, bodies) = Default::default();
        Writer { dir, rng: Rng::new(seed), names, bodies, answered: 0, longest: Duration::ZERO }
    }

    /// Works until told to stop.
    pub fn work(&mut self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let began = Instant::now();
            self.step();
            self.longest = self.longest.max(began.elapsed());
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn new_name(&mut self) -> String {
        format!("{}/{}", self.rng.pick(&FOLDERS), self.rng.below(1 << 20))
    }

    fn some_name(&mut self) -> Option<String> {
        let at = self.rng.below(self.names.len().max(1) as u64) as usize;
        self.names.keys().nth(at).cloned()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.rng.below(20) {
            0 => 65_536 + self.rng.below(200_000),
            1..5 => self.rng.below(20_000),
            _ => self.rng.below(300),
        };
        let seed = self.rng.next_u64();
        (0..len).map(|i| (seed.wrapping_mul(i / 8 + 1) >> (i % 8 * 8)) as u8).collect()
    }

    fn step(&mut self) {
        let Some(name) = self.some_name().filter(|_| self.names.len() > 3) else { return self.create() };
        match self.rng.below(100) {
            0..12 if self.names.len() < NAMES_MAX => self.create(),
            12..40 => self.write(&name),
            40..46 => self.truncate(&name),
            46..56 => self.rename(&name),
            56..64 => self.unlink(&name),
            64..68 => self.link(&name),
            68..72 => self.attribute(&name),
            72..76 => self.chmod(&name),
            76..80 => self.punch(&name),
            80..84 => self.copy(&name),
            84..88 => self.folder(),
            88..90 => self.open(&name).sync_all().unwrap(),
            _ => self.check(&name),
        }
        self.answered += 1;
    }

    fn open(&self, name: &str) -> File {
        OpenOptions::new().read(true).write(true).open(self.path(name)).unwrap()
    }

    fn create(&mut self) {
        let name = self.new_name();
        if self.names.contains_key(&name) {
            return;
        }
        let bytes = self.bytes();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(&name)).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let ino = file.metadata().unwrap().ino();
        self.names.insert(name, self.bodies.len());
        self.bodies.push(Body { bytes, ino, mode: 0o600, nlink: 1, attribute: None });
    }

    fn body(&mut self, name: &str) -> &mut Body {
        &mut self.bodies[self.names[name]]
    }

    fn write(&mut self, name: &str) {
        let bytes = self.bytes();
        let len = self.body(name).bytes.len();
        let append = self.rng.percent(60) || len == 0;
        let at = if append { len } else { self.rng.below(len as u64) as usize };
        if at + bytes.len() > FILE_MAX {
            return;
        }
        if append {
            use std::io::Write;
            OpenOptions::new().append(true).open(self.path(name)).unwrap().write_all(&bytes).unwrap();
        } else {
            self.open(name).write_all_at(&bytes, at as u64).unwrap();
        }
        let body = self.body(name);
        body.bytes.resize(len.max(at + bytes.len()), 0);
        body.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    fn truncate(&mut self, name: &str) {
        let len = if self.rng.percent(30) { 0 } else { self.rng.below(100_000) as usize };
        if len == 0 {
            File::create(self.path(name)).unwrap();
        } else {
            self.open(name).set_len(len as u64).unwrap();
        }
        self.body(name).bytes.resize(len, 0);
    }

    fn rename(&mut self, name: &str) {
        let to = if self.rng.percent(30) { self.some_name().unwrap() } else { self.new_name() };
        fs::rename(self.path(name), self.path(&to)).unwrap();
        let from = self.names[name];
        if self.names.get(&to) == Some(&from) {
            // Two names of one file: nothing happens.
            return;
        }
        self.names.remove(name);
        if let Some(replaced) = self.names.insert(to, from) {
            self.bodies[replaced].nlink -= 1;
        }
    }

    fn unlink(&mut self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
        self.body(name).nlink -= 1;
        self.names.remove(name);
    }

    fn link(&mut self, name: &str) {
        let to = self.new_name();
        if self.names.contains_key(&to) {
            return;
        }
        fs::hard_link(self.path(name), self.path(&to)).unwrap();
        self.body(name).nlink += 1;
        self.names.insert(to, self.names[name]);
    }

    fn attribute(&mut self, name: &str) {
        let value = self.rng.next_u64().to_le_bytes().to_vec();
        rustix::fs::setxattr(self.path(name), "user.a", &value, XattrFlags::empty()).unwrap();
        self.body(name).attribute = Some(value);
    }

    fn chmod(&mut self, name: &str) {
        let mode = 0o600 | self.rng.below(0o100) as u32;
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).unwrap();
        self.body(name).mode = mode;
    }

    fn punch(&mut self, name: &str) {
        let len = self.body(name).bytes.len();
        if len < 2 {
            return;
        }
        let at = self.rng.below(len as u64 - 1) as usize;
        let end = (at + 1 + self.rng.below(50_000) as usize).min(len);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(self.open(name), flags, at as u64, (end - at) as u64).unwrap();
        self.body(name).bytes[at..end].fill(0);
    }

    fn copy(&mut self, name: &str) {
        let to = self.some_name().unwrap();
        let bytes = self.body(name).bytes.clone();
        if self.names[name] == self.names[&to] || bytes.is_empty() {
            return;
        }
        let (from, into) = (self.open(name), self.open(&to));
        let n = rustix::fs::copy_file_range(&from, None, &into, None, bytes.len()).unwrap();
        let body = self.body(&to);
        let len = body.bytes.len().max(n);
        body.bytes.resize(len, 0);
        body.bytes[..n].copy_from_slice(&bytes[..n]);
    }

    fn folder(&mut self) {
        let number = self.rng.below(4);
        let dir = self.path(&format!("a/d{number}"));
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("l")).unwrap();
        assert_eq!(fs::read_link(dir.join("l")).unwrap(), Path::new("nowhere"));
        fs::remove_file(dir.join("l")).unwrap();
        fs::remove_dir(&dir).unwrap();
    }

    /// Looks at one file, at the bytes through the page cache or, with `O_DIRECT`, as the daemon has them.
    fn check(&mut self, name: &str) {
        let direct = if self.rng.percent(50) { libc::O_DIRECT } else { 0 };
        let file = OpenOptions::new().read(true).custom_flags(direct).open(self.path(name)).unwrap();
        let (body, context) = (self.body(name).clone(), format!("{:?}", self.path(name)));
        let seen = file.metadata().unwrap();
        assert_eq!(
            (seen.len(), seen.ino(), seen.mode() & 0o7777, seen.nlink()),
            (body.bytes.len() as u64, body.ino, body.mode, body.nlink),
            "{context}: size, inode, mode, nlink"
        );
        assert!(read_aligned(&file, body.bytes.len()) == body.bytes, "{context}: content (direct: {direct})");
        let mut value = [0; 64];
        let found = rustix::fs::getxattr(self.path(name), "user.a", &mut value[..]).ok().map(|n| value[..n].to_vec());
        assert_eq!(found, body.attribute, "{context}: attribute");
    }

    /// Looks at everything.
    pub fn check_all(&mut self) {
        let names: BTreeSet<String> = self.names.keys().cloned().collect();
        let listed = |folder: &str| {
            let entries = fs::read_dir(self.path(folder)).unwrap();
            entries.map(|e| format!("{folder}/{}", e.unwrap().file_name().into_string().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(FOLDERS.iter().flat_map(|f| listed(f)).collect::<BTreeSet<_>>(), names);
        names.iter().for_each(|name| self.check(name));
    }
}

/// A file's bytes, by reads that may be direct.
fn read_aligned(file: &File, len: usize) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let whole = len.next_multiple_of(BLOCK) + BLOCK;
    let mut buf = vec![0u8; whole + BLOCK];
    let start = buf.as_ptr().align_offset(BLOCK);
    let mut at = 0;
    while at < len {
        match file.read_at(&mut buf[start + at..start + whole], at as u64).unwrap() {
            0 => break,
            n => at += n,
        }
    }
    buf[start..start + at].to_vec()
}
