//! Files of versions: finding one by its path, inside the version's own tree and nowhere else, and sending it.

use vefs::errno::Errno;
use vefs::ids::InodeNo;
use vefs::types::{Dentry, Inode, Kind};
use vefs::ve::Snapshot;

use super::refuse::{Answer, about, refusal};
use super::session::Session;
use super::versions::no_version;
use crate::control::message::{Done, FileRow, Id, Why};
use crate::control::versions::Which;
use crate::units::show_time;

/// Bytes sent at a time.
const STEP: usize = 1 << 20;
const _: () = assert!(STEP <= crate::control::frame::DATA_MAX);
/// Symlinks followed in one path, as the kernel does (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Names looked up in one path, symlinks' included.
const NAMES_MAX: usize = 8192;

/// Why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// A name is not there.
    #[error("no such file or directory")]
    Missing,
    /// A name in the middle is no directory.
    #[error("not a directory")]
    NotDirectory,
    /// Too many symlinks or names.
    #[error("too many levels of symbolic links")]
    Loop,
    /// The tree cannot be read.
    #[error("{0}")]
    Other(String),
}

/// What a path is walked in.
pub trait Tree {
    /// The entry of a directory and its inode.
    fn lookup(&self, dir: InodeNo, name: &[u8]) -> vefs::Result<(Dentry, Inode)>;
    /// Where a symlink leads.
    fn readlink(&self, ino: InodeNo) -> vefs::Result<Vec<u8>>;
}

impl Tree for Snapshot {
    fn lookup(&self, dir: InodeNo, name: &[u8]) -> vefs::Result<(Dentry, Inode)> {
        Snapshot::lookup(self, dir, name)
    }

    fn readlink(&self, ino: InodeNo) -> vefs::Result<Vec<u8>> {
        Snapshot::readlink(self, ino)
    }
}

/// The inode that a path leads to. Symlinks are followed, the last one too; an absolute one starts at the tree's root again, and `..` does not
/// lead out of it.
pub fn walk(tree: &impl Tree, path: &[u8]) -> Result<InodeNo, WalkError> {
    // Directories from the root to where we are, and the last thing found.
    let mut dirs = vec![InodeNo::ROOT];
    let mut leaf: Option<InodeNo> = None;
    let mut todo = components(path);
    let (mut links, mut names) = (0, 0);
    while let Some(name) = todo.pop() {
        names += 1;
        if names > NAMES_MAX {
            return Err(WalkError::Loop);
        }
        if leaf.is_some() {
            return Err(WalkError::NotDirectory);
        }
        match &name[..] {
            b"" | b"." => continue,
            b".." => {
                dirs.truncate(dirs.len().saturating_sub(1).max(1));
                continue;
            }
            _ => {}
        }
        let dir = dirs.last().copied().unwrap_or(InodeNo::ROOT);
        let (entry, _) = tree.lookup(dir, &name).map_err(found)?;
        match entry.kind {
            Kind::Directory => dirs.push(entry.ino),
            Kind::Symlink => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(WalkError::Loop);
                }
                let target = tree.readlink(entry.ino).map_err(found)?;
                if target.first() == Some(&b'/') {
                    dirs.truncate(1);
                }
                todo.extend(components(&target));
            }
            _ => leaf = Some(entry.ino),
        }
    }
    Ok(leaf.or(dirs.last().copied()).unwrap_or(InodeNo::ROOT))
}

/// The names of a path, the last one first. A path that ends in a slash ends in an empty name, which only a directory may have behind it.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect()
}

fn found(e: vefs::Error) -> WalkError {
    match e {
        vefs::Error::Posix(Errno::ENOENT) => WalkError::Missing,
        vefs::Error::Posix(Errno::ENOTDIR) => WalkError::NotDirectory,
        e => WalkError::Other(e.to_string()),
    }
}

