//! POSIX access control lists (acl(5)) in the kernel's extended-attribute form (include/uapi/linux/posix_acl_xattr.h):
//! a little-endian u32 version 2, then entries of tag u16, permissions u16, id u32. The algorithms are fs/posix_acl.c's.

use crate::errno::Errno;
use crate::error::Result;
use crate::limits::ACL_ENTRIES_MAX;
use crate::types::Kind;

pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
/// The id of an entry that names nobody (`ACL_UNDEFINED_ID`).
const NOBODY: u32 = u32::MAX;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// What a new inode gets from its directory's default ACL.
#[derive(Default)]
pub(super) struct Inherited {
    /// Its access ACL, where that says more than the mode.
    pub access: Option<Vec<u8>>,
    /// A directory's default ACL.
    pub default: Option<Vec<u8>>,
}

pub(super) fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

/// EOPNOTSUPP on a symlink; EINVAL for a default ACL on anything but a directory.
pub(super) fn check_kind(name: &[u8], kind: Kind) -> Result<()> {
    if kind == Kind::Symlink {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if name == DEFAULT && kind != Kind::Directory {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

/// Decodes and checks an ACL; `None` for a header without entries.
pub(super) fn parse(value: &[u8]) -> Result<Option<Vec<Entry>>> {
    let bad = || Errno::EINVAL;
    let (version, rest) = value.split_first_chunk::<4>().ok_or_else(bad)?;
    if u32::from_le_bytes(*version) != VERSION || !rest.len().is_multiple_of(8) {
        return Err(bad().into());
    }
    if rest.len() / 8 > ACL_ENTRIES_MAX {
        return Err(Errno::ENOSPC.into());
    }
    if rest.is_empty() {
        return Ok(None);
    }
    let entries: Vec<Entry> = rest
        .chunks_exact(8)
        .map(|b| Entry {
            tag: u16::from_le_bytes([b[0], b[1]]),
            perm: u16::from_le_bytes([b[2], b[3]]),
            id: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        })
        .map(|e| if matches!(e.tag, USER | GROUP) { e } else { Entry { id: NOBODY, ..e } })
        .collect();
    if is_valid(&entries) { Ok(Some(entries)) } else { Err(bad().into()) }
}

/// The order and number of entries that acl(5) asks for: owner, users, group, groups, mask (needed with named entries), other.
fn is_valid(entries: &[Entry]) -> bool {
    let mut named = false;
    let mut last = 0;
    let (mut seen_group, mut seen_mask) = (false, false);
    for e in entries {
        if e.perm & !7 != 0 {
            return false;
        }
        let in_order = match e.tag {
            USER_OBJ => last == 0,
            USER => matches!(last, USER_OBJ | USER),
            GROUP_OBJ => matches!(last, USER_OBJ | USER),
            GROUP => matches!(last, GROUP_OBJ | GROUP),
            MASK => matches!(last, GROUP_OBJ | GROUP),
            OTHER => matches!(last, GROUP_OBJ | GROUP | MASK),
            _ => false,
        };
        if !in_order {
            return false;
        }
        if matches!(e.tag, USER | GROUP) {
            named = true;
            if e.id == NOBODY {
                return false;
            }
        }
        seen_group |= e.tag == GROUP_OBJ;
        seen_mask |= e.tag == MASK;
        last = e.tag;
    }
    last == OTHER && seen_group && (seen_mask || !named)
}

pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = VERSION.to_le_bytes().to_vec();
    for e in entries {
        out.extend_from_slice(&e.tag.to_le_bytes());
        out.extend_from_slice(&e.perm.to_le_bytes());
        out.extend_from_slice(&e.id.to_le_bytes());
    }
    out
}

/// The permission bits that an ACL stands for, and whether it says more than these bits can.
pub(super) fn mode_of(entries: &[Entry]) -> (u32, bool) {
    let mut bits = 0;
    let mut group = 0;
    let mut mask = None;
    let mut extended = false;
    for e in entries {
        let perm = u32::from(e.perm);
        match e.tag {
            USER_OBJ => bits |= perm << 6,
            OTHER => bits |= perm,
            GROUP_OBJ => group = perm,
            MASK => mask = Some(perm),
            _ => extended = true,
        }
    }
    (bits | mask.unwrap_or(group) << 3, extended || mask.is_some())
}

/// The access ACL after a chmod to these bits.
pub(super) fn with_mode(value: &[u8], perm: u32) -> Result<Vec<u8>> {
    let mut entries = parse(value)?.unwrap_or_default();
    let has_mask = entries.iter().any(|e| e.tag == MASK);
    for e in &mut entries {
        match e.tag {
            USER_OBJ => e.perm = (perm >> 6 & 7) as u16,
            OTHER => e.perm = (perm & 7) as u16,
            MASK => e.perm = (perm >> 3 & 7) as u16,
            GROUP_OBJ if !has_mask => e.perm = (perm >> 3 & 7) as u16,
            _ => {}
        }
    }
    Ok(encode(&entries))
}

/// What a new inode inherits from a default ACL; `perm` is what was asked for and becomes what it gets.
pub(super) fn inherit(default: &[u8], perm: &mut u32, is_dir: bool) -> Result<Inherited> {
    let Some(mut entries) = parse(default)? else { return Ok(Inherited::default()) };
    let has_mask = entries.iter().any(|e| e.tag == MASK);
    let mut extended = has_mask;
    for e in &mut entries {
        let shift = match e.tag {
            USER_OBJ => 6,
            OTHER => 0,
            MASK => 3,
            GROUP_OBJ if !has_mask => 3,
            GROUP_OBJ => continue,
            _ => {
                extended = true;
                continue;
            }
        };
        e.perm &= (*perm >> shift & 7) as u16;
        *perm &= !(7 << shift) | u32::from(e.perm) << shift;
    }
    Ok(Inherited { access: extended.then(|| encode(&entries)), default: is_dir.then(|| default.to_vec()) })
}
