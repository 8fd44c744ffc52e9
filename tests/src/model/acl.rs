//! POSIX access control lists as acl(5) describes them, in the extended attribute format of linux/posix_acl_xattr.h:
//! a little-endian version (2), then entries of tag (u16), permissions (u16) and id (u32).

use vefs::errno::Errno;
use vefs::limits::ACL_ENTRIES_MAX;

/// Extended attribute of the ACL that decides access.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// Extended attribute of the ACL that a directory's new entries start with.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The format's only version.
pub const VERSION: u32 = 2;
/// The id of entries that name nobody.
pub const NO_ID: u32 = u32::MAX;

/// `ACL_USER_OBJ`: the owner.
pub const USER_OBJ: u16 = 0x01;
/// `ACL_USER`: a named user.
pub const USER: u16 = 0x02;
/// `ACL_GROUP_OBJ`: the owning group.
pub const GROUP_OBJ: u16 = 0x04;
/// `ACL_GROUP`: a named group.
pub const GROUP: u16 = 0x08;
/// `ACL_MASK`: what named entries and the group may have at most.
pub const MASK: u16 = 0x10;
/// `ACL_OTHER`: everybody else.
pub const OTHER: u16 = 0x20;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Whom it is about.
    pub tag: u16,
    /// 4 read, 2 write, 1 execute.
    pub perm: u16,
    /// User or group of a named entry, else [`NO_ID`].
    pub id: u32,
}

impl AclEntry {
    /// An entry; the id counts for named ones only.
    pub fn new(tag: u16, perm: u16, id: u32) -> AclEntry {
        AclEntry { tag, perm, id: if tag == USER || tag == GROUP { id } else { NO_ID } }
    }
}

/// Parses and checks a value; no entries is an ACL to be removed. EINVAL for what is malformed, ENOSPC for too many
/// entries.
pub fn parse(value: &[u8]) -> Result<Vec<AclEntry>, Errno> {
    let (head, body) = value.split_at_checked(4).ok_or(Errno::EINVAL)?;
    if head != VERSION.to_le_bytes() || body.len() % 8 != 0 {
        return Err(Errno::EINVAL);
    }
    let entry = |e: &[u8]| {
        let (tag, perm) = (u16::from_le_bytes([e[0], e[1]]), u16::from_le_bytes([e[2], e[3]]));
        AclEntry::new(tag, perm, u32::from_le_bytes([e[4], e[5], e[6], e[7]]))
    };
    let acl: Vec<AclEntry> = body.chunks_exact(8).map(entry).collect();
    if !acl.is_empty() {
        check(&acl)?;
    }
    if acl.len() > ACL_ENTRIES_MAX {
        return Err(Errno::ENOSPC);
    }
    Ok(acl)
}

/// Tags in order, the three required entries exactly once, a mask where somebody is named.
fn check(acl: &[AclEntry]) -> Result<(), Errno> {
    let count = |tag: u16| acl.iter().filter(|e| e.tag == tag).count();
    let known = |e: &AclEntry| [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].contains(&e.tag);
    let named = |e: &AclEntry| e.tag == USER || e.tag == GROUP;
    let ok = acl.iter().all(|e| known(e) && e.perm <= 7 && (!named(e) || e.id != NO_ID))
        && acl.is_sorted_by_key(|e| e.tag)
        && [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|&t| count(t) == 1)
        && count(MASK) <= 1
        && (count(MASK) == 1 || !acl.iter().any(named));
    if ok { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The value of an ACL.
pub fn encode(acl: &[AclEntry]) -> Vec<u8> {
    let mut out = VERSION.to_le_bytes().to_vec();
    for e in acl {
        out.extend(e.tag.to_le_bytes());
        out.extend(e.perm.to_le_bytes());
        out.extend(e.id.to_le_bytes());
    }
    out
}

/// Whether the ACL says no more than permission bits can.
pub fn is_minimal(acl: &[AclEntry]) -> bool {
    acl.iter().all(|e| [USER_OBJ, GROUP_OBJ, OTHER].contains(&e.tag))
}

/// The tag of the entry that the group bits of a mode stand for.
fn group_class(acl: &[AclEntry]) -> u16 {
    if acl.iter().any(|e| e.tag == MASK) { MASK } else { GROUP_OBJ }
}

/// How far left the mode's bits of this entry lie; `None` for entries that no bits stand for.
fn shift(tag: u16, group: u16) -> Option<u32> {
    match tag {
        USER_OBJ => Some(6),
        OTHER => Some(0),
        t if t == group => Some(3),
        _ => None,
    }
}

/// The nine permission bits that an ACL stands for.
pub fn to_mode(acl: &[AclEntry]) -> u32 {
    let group = group_class(acl);
    acl.iter().filter_map(|e| shift(e.tag, group).map(|s| u32::from(e.perm) << s)).sum()
}

/// chmod(2) on a file with an ACL: the entries that the bits stand for follow them.
pub fn follow_mode(acl: &mut [AclEntry], mode: u32) {
    let group = group_class(acl);
    for e in acl {
        if let Some(s) = shift(e.tag, group) {
            e.perm = (mode >> s & 7) as u16;
        }
    }
}

/// Creation in a directory with a default ACL: the new file's ACL is the default one, each of the three classes cut to
/// what `mode` asks for; its permission bits follow. Returns the mode with its nine bits cut.
pub fn inherit(acl: &mut [AclEntry], mode: u32) -> u32 {
    let group = group_class(acl);
    for e in acl.iter_mut() {
        if let Some(s) = shift(e.tag, group) {
            e.perm &= (mode >> s & 7) as u16;
        }
    }
    mode & !0o777 | to_mode(acl)
}
