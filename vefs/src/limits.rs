//! Every limit of the file system in one place. A decoder checks against these before it allocates (promise G29);
//! a plan checks against them before a record is made. All sizes are bytes unless the name says otherwise.

/// Longest name of a directory entry (`NAME_MAX`, limits.h).
pub const NAME_MAX: usize = 255;
/// Longest symbolic link target, without a terminating NUL (`PATH_MAX` − 1).
pub const SYMLINK_MAX: usize = 4095;
/// Longest extended attribute name (`XATTR_NAME_MAX`, linux/limits.h).
pub const XATTR_NAME_MAX: usize = 255;
/// Largest extended attribute value (`XATTR_SIZE_MAX`, linux/limits.h).
pub const XATTR_VALUE_MAX: usize = 64 << 10;
/// Longest list of attribute names of one inode (`XATTR_LIST_MAX`, linux/limits.h).
pub const XATTR_LIST_MAX: usize = 64 << 10;
/// Most bytes of names and values of one inode's extended attributes together: no quota counts them (ext4 has room for less than a block).
pub const XATTR_TOTAL_MAX: usize = 128 << 10;
/// Most entries in one POSIX ACL that we store.
pub const ACL_ENTRIES_MAX: usize = 1024;
/// Most hard links to one inode (ext4 has 65,000).
pub const LINK_MAX: u32 = 65_000;
/// Largest file size: what a signed 64-bit `off_t` can address, less one 64 KiB chunk so that rounding up never wraps.
pub const FILE_SIZE_MAX: u64 = (i64::MAX as u64) - (64 << 10);
/// Largest single write the core accepts; a mount's requests carry far less ([`crate::fuse::WRITE_MAX`]).
pub const WRITE_MAX: usize = 16 << 20;
/// Payloads below this lie inline in the journal; from it on they go straight to an extent file.
pub const INLINE_MAX: usize = 64 << 10;
/// Stored bytes are checksummed in chunks of this size in extent files and journal payloads.
pub const CHUNK: usize = 16 << 10;
/// Objects are checksummed in chunks of this size.
pub const OBJECT_CHUNK: usize = 64 << 10;

/// Largest encoded body of one record.
pub const BODY_MAX: usize = 4 << 20;
/// Largest encoded local envelope of one record.
pub const ENVELOPE_MAX: usize = 1 << 20;
/// Most changes in one record.
pub const CHANGES_MAX: usize = 64 << 10;
/// Most extents that one record takes from a file, beyond those that a write covers. Each takes some 300 bytes of memory to apply.
pub const EXTENTS_MOST: usize = 16 << 10;
/// Most payloads in one record.
pub const PAYLOADS_MAX: usize = 1024;
/// Most inline payload bytes in one record.
pub const INLINE_TOTAL_MAX: usize = 4 << 20;
/// Most records in one transaction; the next operation after it starts a new one.
pub const TXN_RECORDS_MAX: u32 = 100_000;
/// Most payload bytes named by one transaction; the next operation after it starts a new one.
pub const TXN_PAYLOAD_MAX: u64 = 256 << 20;

/// Most payloads of one transaction that lie beside the journal; the next operation after it starts a new one. The hash of each of them is in the
/// seal, which a replica gets in one frame.
pub const TXN_BESIDE_MAX: usize = TXN_PAYLOAD_MAX as usize / INLINE_MAX;
/// Most bytes of encoded bodies in one transaction; the next operation after it starts a new one.
pub const TXN_BODIES_MAX: u64 = 32 << 20;

/// Size of a VE's first journal segments.
pub const SEGMENT_MIN: u64 = 1 << 20;
/// Size that journal segments grow to under load. A segment holds at least one record of every allowed size.
pub const SEGMENT_MAX: u64 = 64 << 20;
/// Largest capacity of a segment that a reader accepts.
pub const SEGMENT_CAPACITY_MAX: u64 = 1 << 30;
/// Most payload bytes in one place.
pub const PLACE_MAX: u64 = WRITE_MAX as u64;
/// No counter that is stored (inode number, cookie, transaction, frame, segment, journal position) passes this, so that
/// adding to one never overflows.
pub const COUNTER_MAX: u64 = 1 << 62;
/// An extent file is closed to new bytes from this size on.
pub const EXTENT_FILE_TARGET: u64 = 256 << 20;

/// Most entries of one base tree.
pub const BASE_INODES_MAX: u64 = 1 << 28;
/// Longest name of a template, in bytes.
pub const TEMPLATE_NAME_MAX: usize = 64;
/// Longest description of where a template came from, in bytes.
pub const TEMPLATE_SOURCE_MAX: usize = 512;
/// Most base trees composed into one stack.
pub const BASE_STACK_MAX: usize = 64;

/// Free bytes on the store's file system that ordinary writers may not touch: unlink, GC, version delete and
/// checkpoints still work from it (promise G4).
pub const RESERVE_BYTES: u64 = 64 << 20;
/// Shortest window of a replicated VE in milliseconds: a few commit ticks.
pub const WINDOW_MIN_MS: u32 = 1000;
/// The window of a VE for which none was set, in milliseconds.
pub const WINDOW_DEFAULT_MS: u32 = 30_000;
/// Most replicas of one VE.
pub const REPLICAS_MAX: usize = 16;
/// Most holds of one VE.
pub const HOLDS_MAX: usize = 1024;
/// Longest name of a hold or label.
pub const LABEL_MAX: usize = 128;
/// Longest label of a mounted version: a branch, a colon, a transaction number.
pub const MOUNT_LABEL_MAX: usize = LABEL_MAX + 21;
/// Smallest history cap of a VE.
pub const HISTORY_MIN: u64 = 1 << 30;
