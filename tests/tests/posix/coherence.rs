//! Files of a template before and after their first write: what was opened, locked, mapped or watched before behaves as on ext4; files that
//! are read by passthrough behave as the listed deviation says; and nothing that a VE does reaches its template or another VE.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aspfs_tests::mounted::system::Mapping;
use aspfs_tests::mounted::{Bed, wait};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FallocateFlags, FlockOperation, flock};
use rustix::io::Errno;

use crate::tree::{self, pattern};
use crate::{PROGRAM, VE};

/// Another VE over the same template.
const OTHER: &str = "0000002B";
/// Sizes of what is read by passthrough, and of what the kernel caches.
const LARGE: usize = 300_000;
const SMALL: usize = 700;

/// A bed with two VEs over a template, the first mounted; and the template's source.
fn bed() -> Option<(Bed, PathBuf, tempfile::TempDir)> {
    let bed = Bed::make(PROGRAM, Duration::from_secs(120))?;
    let source = tempfile::tempdir().unwrap();
    tree::make(source.path());
    bed.import(source.path(), &[VE, OTHER]);
    bed.run();
    let ve = bed.mount(VE, &[]);
    Some((bed, ve, source))
}

fn read_all(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let n = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(n);
    bytes
}

fn writable(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// checks G8: `tail -f` of a template's log
#[test]
fn a_log_is_followed_over_its_first_write() {
    let Some((bed, ve, _source)) = bed() else { return };
    let log = ve.join("log");
    let mut follower = File::open(&log).unwrap();
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, &log, WatchFlags::MODIFY).unwrap();
    let mapping = Mapping::new(&follower, 4096, false, true).unwrap();
    let mut seen = Vec::new();
    follower.read_to_end(&mut seen).unwrap();
    // The tree's root and the folders each write their own over it.
    assert_eq!(seen, pattern(SMALL, 0));
    let before = follower.metadata().unwrap();

    OpenOptions::new().append(true).open(&log).unwrap().write_all(b"a new line\n").unwrap();

    seen.clear();
    follower.read_to_end(&mut seen).unwrap();
    assert_eq!(seen, b"a new line\n");
    assert_eq!(mapping.read(SMALL, 11), b"a new line\n", "the mapping");
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    assert_eq!(inotify::Reader::new(&watch, &mut buffer).next().unwrap().events(), ReadFlags::MODIFY);
    let after = fs::metadata(&log).unwrap();
    assert_eq!((after.ino(), after.len()), (before.ino(), SMALL as u64 + 11));
    assert_eq!(follower.metadata().unwrap().len(), after.len());
    assert_eq!(bed.counted().moved, 0);
    drop((follower, mapping, watch));
    bed.finish();
}