/// Sends a file as it was in a version: a row with its attributes, its bytes, the answer.
pub fn cat(session: &mut Session<'_>, id: Id, path: &[u8], at: Option<&Which>) -> Answer<()> {
    let found = session.daemon.find(id, at)?;
    let (txn, label) = (found.txn, found.label());
    let version = found.state.version(txn).map_err(|e| no_version(id, &label, e))?;
    let shown = format!("{} in version {label} of VE {id}", String::from_utf8_lossy(path));
    let ino = walk(&version, path).map_err(|e| {
        let kind = if e == WalkError::Missing { Why::NotFound } else { Why::Failed };
        refusal(kind, format!("{shown}: {e}"))
    })?;
    let inode = version.inode(ino).map_err(about(&shown))?;
    match inode.kind() {
        Kind::Regular => {}
        Kind::Directory => return Err(refusal(Why::Failed, format!("{shown}: is a directory"))),
        _ => return Err(refusal(Why::Failed, format!("{shown}: is not a regular file"))),
    }
    session.row(&FileRow {
        txn: txn.0,
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        size: inode.size,
        mtime: show_time(inode.mtime),
    })?;
    let mut offset = 0;
    while offset < inode.size {
        session.may_go_on()?;
        let bytes = version.read(ino, offset, STEP).map_err(about(&shown))?;
        if bytes.is_empty() {
            return Err(refusal(Why::Failed, format!("{shown}: ends at {offset} of {} bytes", inode.size)));
        }
        offset += bytes.len() as u64;
        session.data(&bytes)?;
    }
    session.answer(&Done {})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use vefs::types::mode;

    /// Entries by directory and name, and targets of symlinks.
    #[derive(Default)]
    struct Planted {
        entries: BTreeMap<(u64, Vec<u8>), (u64, Kind)>,
        targets: BTreeMap<u64, Vec<u8>>,
    }

    impl Planted {
        fn new(entries: &[(u64, &str, u64, Kind)], targets: &[(u64, &str)]) -> Planted {
            Planted {
                entries: entries.iter().map(|(d, n, i, k)| ((*d, n.as_bytes().to_vec()), (*i, *k))).collect(),
                targets: targets.iter().map(|(i, t)| (*i, t.as_bytes().to_vec())).collect(),
            }
        }
    }

    impl Tree for Planted {
        fn lookup(&self, dir: InodeNo, name: &[u8]) -> vefs::Result<(Dentry, Inode)> {
            let (ino, kind) = self.entries.get(&(dir.0, name.to_vec())).copied().ok_or(Errno::ENOENT)?;
            let t = vefs::clock::Timestamp::default();
            let inode = Inode {
                mode: kind.bits() | 0o644,
                uid: 0,
                gid: 0,
                nlink: 1,
                rdev: 0,
                size: 0,
                mapped: 0,
                atime: t,
                mtime: t,
                ctime: t,
                btime: t,
                parent: InodeNo(0),
                next_cookie: 0,
                flags: 0,
            };
            assert_ne!(inode.mode & mode::IFMT, 0);
            Ok((Dentry { ino: InodeNo(ino), kind, cookie: 1 }, inode))
        }

        fn readlink(&self, ino: InodeNo) -> vefs::Result<Vec<u8>> {
            Ok(self.targets.get(&ino.0).cloned().ok_or(Errno::EINVAL)?)
        }
    }

    fn tree() -> Planted {
        use Kind::*;
        Planted::new(
            &[
                (1, "etc", 2, Directory),
                (2, "passwd", 3, Regular),
                (1, "abs", 4, Symlink),
                (2, "up", 5, Symlink),
                (1, "loop", 6, Symlink),
                (1, "out", 7, Symlink),
                (1, "dirlink", 8, Symlink),
            ],
            &[
                (4, "/etc/passwd"),
                (5, "../../../etc/./passwd"),
                (6, "loop"),
                (7, "../../../../etc/shadow"),
                (8, "etc/"),
            ],
        )
    }

    #[test]
    fn paths_are_walked_inside_the_tree() {
        for (path, ino) in [
            ("", 1),
            ("/", 1),
            ("/..", 1),
            ("etc", 2),
            ("/etc/passwd", 3),
            ("//etc//./../etc/passwd", 3),
            ("abs", 3),
            ("etc/up", 3),
            ("dirlink/passwd", 3),
            ("dirlink/../abs", 3),
            ("../../etc/passwd", 3),
        ] {
            assert_eq!(walk(&tree(), path.as_bytes()), Ok(InodeNo(ino)), "{path}");
        }
    }

    #[test]
    fn paths_that_lead_nowhere() {
        for (path, error) in [
            ("nothing", WalkError::Missing),
            ("out", WalkError::Missing),
            ("etc/passwd/x", WalkError::NotDirectory),
            ("etc/passwd/", WalkError::NotDirectory),
            ("etc/passwd/..", WalkError::NotDirectory),
            ("loop", WalkError::Loop),
            (&"./".repeat(10_000), WalkError::Loop),
        ] {
            assert_eq!(walk(&tree(), path.as_bytes()), Err(error), "{}", &path[..path.len().min(20)]);
        }
    }
}
