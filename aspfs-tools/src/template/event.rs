//! What is told of a tree, step by step.
//!
//! Inodes are named by numbers: the root is 0, each [`Event::Node`] makes the next one. So no path is ever looked up on the side that
//! builds, and nothing in a stream can lead out of the tree. [`Event::Xattr`] and [`Event::Data`] are about the inode named last.

use bincode::{Decode, Encode};
use vefs::clock::Timestamp;
use vefs::codec::{self, CodecError};
use vefs::types::Kind;

/// Most bytes of one [`Event::Data`].
pub const DATA_MAX: usize = 1 << 20;
/// Most bytes of an encoded event.
pub const EVENT_MAX: usize = DATA_MAX + 1024;

/// The largest number of a device: 12 bits of major and 20 of minor number, as `st_rdev` has them. Linux knows no others (`MKDEV`,
/// include/linux/kdev_t.h), and FUSE has no more bits for them.
pub const DEVICE_MAX: u64 = u32::MAX as u64;

/// The number of a device as `st_rdev` has it; `None` for one over [`DEVICE_MAX`].
pub fn device(major: u32, minor: u32) -> Option<u64> {
    Some(rustix::fs::makedev(major, minor)).filter(|number| *number <= DEVICE_MAX)
}

/// Owner, permissions and time of an inode. There is one time, that of the last change of content: it is what archives keep, and the
/// others say when something was copied. All four times of the inode in the tree are this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Meta {
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of content.
    pub mtime: Timestamp,
}

/// What kind of inode it is, with what only this kind has.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum What {
    /// A directory, empty so far.
    Directory,
    /// A regular file, whose bytes follow.
    File {
        /// Its length in bytes.
        size: u64,
        /// Whether there may be holes: bytes that no [`Event::Data`] brings.
        sparse: bool,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character device and its number, as `st_rdev` has it, at most [`DEVICE_MAX`].
    CharDevice(u64),
    /// A block device and its number.
    BlockDevice(u64),
}

impl What {
    /// The kind alone.
    pub fn kind(&self) -> Kind {
        match self {
            What::Directory => Kind::Directory,
            What::File { .. } => Kind::Regular,
            What::Symlink(_) => Kind::Symlink,
            What::Fifo => Kind::Fifo,
            What::Socket => Kind::Socket,
            What::CharDevice(_) => Kind::CharDevice,
            What::BlockDevice(_) => Kind::BlockDevice,
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// A new inode under a name that is free. It gets the next number.
    Node {
        /// The directory it is in.
        parent: u32,
        /// Its name there.
        name: Vec<u8>,
        /// Owner, permissions, time.
        meta: Meta,
        /// The rest.
        what: What,
    },
    /// A directory that is there gets other attributes, and loses its extended ones.
    Meta {
        /// The directory.
        node: u32,
        /// Owner, permissions, time.
        meta: Meta,
    },
    /// An extended attribute of the inode named last.
    Xattr {
        /// Its name, with the namespace.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// The next bytes of the file named last.
    Data {
        /// Where they are in the file. What lies between the last bytes and these is a hole.
        offset: u64,
        /// The bytes, 1 to [`DATA_MAX`].
        bytes: Vec<u8>,
    },
    /// Another name of an inode that is no directory.
    Link {
        /// The directory the name is in.
        parent: u32,
        /// The name, which is free.
        name: Vec<u8>,
        /// The inode.
        to: u32,
    },
    /// A name goes, with everything below it. Numbers stay given.
    Remove {
        /// The directory the name is in.
        parent: u32,
        /// The name, which is there.
        name: Vec<u8>,
    },
    /// All has been told. A stream that ends without it was cut off.
    End,
}

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// More than an event has.
    #[error("an event of {0} bytes, over the limit of {EVENT_MAX}")]
    TooLarge(usize),
    /// They do not decode.
    #[error("an event cannot be read: {0}")]
    Codec(#[from] CodecError),
}

impl Event {
    /// The bytes of an event, at most [`EVENT_MAX`] as long as its parts keep to their limits.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads an event. Nothing is said about whether it makes sense where it stands: that is for [`super::sink`].
    ///
    /// # Errors
    /// Too many bytes, or other ones than an event has.
    pub fn decode(bytes: &[u8]) -> Result<Event, EventError> {
        if bytes.len() > EVENT_MAX {
            return Err(EventError::TooLarge(bytes.len()));
        }
        Ok(codec::decode(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers are in the low 32 bits of `st_rdev` exactly as long as Linux has such devices.
    #[test]
    fn devices_have_twelve_and_twenty_bits() {
        assert_eq!(device(0xfff, 0xf_ffff), Some(DEVICE_MAX));
        assert_eq!(device(1, 3), Some(0x103));
        assert_eq!([device(0x1000, 0), device(0, 0x10_0000), device(u32::MAX, u32::MAX)], [None; 3]);
    }

    #[test]
    fn the_largest_event_fits() {
        let event = Event::Data { offset: u64::MAX, bytes: vec![7; DATA_MAX] };
        let bytes = event.encode();
        assert!(bytes.len() <= EVENT_MAX);
        assert_eq!(Event::decode(&bytes).unwrap(), event);
        assert!(matches!(Event::decode(&vec![0; EVENT_MAX + 1]), Err(EventError::TooLarge(_))));
    }

    proptest! {
        /// Checks G29: no bytes make the decoder panic, and what it accepts is what it would write.
        #[test]
        fn any_bytes_are_an_event_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&[codec::FORMAT][..], &bytes].concat();
            if let Ok(event) = Event::decode(&bytes) {
                prop_assert_eq!(Event::decode(&event.encode()).unwrap(), event);
            }
        }
    }
}
