//! Corners of the promise G8, one by one: limits, numbers, handles, owners, quotas, and directories that change while they are read.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use aspfs_tests::mounted::system::{handle_of, idmapped, open_handle};
use aspfs_tests::mounted::{Bed, expect, outcome, reference};
use rustix::fs::{self as sys, AtFlags, CWD, FileType, Mode, RawDir, RenameFlags, SeekFrom, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::{PROGRAM, VE, bed};

const MINUTE: Duration = Duration::from_secs(60);

/// Waits for what happens behind a program's back.
fn eventually(happened: impl Fn() -> bool, what: &str) {
    let until = std::time::Instant::now() + MINUTE;
    while !happened() {
        assert!(std::time::Instant::now() < until, "not within {MINUTE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// checks G8: pathconf(3) cannot say it, so pjdfstest does not try
#[test]
fn the_65001st_link_is_refused() {
    let Some((bed, ve)) = bed(120) else { return };
    let (file, dir) = (ve.join("f"), ve.join("links"));
    File::create(&file).unwrap();
    fs::create_dir(&dir).unwrap();
    for n in 1..65_000 {
        fs::hard_link(&file, dir.join(n.to_string())).unwrap();
    }
    assert_eq!(fs::metadata(&file).unwrap().nlink(), 65_000);
    assert_eq!(sys::linkat(CWD, &file, CWD, dir.join("more"), AtFlags::empty()), Err(Errno::MLINK));
    fs::remove_file(dir.join("1")).unwrap();
    fs::hard_link(&file, dir.join("more")).unwrap();
    bed.finish();
}

#[test]
fn names_targets_and_attributes_have_linux_limits() {
    let Some((bed, ve)) = bed(60) else { return };
    let long = ve.join("ä".repeat(127) + "x");
    fs::write(&long, "255 bytes").unwrap();
    assert_eq!(fs::read(&long).unwrap(), b"255 bytes");
    assert_eq!(sys::stat(ve.join("x".repeat(256))).unwrap_err(), Errno::NAMETOOLONG);
    assert_eq!(File::create(ve.join("x".repeat(256))).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));

    let target = "t".repeat(4095);
    symlink(&target, ve.join("link")).unwrap();
    assert_eq!(fs::read_link(ve.join("link")).unwrap(), Path::new(&target));
    assert_eq!(fs::symlink_metadata(ve.join("link")).unwrap().len(), 4095);
    assert_eq!(sys::symlink("t".repeat(4096), ve.join("link2")), Err(Errno::NAMETOOLONG));

    let set = |name: &str, len: usize| sys::setxattr(&long, name, &vec![3; len], XattrFlags::empty());
    let name = |n: usize| format!("user.{}", "n".repeat(n - 5));
    set("user.large", 65_536).unwrap();
    assert_eq!(set("user.larger", 65_537), Err(Errno::TOOBIG));
    set(&name(255), 1).unwrap();
    assert_eq!(set(&name(256), 1), Err(Errno::RANGE));
    let mut value = vec![0; 65_536];
    assert_eq!(sys::getxattr(&long, "user.large", &mut value[..]).unwrap(), 65_536);
    assert!(value.iter().all(|b| *b == 3));
    assert_eq!(sys::getxattr(&long, "user.large", &mut value[..100]), Err(Errno::RANGE));
    assert_eq!(sys::getxattr(&long, "user.none", &mut value[..]), Err(Errno::NODATA));
    // listxattr(2) can tell 64 KiB of names.
    let full = (0..1000).find_map(|n| set(&format!("user.{n:0>245}"), 1).err());
    assert_eq!(full, Some(Errno::NOSPC));
    bed.finish();
}

#[test]
fn times_reach_far_both_ways() {
    let Some((bed, ve)) = bed(60) else { return };
    let file = ve.join("f");
    File::create(&file).unwrap();
    for (secs, nanos) in [(-1, 500_000_000), (-2, 1), (-5_000_000_000, 999_999_999), (0, 0), (1 << 36, 7)] {
        let at = sys::Timespec { tv_sec: secs, tv_nsec: nanos };
        sys::utimensat(CWD, &file, &Timestamps { last_access: at, last_modification: at }, AtFlags::empty()).unwrap();
        for _ in 0..2 {
            let seen = fs::metadata(&file).unwrap();
            assert_eq!((seen.mtime(), seen.mtime_nsec()), (secs, nanos));
            assert_eq!((seen.atime(), seen.atime_nsec()), (secs, nanos));
            // Once from what the kernel remembers, once from the daemon.
            bed.umount(VE);
            bed.mount(VE, &[]);
        }
    }
    bed.finish();
}

#[test]
fn devices_of_number_zero_and_whiteouts() {
    let Some((bed, ve)) = bed(60) else { return };
    let make = |name: &str, kind, device| sys::mknodat(CWD, ve.join(name), kind, Mode::from_raw_mode(0o600), device);
    make("zero", FileType::CharacterDevice, 0).unwrap();
    make("block", FileType::BlockDevice, sys::makedev(0xfff, 0xfffff)).unwrap();
    let seen = fs::metadata(ve.join("zero")).unwrap();
    assert_eq!((seen.mode() & libc::S_IFMT, seen.rdev()), (libc::S_IFCHR, 0));
    assert_eq!(fs::metadata(ve.join("block")).unwrap().rdev(), sys::makedev(0xfff, 0xfffff));
    fs::write(ve.join("a"), "a").unwrap();
    sys::renameat_with(CWD, ve.join("a"), CWD, ve.join("b"), RenameFlags::WHITEOUT).unwrap();
    let whiteout = fs::metadata(ve.join("a")).unwrap();
    assert_eq!((whiteout.mode() & libc::S_IFMT, whiteout.rdev()), (libc::S_IFCHR, 0));
    assert_eq!(fs::read(ve.join("b")).unwrap(), b"a");
    bed.finish();
}

/// What another user's write leaves of the set-user-ID and set-group-ID bits.
fn after_write(bed: &Bed, dir: &Path, mode: u32) -> u32 {
    let file = dir.join(format!("{mode:o}"));
    fs::write(&file, "privileged").unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    let mut command = bed.child("write");
    expect(command.arg(&file).arg("x").uid(65_534).gid(65_534), MINUTE);
    fs::metadata(&file).unwrap().mode() & 0o7777
}

#[test]
fn a_strangers_write_takes_set_user_id_away() {
    let (Some((bed, ve)), Some(right)) = (bed(60), reference()) else { return };
    for dir in [&ve, right.path()] {
        fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    }
    // The stranger has to reach them: the bed's own folder is private.
    fs::set_permissions(bed.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    // Set-group-ID without group execution stays here, as FUSE has it: a listed deviation.
    for mode in [0o4777, 0o2777, 0o6777, 0o4767, 0o777] {
        assert_eq!(after_write(&bed, &ve, mode), after_write(&bed, right.path(), mode), "{mode:o}");
    }
    bed.finish();
}

/// checks G8, G33: df inside tells the truth
#[test]
fn statfs_is_the_quota_and_full_is_edquot() {
    let Some(bed) = Bed::start(PROGRAM, MINUTE) else { return };
    let ve = bed.ve(VE, &["--quota", "10M", "--inodes", "20"]);
    let room = || {
        let s = sys::statvfs(&ve).unwrap();
        (s.f_blocks * s.f_frsize, s.f_bavail * s.f_frsize, s.f_files, s.f_ffree)
    };
    let (all, free, files, files_free) = room();
    assert_eq!((all, files), (10 << 20, 20));
    let mut file = File::create(ve.join("f")).unwrap();
    file.write_all(&vec![1; 4 << 20]).unwrap();
    assert_eq!(room(), (all, free - (4 << 20), files, files_free - 1));
    let written = (0..100).take_while(|_| file.write_all(&vec![2; 256 << 10]).is_ok()).count();
    assert!(written <= 24, "{written} times 256 KiB beyond 4 MiB");
    assert_eq!(file.write_all(&vec![2; 256 << 10]).unwrap_err().raw_os_error(), Some(libc::EDQUOT));
    let larger = sys::fallocate(&file, sys::FallocateFlags::empty(), 0, 11 << 20);
    assert_eq!(larger, Err(Errno::DQUOT));
    // What is there already may be written over, and a full VE can be emptied.
    file.write_all_at(&vec![3; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let made = (0..100).take_while(|n| File::create(ve.join(format!("n{n}"))).is_ok()).count();
    assert_eq!(made as u64, files_free - 1);
    assert_eq!(File::create(ve.join("more")).unwrap_err().raw_os_error(), Some(libc::EDQUOT));
    drop(file);
    fs::remove_file(ve.join("f")).unwrap();
    // A file that was just closed goes a moment later than its name, but nobody is told that it is still there.
    for _ in 0..30 {
        let mut file = File::create(ve.join("f")).unwrap();
        (0..9).for_each(|_| file.write_all(&vec![4; 1 << 20]).unwrap());
        drop(file);
        fs::remove_file(ve.join("f")).unwrap();
    }
    eventually(|| room().1 == free, "what was removed is free again");
    bed.finish();
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let Some((bed, ve)) = bed(60) else { return };
    fs::write(ve.join("f"), "x").unwrap();
    bed.umount(VE);
    bed.mount(VE, &["-o", "ro"]);
    let refused = |done: std::io::Result<()>| assert_eq!(done.unwrap_err().raw_os_error(), Some(libc::EROFS));
    refused(File::create(ve.join("g")).map(|_| ()));
    refused(OpenOptions::new().write(true).open(ve.join("f")).map(|_| ()));
    refused(fs::remove_file(ve.join("f")));
    refused(fs::create_dir(ve.join("d")));
    refused(fs::set_permissions(ve.join("f"), PermissionsExt::from_mode(0o600)));
    assert_eq!(fs::read(ve.join("f")).unwrap(), b"x");
    bed.finish();
}

/// What an NFS server does
#[test]
fn file_handles_last() {
    let Some((bed, ve)) = bed(60) else { return };
    fs::create_dir_all(ve.join("d/e")).unwrap();
    fs::write(ve.join("d/e/f"), "content").unwrap();
    let handles = ["", "d", "d/e", "d/e/f"].map(|p| handle_of(&ve.join(p)).unwrap());
    fs::rename(ve.join("d/e/f"), ve.join("g")).unwrap();
    for _ in 0..2 {
        let root = File::open(&ve).unwrap();
        for (handle, now) in handles.iter().zip(["", "d", "d/e", "g"]) {
            let file = open_handle(root.as_fd(), handle, libc::O_RDONLY).unwrap();
            assert_eq!(file.metadata().unwrap().ino(), fs::metadata(ve.join(now)).unwrap().ino(), "{now}");
        }
        drop(root);
        // As well when neither the kernel nor the daemon remembers the files.
        bed.umount(VE);
        bed.kill();
        bed.run();
        bed.mount(VE, &[]);
    }
    let root = File::open(&ve).unwrap();
    let open = |flags| open_handle(root.as_fd(), &handles[3], flags);
    open(libc::O_RDWR).unwrap().write_all_at(b"C", 0).unwrap();
    assert_eq!(fs::read(ve.join("g")).unwrap(), b"Content");
    fs::remove_file(ve.join("g")).unwrap();
    // It goes when the kernel has told of the last close.
    let gone = || open(libc::O_RDONLY).err().is_some_and(|e| e.raw_os_error() == Some(libc::ESTALE));
    eventually(gone, "a handle of a removed file");
    drop(root);
    bed.finish();
}

/// checks G8: owners as a VE's user namespace has them
#[test]
fn an_idmapped_mount_maps_owners() {
    let Some((bed, ve)) = bed(60) else { return };
    let mut space = Command::new("unshare").args(["--user", "sleep", "60"]).stdin(Stdio::null()).spawn().unwrap();
    let proc = |file: &str| format!("/proc/{}/{file}", space.id());
    let ours = fs::read_link("/proc/self/ns/user").unwrap();
    while fs::read_link(proc("ns/user")).unwrap() == ours {
        std::thread::sleep(Duration::from_millis(2));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(proc(map), "0 100000 65536").unwrap();
    }
    fs::set_permissions(&ve, PermissionsExt::from_mode(0o777)).unwrap();
    fs::set_permissions(bed.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let mapped = bed.path("mapped");
    fs::create_dir(&mapped).unwrap();
    idmapped(&ve, &mapped, File::open(proc("ns/user")).unwrap().as_fd()).unwrap();
    space.kill().unwrap();
    space.wait().unwrap();

    fs::write(ve.join("roots"), "x").unwrap();
    assert_eq!(fs::metadata(mapped.join("roots")).unwrap().uid(), 100_000);
    let user = |args: &[&str]| {
        let mut command = Command::new(args[0]);
        command.args(&args[1..]).current_dir(&mapped).uid(100_005).gid(100_006);
        outcome(&mut command, MINUTE).unwrap().status.success()
    };
    assert!(user(&["touch", "theirs"]) && user(&["mkdir", "dir"]) && user(&["ln", "-s", "x", "link"]));
    assert!(user(&["mkfifo", "fifo"]) && user(&["chmod", "600", "theirs"]) && user(&["sh", "-c", "echo x >> theirs"]));
    for name in ["theirs", "dir", "link", "fifo"] {
        let at = fs::symlink_metadata(ve.join(name)).unwrap();
        assert_eq!((at.uid(), at.gid()), (5, 6), "{name}: as the VE has it");
        let at = fs::symlink_metadata(mapped.join(name)).unwrap();
        assert_eq!((at.uid(), at.gid()), (100_005, 100_006), "{name}: as it is shown");
    }
    assert!(!user(&["sh", "-c", "echo x >> roots"]) && !user(&["chown", "0", "theirs"]) && !user(&["rm", "-r", "/x"]));
    // Who is not mapped can make nothing.
    assert_eq!(File::create(mapped.join("no")).unwrap_err().raw_os_error(), Some(libc::EOVERFLOW));
    rustix::mount::unmount(&mapped, rustix::mount::UnmountFlags::DETACH).unwrap();
    bed.finish();
}

/// Names from a cookie on, at most `most` of them, and the cookie behind.
fn list(dir: &File, from: u64, most: usize) -> (Vec<String>, u64) {
    sys::seek(dir, SeekFrom::Start(from)).unwrap();
    let mut buffer = vec![MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(dir, &mut buffer);
    let (mut names, mut cookie) = (Vec::new(), from);
    while names.len() < most
        && let Some(entry) = entries.next()
    {
        let entry = entry.unwrap();
        cookie = entry.next_entry_cookie();
        let name = entry.file_name().to_str().unwrap().to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    (names, cookie)
}

/// checks G7, G8: a position in a directory stays what it is while names come and go, also over the first change of a template's folder, and over a
/// takeover
#[test]
fn a_position_in_a_directory_lasts() {
    let Some(bed) = Bed::make(PROGRAM, Duration::from_secs(120)) else { return };
    let source = tempfile::tempdir().unwrap();
    let dir = source.path().join("d");
    fs::create_dir(&dir).unwrap();
    (0..1500).for_each(|n| fs::write(dir.join(format!("t{n}")), "").unwrap());
    bed.import(source.path(), &[VE]);
    bed.run();
    let ve = bed.mount(VE, &[]).join("d");
    let reader = File::open(&ve).unwrap();
    let (first, cookie) = list(&reader, 0, 500);
    let rest: Vec<String> = list(&reader, cookie, usize::MAX).0;
    assert_eq!(first.len() + rest.len(), 1500);

    let removed: BTreeSet<&String> = first.iter().chain(&rest).step_by(2).collect();
    removed.iter().for_each(|name| fs::remove_file(ve.join(name)).unwrap());
    (0..100).for_each(|n| fs::write(ve.join(format!("new{n}")), "").unwrap());
    bed.kill();
    bed.run();

    let fresh = File::open(&ve).unwrap();
    for reader in [&reader, &fresh] {
        let (later, _) = list(reader, cookie, usize::MAX);
        let distinct: BTreeSet<&String> = later.iter().collect();
        assert_eq!(distinct.len(), later.len(), "no name twice");
        let expected: BTreeSet<&String> = rest.iter().filter(|n| !removed.contains(n)).collect();
        assert!(expected.is_subset(&distinct), "no name is missed");
        // The kernel goes on with a listing that it remembers, as POSIX allows: names in it may be gone.
        let again: Vec<_> = distinct.iter().filter(|n| first.contains(n)).collect();
        assert!(again.is_empty(), "names that were read before: {again:?}");
    }
    let whole: BTreeSet<String> = list(&fresh, 0, usize::MAX).0.into_iter().collect();
    assert!(whole.len() == 850 && !removed.iter().any(|n| whole.contains(*n)), "a new listing has what is there");
    drop((reader, fresh));
    bed.finish();
}

/// checks G8: `rm -rf` while others list
#[test]
fn a_large_directory_goes_while_it_is_listed() {
    let Some((bed, ve)) = bed(120) else { return };
    let dir = ve.join("d");
    fs::create_dir(&dir).unwrap();
    (0..5000).for_each(|n| drop(File::create(dir.join(n.to_string())).unwrap()));
    std::thread::scope(|s| {
        let lister = s.spawn(|| {
            let mut last = usize::MAX;
            while let Ok(entries) = fs::read_dir(&dir) {
                let names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
                let distinct: BTreeSet<_> = names.iter().collect();
                assert_eq!(distinct.len(), names.len());
                assert!(names.len() <= last, "names come back");
                last = names.len();
            }
        });
        expect(Command::new("rm").arg("-rf").arg(&dir), MINUTE);
        lister.join().unwrap();
    });
    assert!(!dir.exists());
    bed.finish();
}

/// checks G8: reads and writes around the page cache agree with those through it
#[test]
fn direct_io_and_the_page_cache_agree() {
    let Some((bed, ve)) = bed(60) else { return };
    let path = ve.join("f");
    fs::write(&path, vec![1; 40_000]).unwrap();
    let cached = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let mut buffer = vec![0u8; 12_288];
    let start = buffer.as_ptr().align_offset(4096);
    let block = &mut buffer[start..start + 8192];
    let mut seen = [0; 4];
    cached.read_exact_at(&mut seen, 8192).unwrap();
    block.fill(2);
    direct.write_all_at(block, 8192).unwrap();
    cached.read_exact_at(&mut seen, 8192).unwrap();
    assert_eq!(seen, [2; 4], "cached after direct");
    cached.write_all_at(&[3; 4], 8200).unwrap();
    direct.read_exact_at(block, 8192).unwrap();
    assert_eq!((&block[..8], &block[8..12], &block[12..16]), (&[2; 8][..], &[3; 4][..], &[2; 4][..]));
    // The last, partial block.
    assert_eq!(direct.read_at(block, 36_864).unwrap(), 40_000 - 36_864);
    drop((cached, direct));
    bed.finish();
}

/// checks G33
#[test]
fn what_is_removed_while_it_is_open_is_free_again() {
    let Some((bed, ve)) = bed(120) else { return };
    let used = || {
        let s = sys::statvfs(&ve).unwrap();
        s.f_files - s.f_ffree
    };
    let before = used();
    std::thread::scope(|s| {
        for worker in 0..4 {
            let ve = &ve;
            s.spawn(move || {
                for n in 0..1000 {
                    let path = ve.join(format!("{worker}-{n}"));
                    let mut file = File::create(&path).unwrap();
                    file.write_all(b"temporary").unwrap();
                    fs::remove_file(&path).unwrap();
                }
            });
        }
    });
    eventually(|| used() == before, "removed files are not charged");
    bed.finish();
}
