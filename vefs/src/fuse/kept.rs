//! What of a mount outlives the daemon: the exchange of FUSE_INIT, and per inode the opens that the kernel has and the backing file that
//! it reads. It lies in a memfd that the mount's holder keeps, so that a new daemon goes on where the old one was killed.
//!
//! Layout (little-endian; it lives as long as a mount and never on a disk, but a newer daemon may take it over, so it has a format number):
//! a head of 4096 bytes, then slots of 128 bytes. See [`Kept::read`] and [`Slot::bytes`].
//!
//! Invariant: a slot is written before the kernel is answered, in one write(2) that does not cross a page, so that a kill leaves the
//! old one or the new one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::fstat;
use rustix::io::{pread, pwrite};

use crate::format::role::{Role, RoleKind};
use crate::ids::{Hash, InodeNo};

const MAGIC: &[u8; 8] = b"VEFSKEPT";
const FORMAT: u32 = 1;
const HEAD: u64 = 4096;
const SLOT: usize = 128;
/// Longest message of the INIT exchange that is kept.
const MESSAGE_MAX: usize = 1024;
/// Where in the head the time lies from which on pages may be dirty: nanoseconds of `CLOCK_BOOTTIME`, 0 for none.
const FETCHED: usize = 24;
/// Where in the head the salt lies.
const SALT: usize = 32;
/// Where in the head the fork lies: its transaction, and its epoch and 1.
const FORK: usize = 40;
/// More slots than a mount can come to need are a sign of damage.
const SLOTS_MAX: u64 = 4 << 20;
/// Requests remembered per slot: more than a mount has threads.
pub const REMEMBERED: usize = 4;

/// The inode is known to the kernel under its second node id.
const ALIASED: u32 = 1;
/// The inode was opened for writing.
const WRITTEN: u32 = 2;

/// What is known of an inode that is, or was, open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// The inode; 0 in a free slot.
    pub ino: u64,
    /// See [`crate::fuse::nodes`].
    pub aliased: bool,
    /// It was opened for writing during this mount.
    pub written: bool,
    /// Opens that the kernel caches itself.
    pub cached: u32,
    /// Opens that read the backing file.
    pub passthrough: u32,
    /// Number of the backing file, 0 for none.
    pub backing: u32,
    /// The object that the backing file is.
    pub object: Hash,
    /// The last requests that changed this slot, the newest first, with the answer in bit 0 (which requests have free).
    pub requests: [u64; REMEMBERED],
}

impl Slot {
    /// Whether nothing about it needs to be remembered.
    pub fn is_idle(&self) -> bool {
        self.cached == 0 && self.passthrough == 0 && !self.aliased
    }

    /// The slot as it is kept.
    fn bytes(&self) -> [u8; SLOT] {
        let mut out = [0; SLOT];
        let flags = u32::from(self.aliased) * ALIASED + u32::from(self.written) * WRITTEN;
        out[..8].copy_from_slice(&self.ino.to_le_bytes());
        for (i, v) in [flags, self.cached, self.passthrough, self.backing].iter().enumerate() {
            out[8 + i * 4..12 + i * 4].copy_from_slice(&v.to_le_bytes());
        }
        for (i, v) in self.requests.iter().enumerate() {
            out[24 + i * 8..32 + i * 8].copy_from_slice(&v.to_le_bytes());
        }
        out[56..88].copy_from_slice(&self.object.0);
        out
    }

    fn parse(bytes: &[u8; SLOT]) -> Slot {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let mut object = Hash::default();
        object.0.copy_from_slice(&bytes[56..88]);
        Slot {
            ino: long(0),
            aliased: word(8) & ALIASED != 0,
            written: word(8) & WRITTEN != 0,
            cached: word(12),
            passthrough: word(16),
            backing: word(20),
            object,
            requests: std::array::from_fn(|i| long(24 + i * 8)),
        }
    }
}

/// Why what a mount left cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// Reading or writing the memfd failed.
    #[error("the mount's kept state: {0}")]
    Io(#[from] io::Error),
    /// It is not what a daemon leaves.
    #[error("the mount's kept state is damaged: {0}")]
    Damaged(&'static str),
    /// Another format than this daemon knows.
    #[error("the mount's kept state has format {0}, this daemon knows {FORMAT}")]
    Format(u32),
}

/// The messages of FUSE_INIT, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What the kernel asked.
    pub request: Vec<u8>,
    /// What it was answered.
    pub reply: Vec<u8>,
    /// What tells the mount's requests from those of the VE's other mounts; 0 of a daemon that did not know of it.
    pub salt: u64,
    /// Where the VE's history forked when this node began to write it, for the time in which the mount was made: transaction and epoch; `None` of a daemon
    /// that did not know of it.
    pub fork: Option<(u64, u64)>,
}

