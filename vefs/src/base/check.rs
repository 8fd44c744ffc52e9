//! The rules of trees. One code for what is built and for what is read.

use super::RuleError;
use super::TreeError;
use super::format::{Head, Run};
use super::tree::BaseTree;
use crate::clock::Timestamp;
use crate::ids::InodeNo;
use crate::limits::{FILE_SIZE_MAX, LINK_MAX, NAME_MAX, SYMLINK_MAX, XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX};
use crate::object::OBJECT_LEN_MAX;
use crate::types::{Kind, mode};

/// Size of every directory.
pub(super) const DIR_SIZE: u64 = 4096;

/// Checks a name of a directory entry.
pub(super) fn name(name: &[u8]) -> Result<(), RuleError> {
    let bad = name.is_empty() || name.len() > NAME_MAX || name == b"." || name == b"..";
    match bad || name.iter().any(|b| matches!(b, 0 | b'/')) {
        true => Err(RuleError::Name),
        false => Ok(()),
    }
}

/// Checks one extended attribute.
pub(super) fn xattr(name: &[u8], value: &[u8]) -> Result<(), RuleError> {
    let good = (1..=XATTR_NAME_MAX).contains(&name.len()) && !name.contains(&0) && value.len() <= XATTR_VALUE_MAX;
    if good { Ok(()) } else { Err(RuleError::Xattr) }
}

/// Checks that all names of one inode, each with a NUL, can be listed; `names` are their lengths.
pub(super) fn xattr_list(names: impl Iterator<Item = usize>) -> Result<(), RuleError> {
    match names.map(|n| n + 1).sum::<usize>() <= XATTR_LIST_MAX {
        true => Ok(()),
        false => Err(RuleError::Xattr),
    }
}

/// Checks a mode and answers the kind.
pub(super) fn kind(m: u32) -> Result<Kind, RuleError> {
    match m & !(mode::IFMT | mode::PERM) {
        0 => Kind::of_mode(m).ok_or(RuleError::Mode),
        _ => Err(RuleError::Mode),
    }
}

/// Checks times.
pub(super) fn times(times: &[Timestamp]) -> Result<(), RuleError> {
    match times.iter().all(|t| t.nanos < 1_000_000_000) {
        true => Ok(()),
        false => Err(RuleError::Time),
    }
}

/// Checks a symlink's target.
pub(super) fn target(target: &[u8]) -> Result<(), RuleError> {
    match (1..=SYMLINK_MAX).contains(&target.len()) && !target.contains(&0) {
        true => Ok(()),
        false => Err(RuleError::Target),
    }
}

/// Checks the attributes of an inode against its kind, and answers the kind.
pub(super) fn head(head: &Head<'_>) -> Result<Kind, RuleError> {
    let kind = kind(head.mode)?;
    times(&[head.atime, head.mtime, head.ctime, head.btime])?;
    if head.rdev != 0 && !matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        return Err(RuleError::Device);
    }
    match kind {
        Kind::Symlink => target(head.target)?,
        _ if !head.target.is_empty() => return Err(RuleError::Target),
        _ => {}
    }
    let size_ok = match kind {
        Kind::Regular => head.size <= FILE_SIZE_MAX,
        Kind::Directory => head.size == DIR_SIZE,
        Kind::Symlink => head.size == head.target.len() as u64,
        _ => head.size == 0,
    };
    if !size_ok {
        return Err(RuleError::Size);
    }
    if (head.entries > 0 && kind != Kind::Directory) || (head.runs > 0 && kind != Kind::Regular) {
        return Err(RuleError::Parts);
    }
    Ok(kind)
}

/// Checks one run of a file of `size` bytes; `end` is where the run before it ends, and becomes where this one does.
pub(super) fn run(run: &Run, size: u64, end: &mut u64) -> Result<(), RuleError> {
    let run_end = run.offset.checked_add(run.len).filter(|e| *e <= size).ok_or(RuleError::Runs)?;
    if run.len == 0 || run.offset < *end {
        return Err(RuleError::Runs);
    }
    run.place.checked_add(run.len).filter(|e| *e <= OBJECT_LEN_MAX).ok_or(RuleError::Place)?;
    *end = run_end;
    Ok(())
}

/// Walks the tree from the root, checks numbering, kinds (`entry_kinds` are those the entries state) and link counts,
/// and answers the parent of each inode (0 for what is not a directory).
///
/// In depth-first order an entry either meets the next number, for the first time, or a smaller one, which then is a
/// hard link. So a directory is reached once, and nothing can be part of a cycle.
pub(super) fn walk(tree: &BaseTree, entry_kinds: &[Kind]) -> Result<Vec<u32>, TreeError> {
    let count = tree.inode_count();
    let mut parents = vec![0; count as usize];
    let mut links = vec![0u32; count as usize];
    let refuse = |ino: u32, source| TreeError::Inode { ino: InodeNo(ino.into()), source };
    if tree.kind_of(1) != Some(Kind::Directory) {
        return Err(refuse(1, RuleError::Mode));
    }
    let mut reached = 1;
    parents[0] = 1;
    links[0] = 2;
    let mut stack = vec![(1, tree.entry_range(1))];
    while let Some((dir, left)) = stack.last_mut() {
        let dir = *dir;
        let Some(index) = left.next() else {
            stack.pop();
            continue;
        };
        let ino = tree.entries[index].ino;
        let kind = tree.kind_of(ino).filter(|_| ino <= reached + 1).ok_or(refuse(dir, RuleError::Order(ino)))?;
        if entry_kinds.get(index) != Some(&kind) {
            return Err(refuse(dir, RuleError::Kind));
        }
        let at = ino as usize - 1;
        if kind == Kind::Directory {
            if ino != reached + 1 {
                return Err(refuse(dir, RuleError::SecondName));
            }
            parents[at] = dir;
            links[at] = 2;
            links[dir as usize - 1] += 1;
            stack.push((ino, tree.entry_range(ino)));
        } else {
            links[at] += 1;
        }
        reached = reached.max(ino);
    }
    if u64::from(reached) != count {
        return Err(TreeError::Unreached { reached: reached.into(), count });
    }
    for (ino, nlink) in (1..).zip(links) {
        let is_dir = parents[ino as usize - 1] != 0;
        if tree.inodes[ino as usize - 1].nlink != nlink || (!is_dir && nlink > LINK_MAX) {
            return Err(refuse(ino, RuleError::Links));
        }
    }
    Ok(parents)
}
