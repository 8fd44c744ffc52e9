//! A tree with files of all kinds, and comparing what can be seen of two trees.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{self as sys, AtFlags, CWD, FileType, Mode, SeekFrom, XattrFlags};

/// Folders of the tree.
pub const FOLDERS: [&str; 6] = ["", "bin", "lib", "lib/deep", "setgid", "acl"];
/// Names in the tree, in any of its folders.
pub const NAMES: [&str; 12] =
    ["tool", "log", "large", "sparse", "empty", "link", "dirlink", "nowhere", "fifo", "null", "hard", "deep"];

/// Name of the access ACL.
pub const ACCESS: &str = "system.posix_acl_access";

/// Whether a path has the set-group-ID bit.
pub fn is_setgid(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|at| at.mode() & 0o2000 != 0)
}

/// A mode as it is compared: set-group-ID of a file that its group may not execute does not count, since the kernel alone knows when a caller
/// outside the group takes it away.
pub fn comparable(mode: u32) -> u32 {
    if mode & 0o170_000 != 0o040_000 && mode & 0o2010 == 0o2000 { mode & !0o2000 } else { mode }
}

/// Bytes that tell where they come from.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 8 ^ i ^ seed.wrapping_mul(31)) as u8).collect()
}

/// An ACL as its extended attribute's bytes (acl(5)): the owner, one user, the group, the mask, others.
pub fn acl(user: u32, permissions: [u16; 5]) -> Vec<u8> {
    let entries = [(1u16, u32::MAX), (2, user), (4, u32::MAX), (16, u32::MAX), (32, u32::MAX)];
    let mut out = 2u32.to_le_bytes().to_vec();
    for ((tag, id), permission) in entries.into_iter().zip(permissions) {
        out.extend(tag.to_le_bytes());
        out.extend(permission.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

/// Makes the tree in a folder.
pub fn make(root: &Path) {
    fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
    for (n, folder) in FOLDERS.iter().enumerate() {
        let dir = root.join(folder);
        let at = |name: &str| dir.join(name);
        let seed = n as u64;
        fs::create_dir_all(&dir).unwrap();
        fs::write(at("tool"), pattern(20_000, seed)).unwrap();
        fs::set_permissions(at("tool"), PermissionsExt::from_mode(0o4755)).unwrap();
        fs::write(at("log"), pattern(700, seed)).unwrap();
        fs::write(at("large"), pattern(300_000, seed)).unwrap();
        fs::write(at("empty"), "").unwrap();
        let sparse = File::create(at("sparse")).unwrap();
        sparse.write_all_at(&pattern(5000, seed), 266_000).unwrap();
        sparse.set_len(400_000).unwrap();
        symlink("log", at("link")).unwrap();
        symlink("deep", at("dirlink")).unwrap();
        symlink("x".repeat(3000), at("nowhere")).unwrap();
        let bits = Mode::from_raw_mode(0o644);
        sys::mknodat(CWD, at("fifo"), FileType::Fifo, bits, 0).unwrap();
        sys::mknodat(CWD, at("null"), FileType::CharacterDevice, bits, sys::makedev(1, 3)).unwrap();
        fs::hard_link(root.join("log"), at("hard")).unwrap();
        sys::setxattr(at("tool"), "user.kind", b"tool", XattrFlags::empty()).unwrap();
        sys::chownat(CWD, at("empty"), Some(sys::Uid::from_raw(7)), Some(sys::Gid::from_raw(8)), AtFlags::empty())
            .unwrap();
    }
    fs::set_permissions(root.join("setgid"), PermissionsExt::from_mode(0o2775)).unwrap();
    let group = Some(sys::Gid::from_raw(50));
    sys::chownat(CWD, root.join("setgid"), None, group, AtFlags::empty()).unwrap();
    fs::set_permissions(root.join("setgid"), PermissionsExt::from_mode(0o2775)).unwrap();
    let acl = acl(33, [7, 6, 5, 7, 1]);
    for name in ["system.posix_acl_default", ACCESS] {
        sys::setxattr(root.join("acl"), name, &acl, XattrFlags::empty()).unwrap();
    }
}

/// Everything about a path but its times and number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    mode: String,
    nlink: u64,
    owner: (u32, u32),
    device: u64,
    size: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    kind_in_folder: String,
    content: Vec<u8>,
}

/// All extended attributes of a path.
pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; 64 << 10];
    let len = sys::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..len].split(|b| *b == 0).filter(|n| !n.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0u8; 64 << 10];
        let len = sys::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