/// checks G8
#[test]
fn locks_hold_over_the_first_write() {
    let Some((bed, ve, _source)) = bed() else { return };
    let log = ve.join("lib/log");
    let locked = File::open(&log).unwrap();
    flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
    let other = writable(&log);
    other.write_all_at(b"x", 0).unwrap();
    assert_eq!(flock(&other, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    let third = File::open(&log).unwrap();
    assert_eq!(flock(&third, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    flock(&locked, FlockOperation::Unlock).unwrap();
    flock(&third, FlockOperation::NonBlockingLockShared).unwrap();
    drop((locked, other, third));
    bed.finish();
}

/// checks G8: a shared mapping that was made before anything was written is the file
#[test]
fn shared_mappings_are_one_with_the_file() {
    let Some((bed, ve, _source)) = bed() else { return };
    let log = ve.join("log");
    let file = writable(&log);
    let mapping = Mapping::new(&file, 4096, true, true).unwrap();
    let second = Mapping::new(&writable(&log), 4096, false, true).unwrap();
    mapping.write(5, b"mapped");
    assert_eq!(&read_all(&File::open(&log).unwrap(), 20)[5..11], b"mapped");
    assert_eq!(second.read(5, 6), b"mapped");
    file.write_all_at(b"written", 50).unwrap();
    assert_eq!(mapping.read(50, 7), b"written");
    mapping.sync().unwrap();
    drop((mapping, second, file));
    bed.umount(VE);
    bed.mount(VE, &[]);
    let seen = fs::read(&log).unwrap();
    assert_eq!((&seen[5..11], &seen[50..57], seen.len()), (&b"mapped"[..], &b"written"[..], SMALL));
    bed.finish();
}

/// The listed deviation: a file that is read by passthrough is opened for writing. What it promises: nobody gets an error, new openers see the new
/// bytes, old ones the old, the inode's number and attributes are the same, and it is counted.
fn meets_passthrough(change: impl Fn(&Path), expected: &dyn Fn(Vec<u8>) -> Vec<u8>) {
    let Some((bed, ve, _source)) = bed() else { return };
    let (large, link) = (ve.join("large"), ve.join("another-name"));
    fs::hard_link(&large, &link).unwrap();
    let old = File::open(&large).unwrap();
    let mapping = Mapping::new(&old, LARGE, false, false).unwrap();
    let bytes = pattern(LARGE, 0);
    assert!(read_all(&old, LARGE) == bytes);
    assert!(bed.counted().passthrough > 0, "a large file of a template is read by passthrough");

    change(&link);

    assert_eq!(bed.counted().moved, 1);
    let new = expected(bytes.clone());
    for name in [&large, &link] {
        assert!(fs::read(name).unwrap() == new, "{name:?}: new bytes");
        assert_eq!(fs::metadata(name).unwrap().ino(), old.metadata().unwrap().ino());
    }
    assert!(read_all(&old, LARGE) == bytes && mapping.read(LARGE - 10, 10) == bytes[LARGE - 10..], "old bytes");
    fs::set_permissions(&large, PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(old.metadata().unwrap().mode() & 0o7777, 0o640, "attributes are one");
    assert_eq!(old.metadata().unwrap().len(), new.len() as u64);
    // From now on it is a file like any other.
    let reader = File::open(&large).unwrap();
    writable(&link).write_all_at(b"again", 0).unwrap();
    assert_eq!(read_all(&reader, 5), b"again");
    bed.kill();
    bed.run();
    assert!(read_all(&old, LARGE) == bytes, "old bytes after a takeover");
    assert_eq!(read_all(&reader, 5), b"again");
    fs::remove_file(&large).unwrap();
    fs::remove_file(&link).unwrap();
    assert!(read_all(&old, LARGE) == bytes, "old bytes of a removed file");
    assert_eq!(old.metadata().unwrap().nlink(), 0);
    drop((old, reader, mapping));
    bed.finish();
}

/// A file that has left passthrough is known to the kernel twice where it has two names. What was changed through one of them was not seen through the
/// other: its mode and owner stayed the old ones for the kernel's permission checks, and its link count for stat(2) (checks G8).
#[test]
fn attributes_of_a_file_that_left_passthrough_are_one() {
    let Some((bed, ve, _source)) = bed() else { return };
    let (one, other) = (ve.join("large"), ve.join("other"));
    fs::hard_link(&one, &other).unwrap();
    let (reader, _reader) = (File::open(&one).unwrap(), File::open(&other).unwrap());
    writable(&one).write_all_at(b"new", 0).unwrap();
    assert_eq!(bed.counted().moved, 1);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    for n in 0..3 {
        let (a, b, c) = (0o600 + n, 0o640 + n, 0o444 + n);
        fs::set_permissions(&other, fs::Permissions::from_mode(a)).unwrap();
        assert_eq!((mode(&one), mode(&other)), (a, a), "by the other name, {n}");
        fs::set_permissions(&one, fs::Permissions::from_mode(b)).unwrap();
        assert_eq!((mode(&one), mode(&other)), (b, b), "by the one that moved, {n}");
        reader.set_permissions(fs::Permissions::from_mode(c)).unwrap();
        assert_eq!((mode(&one), mode(&other)), (c, c), "by a descriptor of before, {n}");
    }
    fs::remove_file(&other).unwrap();
    assert_eq!(fs::metadata(&one).unwrap().nlink(), 1);
    drop((reader, _reader));
    bed.finish();
}

/// What is written through the only open of a file that only writes goes past the kernel's cache, and there the kernel leaves the file's capabilities to
/// whoever serves it: a user who may write a program with capabilities could put another one in its place (capabilities(7); checks G8).
#[test]
fn who_writes_a_file_takes_its_capabilities() {
    let Some((bed, ve, _source)) = bed() else { return };
    // Version 2, CAP_NET_RAW permitted and effective (linux/capability.h).
    let capability: Vec<u8> = [0x0200_0001u32, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let file = ve.join("program");
    fs::write(&file, "program").unwrap();
    let mut ways = [OpenOptions::new(), OpenOptions::new(), OpenOptions::new()];
    ways[0].write(true);
    ways[1].write(true).append(true);
    ways[2].write(true).read(true);
    let set =
        || rustix::fs::setxattr(&file, "security.capability", &capability, rustix::fs::XattrFlags::empty()).unwrap();
    let get = || rustix::fs::getxattr(&file, "security.capability", &mut [0u8; 64]);
    for (n, way) in ways.iter().enumerate() {
        set();
        let mut open = way.open(&file).unwrap();
        assert_eq!(get(), Ok(capability.len()), "way {n}: opening changes nothing");
        open.write_all(b"another").unwrap();
        assert_eq!(get(), Err(Errno::NODATA), "way {n}");
    }
    // Whatever else changes what is in it, or whose it is.
    let others: [&dyn Fn(); 4] = [
        &|| writable(&file).set_len(3).unwrap(),
        &|| rustix::fs::fallocate(writable(&file), FallocateFlags::empty(), 0, 100).unwrap(),
        &|| {
            _ = rustix::fs::copy_file_range(File::open(ve.join("log")).unwrap(), None, writable(&file), None, 5)
                .unwrap()
        },
        &|| std::os::unix::fs::chown(&file, Some(7), None).unwrap(),
    ];
    for (n, change) in others.iter().enumerate() {
        set();
        change();
        assert_eq!(get(), Err(Errno::NODATA), "other way {n}");
    }
    bed.finish();
}

#[test]
fn writing_what_is_read_by_passthrough() {
    meets_passthrough(|path| writable(path).write_all_at(b"new", 100).unwrap(), &|mut bytes| {
        bytes[100..103].copy_from_slice(b"new");
        bytes
    });
}

/// A descriptor has no name to be looked up again: the listed deviation's one error. What is changed by name is not affected.
#[test]
fn opening_a_passthrough_reader_again_for_writing() {
    let Some((bed, ve, _source)) = bed() else { return };
    let old = File::open(ve.join("large")).unwrap();
    let link = format!("/proc/self/fd/{}", old.as_raw_fd());
    let again = OpenOptions::new().write(true).open(&link).map(|_| ()).map_err(|e| e.raw_os_error());
    assert_eq!(again, Err(Some(libc::ESTALE)));
    assert_eq!(File::open(&link).unwrap_err().raw_os_error(), Some(libc::ESTALE), "the file has moved");
    assert!(fs::read(ve.join("large")).unwrap() == pattern(LARGE, 0));
    writable(&ve.join("large")).write_all_at(b"x", 0).unwrap();
    assert!(read_all(&old, LARGE) == pattern(LARGE, 0));
    let small = File::open(ve.join("log")).unwrap();
    writable(Path::new(&format!("/proc/self/fd/{}", small.as_raw_fd()))).write_all_at(b"x", 0).unwrap();
    assert_eq!(read_all(&small, 1), b"x");
    drop((old, small));
    bed.finish();
}

#[test]
fn truncating_by_path_what_is_read_by_passthrough() {
    meets_passthrough(|path| nix::unistd::truncate(path, 1000).unwrap(), &|mut bytes| {
        bytes.truncate(1000);
        bytes
    });
}

#[test]
fn emptying_what_is_read_by_passthrough() {
    meets_passthrough(|path| drop(File::create(path).unwrap()), &|_| Vec::new());
}

/// Waits for a file that a script makes.
fn appears(path: &Path) {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while !path.exists() {
        assert!(std::time::Instant::now() < until, "{path:?} does not appear");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// checks G8: a running program cannot be written to, and can be replaced
#[test]
fn a_running_program_is_busy() {
    let Some((bed, ve, _source)) = bed() else { return };
    let program = ve.join("program");
    fs::copy("/bin/sleep", &program).unwrap();
    let mut running = Command::new(&program).arg("60").spawn().unwrap();
    let refused = OpenOptions::new().write(true).open(&program).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ETXTBSY));
    assert_eq!(nix::unistd::truncate(&program, 0), Err(nix::errno::Errno::ETXTBSY));
    // Once, the file was emptied before this was refused, and the program died of it at its next page.
    let emptying = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_TRUNC;
    let opened = nix::fcntl::open(&program, emptying, nix::sys::stat::Mode::empty()).map(drop);
    assert_eq!(opened, Err(nix::errno::Errno::ETXTBSY));
    assert_eq!(fs::read(&program).unwrap(), fs::read("/bin/sleep").unwrap());
    fs::copy("/bin/true", ve.join("new")).unwrap();
    fs::rename(ve.join("new"), &program).unwrap();
    assert!(Command::new(&program).status().unwrap().success(), "the new one runs");
    assert!(running.try_wait().unwrap().is_none(), "the old one still does");
    running.kill().unwrap();
    running.wait().unwrap();
    bed.finish();
}

/// Mounted versions share the page cache with the VE and its template as the VE does; that the VE's own file is written takes nothing away from
/// them, nor does the daemon's death (checks G8, G25).
#[test]
fn large_files_of_versions_are_read_by_passthrough() {
    let Some((bed, ve, _source)) = bed() else { return };
    fs::write(ve.join("mark"), "made a version").unwrap();
    let rows: serde_json::Value = serde_json::from_str(&bed.aspfs(&["--json", "versions", VE])).unwrap();
    let txn = rows.as_array().and_then(|rows| rows.last()).map_or(0, |row| row["txn"].as_u64().unwrap());
    let dir = bed.mount(&format!("{VE}@{txn}"), &[]);
    let before = bed.counted();
    let bytes = pattern(LARGE, 0);
    let old = File::open(dir.join("large")).unwrap();
    let mapping = Mapping::new(&old, LARGE, false, false).unwrap();
    assert!(read_all(&old, LARGE) == bytes && mapping.read(LARGE - 10, 10) == bytes[LARGE - 10..]);
    assert_eq!(bed.counted().passthrough, before.passthrough + 1);
    assert_eq!(bed.counted().read, before.read, "its bytes went through the daemon");

    writable(&ve.join("large")).write_all_at(b"new", 100).unwrap();
    fs::remove_file(ve.join("mark")).unwrap();

    assert_eq!(bed.counted().moved, before.moved, "nobody reads the VE's own by passthrough");
    for kill in [false, true] {
        if kill {
            bed.kill();
            bed.run();
        }
        assert!(read_all(&old, LARGE) == bytes && mapping.read(100, 3) == bytes[100..103], "after a kill: {kill}");
        assert!(fs::read(dir.join("large")).unwrap() == bytes, "opened anew, after a kill: {kill}");
        assert_eq!(fs::read_to_string(dir.join("mark")).unwrap(), "made a version");
        assert_eq!(read_all(&writable(&ve.join("large")), 103)[100..], *b"new");
        let refused = OpenOptions::new().write(true).open(dir.join("large")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::ROFS.raw_os_error()));
    }
    drop((old, mapping));
    bed.finish();
}

/// A shell reads its script while it runs it: appended lines are run, as on ext4, unless the script is read by passthrough, when the old ones
/// are run to their end.
#[test]
fn a_script_that_grows_while_it_runs() {
    let Some(bed) = Bed::make(PROGRAM, Duration::from_secs(120)) else { return };
    let source = tempfile::tempdir().unwrap();
    let text = "echo x > started\nwhile [ ! -e go ]; do sleep 0.02; done\necho old >> said\n";
    // Small files share an object, unless there is only one.
    fs::write(source.path().join("another"), "another").unwrap();
    for (name, mode) in [("plain", 0o644), ("executable", 0o755)] {
        fs::write(source.path().join(name), text).unwrap();
        fs::set_permissions(source.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    bed.import(source.path(), &[VE]);
    bed.run();
    let ve = bed.mount(VE, &[]);
    for (name, expected) in [("plain", "old\nnew\n"), ("executable", "old\n")] {
        let mut shell = Command::new("/bin/sh").arg(name).current_dir(&ve).stdin(Stdio::null()).spawn().unwrap();
        appears(&ve.join("started"));
        OpenOptions::new().append(true).open(ve.join(name)).unwrap().write_all(b"echo new >> said\n").unwrap();
        fs::write(ve.join("go"), "").unwrap();
        assert!(wait(&mut shell, Duration::from_secs(30)).unwrap().success());
        assert_eq!(fs::read_to_string(ve.join("said")).unwrap(), expected, "{name}");
        ["started", "go", "said"].iter().for_each(|f| fs::remove_file(ve.join(f)).unwrap());
    }
    bed.finish();
}

/// Everything that may write, on one file of a template.
fn attack(path: &Path, donor: &Path) {
    let reader = File::open(path).unwrap();
    assert!(reader.write_at(b"no", 0).is_err());
    assert!(Mapping::new(&reader, 4096, true, true).is_err(), "a shared mapping of a reader cannot be writable");
    Mapping::new(&reader, 4096, true, false).unwrap().write(0, b"private");
    // A reader that is opened again for writing, by its descriptor.
    let again = OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    if let Ok(again) = again {
        again.write_all_at(b"again", 10).unwrap();
    }
    let file = writable(path);
    let mapping = Mapping::new(&file, 4096, true, true).unwrap();
    mapping.write(20, b"mapped");
    mapping.sync().unwrap();
    let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let buffer = vec![7u8; 8192];
    let start = buffer.as_ptr().align_offset(4096);
    direct.write_all_at(&buffer[start..start + 4096], 0).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 100, 50).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 200, 50).unwrap();
    let donor = File::open(donor).unwrap();
    rustix::fs::copy_file_range(&donor, Some(&mut 0), &file, Some(&mut 300), 50).unwrap();
    (&file).seek(std::io::SeekFrom::Start(400)).unwrap();
    std::io::copy(&mut (&donor).take(50), &mut &file).unwrap();
    file.set_len(600).unwrap();
    File::create(path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    rustix::fs::setxattr(path, "user.kind", b"attacked", rustix::fs::XattrFlags::empty()).unwrap();
}

/// checks G8, G25: nothing that is done in a VE is seen in another VE or in the template
#[test]
fn no_ve_changes_anothers_bytes() {
    let Some((bed, ve, source)) = bed() else { return };
    let other = bed.mount(OTHER, &[]);
    // Pages of the other VE that are in the cache already, and a mapping of them.
    let theirs = File::open(other.join("large")).unwrap();
    let mapped = Mapping::new(&theirs, LARGE, false, true).unwrap();
    assert_eq!(mapped.read(0, 100), pattern(100, 0));
    for folder in tree::FOLDERS {
        for name in ["tool", "log", "large", "sparse"] {
            attack(&ve.join(folder).join(name), &ve.join("lib/deep/empty"));
        }
    }
    fs::remove_dir_all(ve.join("acl")).unwrap();
    tree::compare(source.path(), &other, "the other VE");
    assert!(mapped.read(0, LARGE) == pattern(LARGE, 0));
    drop((theirs, mapped));
    bed.umount(OTHER);
    bed.mount(OTHER, &[]);
    tree::compare(source.path(), &other, "the other VE, mounted again");
    bed.aspfs(&["template", "verify", "tree"]);
    bed.finish();
}
