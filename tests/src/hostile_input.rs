//! Fuzz input read as values of the file system, mostly near the limits where sums overflow.

use vefs::change::{AtWindow, Change, Hold, Need, PayloadRef, Policy, ReplicaOf, Settings};
use vefs::clock::Timestamp;
use vefs::content::ExtentPlace;
use vefs::ids::{Hash, InodeNo, PayloadId, TxnNo};
use vefs::state::key::{Entry, Key, Value};
use vefs::types::{Dentry, Extent, Inode, Kind, Source};

use crate::samples;

/// Bytes read as values, mostly near the limits where sums overflow.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    /// The next byte; 0 when there are no more.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// Up to `max` bytes.
    pub fn bytes(&mut self, max: usize) -> Vec<u8> {
        let n = usize::from(self.byte()) % (max + 1);
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    /// A number.
    pub fn number(&mut self) -> u64 {
        const SOME: [u64; 12] = [
            0,
            1,
            u64::MAX,
            i64::MAX as u64,
            1 << 62,
            (1 << 62) + 1,
            InodeNo::FIRST_PRIVATE.0,
            vefs::limits::FILE_SIZE_MAX,
            4096,
            1 << 40,
            16 << 20,
            65_536,
        ];
        let b = self.byte();
        match b {
            0..144 => SOME[usize::from(b) % 12].wrapping_add(u64::from(b / 12 % 4)),
            144..220 => u64::from(self.byte()),
            _ => self.bytes(8).into_iter().fold(0, |n, b| n << 8 | u64::from(b)),
        }
    }

    fn ino(&mut self) -> InodeNo {
        match self.byte() {
            b @ 0..200 => InodeNo(if b % 4 == 0 { 1 } else { InodeNo::FIRST_PRIVATE.0 + u64::from(b % 4) - 1 }),
            _ => InodeNo(self.number()),
        }
    }

    fn name(&mut self) -> Vec<u8> {
        match self.byte() {
            b @ 0..200 => vec![b'a' + b % 4],
            200..210 => vec![b'n'; 256 + 44],
            _ => self.bytes(40),
        }
    }

    fn time(&mut self) -> Timestamp {
        let b = self.byte();
        Timestamp { secs: if b < 250 { 1 } else { i64::MAX }, nanos: if b % 64 == 63 { u32::MAX } else { 5 } }
    }

    fn kind(&mut self) -> Kind {
        samples::KINDS[usize::from(self.byte()) % 7]
    }

    fn inode(&mut self) -> Inode {
        let kind = self.kind();
        let odd = self.byte();
        Inode {
            mode: if odd < 240 { kind.bits() | 0o755 } else { self.number() as u32 },
            uid: 0,
            gid: 0,
            nlink: if odd < 200 { u32::from(odd % 3) } else { self.number() as u32 },
            rdev: 0,
            size: self.number(),
            mapped: if odd < 200 { 0 } else { self.number() },
            atime: self.time(),
            mtime: self.time(),
            ctime: self.time(),
            btime: self.time(),
            parent: if odd < 220 { InodeNo::ROOT } else { self.ino() },
            next_cookie: if odd < 220 { 3 } else { self.number() },
            flags: if odd < 248 { u32::from(odd % 2) } else { self.number() as u32 },
        }
    }

    fn dentry(&mut self) -> Dentry {
        Dentry { ino: self.ino(), kind: self.kind(), cookie: self.number() }
    }

    fn extent(&mut self) -> Extent {
        let hash = Hash::default();
        let source = match self.byte() % 5 {
            0 | 1 => Source::Payload(PayloadId { txn: TxnNo(u64::from(self.byte() % 4)), offset: self.number() }),
            2 => Source::Object { hash, offset: self.number() },
            3 => Source::Base { hash, offset: self.number() },
            _ => Source::Unwritten,
        };
        Extent { len: self.number(), source }
    }

    fn hold(&mut self) -> (String, Hold) {
        let name = String::from_utf8_lossy(&self.name()).into_owned();
        let owner = if self.byte() < 240 { String::new() } else { "o".repeat(300) };
        (name, Hold { txn: TxnNo(self.number()), onwards: self.byte().is_multiple_of(2), owner, since: self.time() })
    }

    fn settings(&mut self) -> Settings {
        Settings { quota_bytes: self.number(), quota_inodes: self.number(), history_bytes: self.number() }
    }

    fn policy(&mut self) -> Policy {
        let need = [Need::Optional, Need::Required, Need::Returning][usize::from(self.byte() % 3)];
        let replica = ReplicaOf { node: [self.byte(); 16], need, bandwidth: self.number() };
        let (window_ms, weight) = (self.number() as u32, self.byte());
        let replicas = vec![replica; usize::from(self.byte() % 20)];
        let writer = [self.byte(); 16];
        Policy { window_ms, at_window: AtWindow::Stall, weight, recorded: false, replicas, writer }
    }

    /// A change of any kind.
    pub fn change(&mut self) -> Change {
        match self.byte() % 16 {
            0..3 => Change::PutInode(self.ino(), self.inode()),
            3 => Change::DropInode(self.ino()),
            4 | 5 => Change::PutDentry(self.ino(), self.name(), self.dentry()),
            6 => Change::DropDentry(self.ino(), self.name(), self.number()),
            7 => Change::PutTarget(self.ino(), self.bytes(20)),
            8 => Change::PutXattr(self.ino(), [b"user.".to_vec(), self.name()].concat(), self.bytes(20)),
            9 => Change::DropXattr(self.ino(), [b"user.".to_vec(), self.name()].concat()),
            10..13 => Change::Map(self.ino(), self.number(), self.extent()),
            13 => Change::Unmap(self.ino(), self.number(), self.number()),
            14 => Change::Usage(self.number() as i64, self.number() as i64),
            _ if self.byte().is_multiple_of(2) => Change::PutSettings(self.settings()),
            _ if self.byte().is_multiple_of(3) => Change::PutPolicy(self.policy()),
            _ => {
                let (name, hold) = self.hold();
                if self.byte().is_multiple_of(3) { Change::DropHold(name) } else { Change::PutHold(name, hold) }
            }
        }
    }

    /// A place.
    pub fn place(&mut self) -> ExtentPlace {
        let len = self.number();
        let crcs = if self.byte().is_multiple_of(8) { 3 } else { len.div_ceil(vefs::limits::CHUNK as u64).min(2000) };
        ExtentPlace { file: self.number(), offset: self.number(), len, crcs: vec![7; crcs as usize] }
    }

    /// A payload: what the body says of it, inline bytes, and a place beside. They need not fit.
    pub fn payload(&mut self) -> (Option<PayloadRef>, Vec<u8>, Option<ExtentPlace>) {
        match self.byte() % 8 {
            0..4 => (None, vec![], None),
            4 | 5 => {
                let bytes = self.bytes(100);
                (Some(PayloadRef { len: bytes.len() as u64, hash: Some(Hash::of(&bytes)) }), bytes, None)
            }
            6 => {
                let place = self.place();
                (Some(PayloadRef { len: place.len, hash: None }), vec![], Some(place))
            }
            _ => (Some(PayloadRef { len: self.number(), hash: None }), self.bytes(10), None),
        }
    }

    /// A key that a program could have made.
    pub fn key(&mut self) -> Key {
        let ino = self.ino();
        match self.byte() % 9 {
            0 | 1 => Key::inode(ino),
            2 => Key::dentry(ino, &self.name()),
            3 => Key::cookie(ino, self.number()),
            4 => Key::target(ino),
            5 => Key::xattr(ino, &self.name()),
            6 => Key::extent(ino, self.number()),
            7 => Key::orphan(ino),
            8 if self.byte().is_multiple_of(2) => Key::policy(),
            _ => Key::settings(),
        }
    }

    /// A value, mostly of the kind that the key has.
    pub fn value(&mut self, kind: u8) -> Value {
        let kind = if self.byte() < 230 { kind } else { self.byte() % 11 };
        match kind {
            1 => Value::Inode(self.inode()),
            2 => Value::Dentry(self.dentry()),
            3 => Value::Entry(Entry { name: self.name().into(), ino: self.ino(), kind: self.kind() }),
            4 | 5 => Value::Bytes(self.bytes(30).into()),
            6 => Value::Extent(self.extent()),
            7 => Value::Mark,
            8 => Value::Hold(self.hold().1),
            9 => Value::Settings(self.settings()),
            10 => Value::Policy(self.policy()),
            _ => Value::Whiteout,
        }
    }
}