fn look(root: &Path) -> (BTreeMap<Vec<u8>, Seen>, HashMap<Vec<u8>, u64>) {
    let (mut all, mut numbers): (BTreeMap<_, _>, HashMap<_, _>) = Default::default();
    let mut todo = vec![(root.to_owned(), "Directory".to_owned())];
    while let Some((path, kind_in_folder)) = todo.pop() {
        let at = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let content = match at.file_type() {
            t if t.is_file() => fs::read(&path).unwrap(),
            t if t.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
            _ => Vec::new(),
        };
        if at.is_dir() {
            for entry in sys::Dir::new(File::open(&path).unwrap()).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    let below = path.join(std::ffi::OsStr::from_bytes(name));
                    // The highest bit is a listed deviation of a file that was written while it was read by passthrough.
                    let number = entry.ino() & !(1 << 63);
                    assert_eq!(number, fs::symlink_metadata(&below).unwrap().ino(), "{below:?}: d_ino");
                    todo.push((below, format!("{:?}", entry.file_type())));
                }
            }
        }
        numbers.insert(name.clone(), at.ino());
        let seen = Seen {
            mode: format!("{:o}", comparable(at.mode())),
            nlink: at.nlink(),
            owner: (at.uid(), at.gid()),
            device: at.rdev(),
            size: if at.is_dir() { 0 } else { at.size() },
            xattrs: xattrs(&path),
            kind_in_folder,
            content,
        };
        all.insert(name, seen);
    }
    (all, numbers)
}

/// Compares two trees, the right one first; the numbers of inodes may differ, but the same names must share one.
pub fn compare(right: &Path, here: &Path, context: &str) {
    let ((expected, right_numbers), (found, numbers)) = (look(right), look(here));
    let names =
        |all: &BTreeMap<Vec<u8>, Seen>| all.keys().map(|n| String::from_utf8_lossy(n).into_owned()).collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&found), "{context}: names");
    let mut same: HashMap<u64, u64> = HashMap::new();
    for (name, right_file) in &expected {
        let path = String::from_utf8_lossy(name).into_owned();
        let file = &found[name];
        let short = |s: &Seen| Seen { content: Vec::new(), ..s.clone() };
        assert_eq!(short(right_file), short(file), "{context}: {path}");
        assert!(right_file.content == file.content, "{context}: {path}: content");
        assert_eq!(
            *same.entry(right_numbers[name]).or_insert(numbers[name]),
            numbers[name],
            "{context}: {path}: inode"
        );
        holes(&right.join(&path), &here.join(&path), right_file, context);
    }
    let mut back: Vec<u64> = same.values().copied().collect();
    back.sort_unstable();
    back.dedup();
    assert_eq!(back.len(), same.len(), "{context}: files that are two on ext4 are one here");
}

/// A template keeps holes in units of this many bytes.
const UNIT: u64 = 128 << 10;

/// A hole on ext4 is one here: nobody ever wrote there. (The other way round granularity differs, and copies keep holes here.)
fn holes(right: &Path, here: &Path, file: &Seen, context: &str) {
    if !file.mode.starts_with("100") || file.size == 0 {
        return;
    }
    let (right, ours) = (File::open(right).unwrap(), File::open(here).unwrap());
    let mut at = 0;
    while let Ok(hole) = sys::seek(&right, SeekFrom::Hole(at))
        && hole < file.size
    {
        let end = sys::seek(&right, SeekFrom::Data(hole)).unwrap_or(file.size);
        at = end;
        let (hole, end) = (hole.next_multiple_of(UNIT), if end == file.size { end } else { end / UNIT * UNIT });
        if hole >= end {
            continue;
        }
        let data = sys::seek(&ours, SeekFrom::Data(hole)).unwrap_or(file.size);
        assert!(data >= end, "{context}: {here:?} has data at {data}, ext4 a hole from {hole} to {end}");
    }
}