impl Exchange {
    /// Whether the node has written the VE all the time since: in the role that it has, no other node has.
    pub fn is_of(&self, role: &Role) -> bool {
        role.kind == RoleKind::Primary && self.fork.is_none_or(|fork| fork == (role.fork.txn.0, role.fork.epoch.0))
    }
}

/// What a memfd held when it was taken over.
#[derive(Debug)]
pub struct Left {
    /// The memfd.
    pub kept: Kept,
    /// The exchange of FUSE_INIT; `None` for a mount that was never served.
    pub exchange: Option<Exchange>,
    /// Since when pages may be dirty in the kernel, where somebody cared: see [`crate::fuse::pages`].
    pub fetched: Option<Duration>,
    /// Slots in use, with their numbers.
    pub slots: Vec<(u32, Slot)>,
}

/// The memfd.
#[derive(Clone, Debug)]
pub struct Kept {
    fd: Arc<OwnedFd>,
}

impl Kept {
    /// Takes the memfd over and reads what is in it.
    pub fn read(fd: OwnedFd) -> Result<Left, KeptError> {
        let len = u64::try_from(fstat(&fd).map_err(io::Error::from)?.st_size).unwrap_or(0);
        let kept = Kept { fd: Arc::new(fd) };
        if len == 0 {
            return Ok(Left { kept, exchange: None, fetched: None, slots: Vec::new() });
        }
        let mut head = vec![0; HEAD as usize];
        kept.read_at(&mut head, 0)?;
        if &head[..8] != MAGIC {
            return Err(KeptError::Damaged("its magic is another"));
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if word(8) != FORMAT {
            return Err(KeptError::Format(word(8)));
        }
        let (request, reply) = (word(12) as usize, word(16) as usize);
        if request > MESSAGE_MAX || reply > MESSAGE_MAX || request == 0 || reply == 0 {
            return Err(KeptError::Damaged("its messages' lengths"));
        }
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let exchange = Exchange {
            request: head[64..64 + request].to_vec(),
            reply: head[64 + MESSAGE_MAX..][..reply].to_vec(),
            salt: long(SALT),
            fork: long(FORK + 8).checked_sub(1).map(|epoch| (long(FORK), epoch)),
        };
        let fetched = long(FETCHED);
        let fetched = (fetched != 0).then(|| Duration::from_nanos(fetched));
        let count = len.saturating_sub(HEAD) / SLOT as u64;
        if count > SLOTS_MAX {
            return Err(KeptError::Damaged("its length"));
        }
        let mut slots = Vec::new();
        let mut bytes = [0; SLOT];
        for index in 0..count as u32 {
            kept.read_at(&mut bytes, place(index))?;
            let slot = Slot::parse(&bytes);
            if slot.ino != 0 {
                slots.push((index, slot));
            }
        }
        Ok(Left { kept, exchange: Some(exchange), fetched, slots })
    }

    /// The memfd, to be kept by somebody else too.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Keeps the exchange. Written last of its parts is the magic: without it the mount counts as never served.
    pub fn put_exchange(&self, exchange: &Exchange) -> Result<(), KeptError> {
        if exchange.request.len() > MESSAGE_MAX || exchange.reply.len() > MESSAGE_MAX {
            return Err(KeptError::Damaged("an INIT message is longer than expected"));
        }
        let mut head = vec![0; HEAD as usize];
        head[..8].copy_from_slice(MAGIC);
        for (at, v) in [(8, FORMAT), (12, exchange.request.len() as u32), (16, exchange.reply.len() as u32)].into_iter()
        {
            head[at..at + 4].copy_from_slice(&v.to_le_bytes());
        }
        head[SALT..SALT + 8].copy_from_slice(&exchange.salt.to_le_bytes());
        if let Some((txn, epoch)) = exchange.fork {
            head[FORK..FORK + 8].copy_from_slice(&txn.to_le_bytes());
            head[FORK + 8..FORK + 16].copy_from_slice(&epoch.saturating_add(1).to_le_bytes());
        }
        head[64..][..exchange.request.len()].copy_from_slice(&exchange.request);
        head[64 + MESSAGE_MAX..][..exchange.reply.len()].copy_from_slice(&exchange.reply);
        Ok(self.write_at(&head, 0)?)
    }

    /// Keeps since when pages may be dirty. After the exchange.
    pub fn put_fetched(&self, since: Option<Duration>) -> Result<(), KeptError> {
        let nanos = since.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        Ok(self.write_at(&nanos.to_le_bytes(), FETCHED as u64)?)
    }

    /// Keeps a slot.
    pub fn put_slot(&self, index: u32, slot: &Slot) -> Result<(), KeptError> {
        Ok(self.write_at(&slot.bytes(), place(index))?)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match pread(&self.fd, &mut *buf, offset)? {
            n if n == buf.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match pwrite(&self.fd, bytes, offset)? {
            n if n == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

fn place(index: u32) -> u64 {
    HEAD + u64::from(index) * SLOT as u64
}

/// The slot of an inode without any.
pub fn fresh(ino: InodeNo) -> Slot {
    Slot { ino: ino.0, ..Slot::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memfd() -> OwnedFd {
        rustix::fs::memfd_create("kept", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
    }

    /// A mount that is taken over by a daemon that did not see the other node write is of another time all the same.
    #[test]
    fn a_mount_is_of_one_time_in_which_its_node_wrote() {
        let (_store, ve, _) = crate::store::bed::in_memory();
        let made = |role: &Role| Some((role.fork.txn.0, role.fork.epoch.0));
        let exchange = |fork| Exchange { request: vec![1], reply: vec![2], salt: 0, fork };
        let before = exchange(made(&ve.role()));
        assert!(before.is_of(&ve.role()));
        crate::store::bed::create(&ve, "file");
        assert!(before.is_of(&ve.role()));
        ve.step_down(RoleKind::Replica, ve.epoch()).unwrap();
        assert!(!before.is_of(&ve.role()) && !exchange(None).is_of(&ve.role()));
        ve.promote(ve.epoch().promoted()).unwrap();
        assert!(!before.is_of(&ve.role()) && exchange(made(&ve.role())).is_of(&ve.role()));
        assert!(exchange(None).is_of(&ve.role()), "of a daemon that did not know of it");
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let fd = memfd();
        let Left { kept, exchange, fetched, slots } = Kept::read(fd.try_clone().unwrap()).unwrap();
        assert_eq!((exchange, fetched, slots.len()), (None, None, 0));
        let exchange = Exchange { request: vec![1; 104], reply: vec![2; 80], salt: u64::MAX - 1, fork: Some((7, 0)) };
        kept.put_exchange(&exchange).unwrap();
        kept.put_fetched(Some(Duration::new(5, 6))).unwrap();
        let slot = Slot {
            ino: 1 << 40,
            aliased: true,
            written: false,
            cached: 1,
            passthrough: 2,
            backing: 3,
            object: Hash::of(b"x"),
            requests: [4, 5, 6, u64::MAX],
        };
        kept.put_slot(7, &slot).unwrap();
        let left = Kept::read(fd.try_clone().unwrap()).unwrap();
        assert_eq!((left.exchange, left.slots), (Some(exchange.clone()), vec![(7, slot)]));
        assert_eq!(left.fetched, Some(Duration::new(5, 6)));
        kept.put_fetched(None).unwrap();
        let left = Kept::read(fd).unwrap();
        assert_eq!((left.exchange, left.fetched), (Some(exchange), None));
    }

    #[test]
    fn what_no_daemon_left_is_refused() {
        for (bytes, why) in [(vec![0; 100], "short"), (vec![9; 8192], "magic")] {
            let fd = memfd();
            pwrite(&fd, &bytes, 0).unwrap();
            assert!(Kept::read(fd).is_err(), "{why}");
        }
        let fd = memfd();
        let kept = Kept::read(fd.try_clone().unwrap()).unwrap().kept;
        kept.put_exchange(&Exchange { request: vec![1], reply: vec![2], salt: 0, fork: None }).unwrap();
        pwrite(&fd, &7u32.to_le_bytes(), 8).unwrap();
        assert!(matches!(Kept::read(fd), Err(KeptError::Format(7))));
    }
}
