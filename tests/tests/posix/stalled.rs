//! Programs in a VE whose window is closed, or nearly (promises G14 to G16, G20): who changes something waits, nobody else does, and whoever
//! waits can be answered, ended, and survives the daemon.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aspfs_tests::mounted::{Bed, wait};
use rustix::fs::{FallocateFlags, XattrFlags};

use crate::{PROGRAM, VE};

const LONG: Duration = Duration::from_secs(60);

/// A bed whose VE is watched, with everything going.
fn bed() -> Option<(Bed, PathBuf)> {
    let bed = Bed::make(PROGRAM, Duration::from_secs(300))?;
    bed.verdict("go");
    bed.run();
    let ve = bed.ve(VE, &[]);
    Some((bed, ve))
}

/// What the writers change, one kind each: nothing here could be done twice without a trace, or an error.
const KINDS: usize = 10;

struct Writer {
    dir: PathBuf,
    kind: usize,
    file: File,
}

impl Writer {
    fn new(ve: &Path, n: usize) -> Writer {
        let dir = ve.join(format!("w{n}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), "before").unwrap();
        fs::create_dir(dir.join("empty")).unwrap();
        let file = OpenOptions::new().append(true).open(dir.join("file")).unwrap();
        // The kernel asks for this before the first write and remembers the answer.
        (&file).write_all(b" ").unwrap();
        Writer { dir, kind: n % KINDS, file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// One changing request.
    fn work(&self) -> io::Result<()> {
        let (from, to) = (self.path("file"), self.path("new"));
        match self.kind {
            0 => (&self.file).write_all(b"appended"),
            1 => fs::create_dir(to),
            2 => fs::rename(from, to),
            3 => fs::remove_file(from),
            4 => fs::hard_link(from, to),
            5 => std::os::unix::fs::symlink("target", to),
            6 => fs::remove_dir(self.path("empty")),
            7 => OpenOptions::new().write(true).create_new(true).open(to).map(drop),
            8 => Ok(rustix::fs::setxattr(from, "user.a", b"1", XattrFlags::CREATE)?),
            _ => OpenOptions::new().write(true).truncate(true).open(from).map(drop),
        }
    }

    /// Whether that was done; it must not have been done by half or twice.
    fn is_done(&self) -> bool {
        let (from, to) = (self.path("file"), self.path("new"));
        let before = || fs::read_to_string(&from).unwrap_or_default();
        let done = match self.kind {
            0 => before() == "before appended",
            1 => to.is_dir(),
            2 => fs::read_to_string(&to).is_ok_and(|text| text == "before ") && !from.exists(),
            3 => !from.exists(),
            4 => fs::metadata(&from).unwrap().nlink() == 2 && to.exists(),
            5 => fs::read_link(&to).is_ok_and(|t| t == Path::new("target")),
            6 => !self.path("empty").exists(),
            7 => to.exists(),
            8 => rustix::fs::getxattr(&from, "user.a", &mut [0u8; 8]).is_ok(),
            _ => before().is_empty(),
        };
        let untouched = before() == "before " && !to.exists() && self.path("empty").exists();
        assert!(done || untouched, "{:?}, kind {}: {:?}", self.dir, self.kind, before());
        done
    }
}

fn writers(ve: &Path, count: usize) -> Vec<Writer> {
    (0..count).map(|n| Writer::new(ve, n)).collect()
}

/// Lets all writers work, does something once so many of their requests wait, and gives what they were told.
fn while_parked(bed: &Bed, writers: &[Writer], then: impl FnOnce(&AtomicUsize)) -> Vec<io::Result<()>> {
    let ended = AtomicUsize::new(0);
    std::thread::scope(|s| {
        let work = |w| {
            let ended = &ended;
            s.spawn(move || {
                let done = Writer::work(w);
                ended.fetch_add(1, Ordering::SeqCst);
                done
            })
        };
        let threads: Vec<_> = writers.iter().map(work).collect();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            bed.until_parked(writers.len() as u64);
            then(&ended);
        }));
        if let Err(e) = done {
            bed.abort();
            std::panic::resume_unwind(e);
        }
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn all_done(writers: Vec<Writer>, told: Vec<io::Result<()>>) {
    told.into_iter().for_each(|t| t.unwrap());
    assert!(writers.iter().all(Writer::is_done));
}

/// checks G16: nobody but who changes something waits, and everything is done once when it may.
#[test]
fn who_changes_something_waits_and_who_reads_does_not() {
    let Some((bed, ve)) = bed() else { return };
    let large: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(ve.join("large"), &large).unwrap();
    fs::create_dir(ve.join("other")).unwrap();
    fs::write(ve.join("other/known"), "x").unwrap();
    let open = File::open(ve.join("large")).unwrap();
    let synced = OpenOptions::new().write(true).open(ve.join("other/known")).unwrap();
    let writers = writers(&ve, 2 * KINDS);
    bed.verdict("wait");
    let told = while_parked(&bed, &writers, |ended| {
        // Past the kernel's cache too.
        for flags in [0, libc::O_DIRECT] {
            let again = OpenOptions::new().read(true).custom_flags(flags).open(ve.join("large")).unwrap();
            let mut bytes = vec![0u8; 400_000];
            let start = bytes.as_ptr().align_offset(4096);
            let n = again.read_at(&mut bytes[start..start + 303_104], 0).unwrap();
            assert!(bytes[start..start + n] == large);
        }
        let mut byte = [0];
        open.read_exact_at(&mut byte, 100).unwrap();
        assert_eq!(fs::metadata(ve.join("w0/file")).unwrap().len(), 7);
        assert_eq!(fs::read_dir(ve.join("other")).unwrap().count(), 1);
        assert_eq!(fs::metadata(ve.join("other/unknown")).unwrap_err().kind(), ErrorKind::NotFound);
        rustix::fs::statvfs(&ve).unwrap();
        // Syncing changes nothing, and neither does opening for writing or closing.
        synced.sync_all().unwrap();
        drop(OpenOptions::new().append(true).open(ve.join("other/known")).unwrap());
        assert_eq!(ended.load(Ordering::SeqCst), 0, "somebody did not wait");
        assert_eq!(bed.counted().parked, writers.len() as u64);
        bed.verdict("go");
    });
    all_done(writers, told);
    drop((open, synced));
    assert_eq!(bed.counted().parked, 0);
    bed.finish();
}

/// checks G15
#[test]
fn delays_slow_writers_and_nothing_else() {
    let Some((bed, ve)) = bed() else { return };
    let writers = writers(&ve, 2 * KINDS);
    bed.verdict("delay 40");
    let (before, all) = (bed.counted().waited, writers.len() as u64);
    let told: Vec<_> = writers.iter().map(Writer::work).collect();
    assert_eq!(bed.counted().waited - before, all);
    all_done(writers, told);
    fs::metadata(ve.join("w0/file")).unwrap();
    File::open(ve.join("w0/file")).unwrap();
    assert_eq!(bed.counted().waited - before, all);
    bed.finish();
}

/// checks G20: a fence works with a hundred stalled writers; each is told, and nothing that was refused is done.
#[test]
fn a_fence_answers_a_hundred_stalled_writers() {
    let Some((bed, ve)) = bed() else { return };
    let writers = writers(&ve, 100);
    bed.verdict("wait");
    let told = while_parked(&bed, &writers, |_| bed.verdict("fenced"));
    for (writer, told) in writers.iter().zip(told) {
        assert_eq!(told.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        assert!(!writer.is_done(), "{:?}", writer.dir);
    }
    // Later ones are told at once, and reading goes on.
    assert_eq!(writers[0].work().unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    fs::read(ve.join("w0/file")).unwrap();
    bed.verdict("go");
    let told = writers.iter().map(Writer::work).collect();
    all_done(writers, told);
    bed.finish();
}

/// checks G7, G20, G31: the daemon is killed, and stopped, with a hundred stalled writers. None sees anything of it, and each is carried out
/// once, before or after.
#[test]
fn stalled_writers_survive_the_daemon() {
    for (says, stop) in [("wait", false), ("wait", true), ("answers", false), ("answers", true)] {
        let Some((bed, ve)) = bed() else { return };
        let writers = writers(&ve, 100);
        bed.verdict(says);
        let told = while_parked(&bed, &writers, |ended| {
            for _ in 0..2 {
                if stop {
                    assert!(bed.stop().success(), "{}", bed.log());
                } else {
                    bed.kill();
                }
                bed.run();
                bed.until_parked(writers.len() as u64);
                let counted = bed.counted();
                let before = if says == "answers" { writers.len() as u64 } else { 0 };
                assert_eq!((counted.resent, counted.answered_before), (before, before), "{says}");
            }
            assert_eq!(ended.load(Ordering::SeqCst), 0, "somebody was answered");
            bed.verdict("go");
        });
        all_done(writers, told);
        bed.finish();
    }
}

/// The kernel numbers the requests of each mount from the beginning, and what an earlier mount of the VE was answered stands in the journal for long. A
/// request that a killed daemon had taken and not carried out was given the answer to the earlier mount's of the same number: done, and nothing was
/// (checks G7, G31).
#[test]
fn the_answers_of_an_earlier_mount_are_none_of_this_one() {
    let Some((bed, ve)) = bed() else { return };
    let file = File::create(ve.join("earlier")).unwrap();
    (0..600).for_each(|n| file.write_all_at(b"x", n).unwrap());
    drop(file);
    bed.umount(VE);
    let ve = bed.mount(VE, &[]);
    let writers = writers(&ve, 2 * KINDS);
    bed.verdict("wait");
    let told = while_parked(&bed, &writers, |ended| {
        bed.kill();
        bed.run();
        bed.until_parked(writers.len() as u64);
        assert_eq!(ended.load(Ordering::SeqCst), 0, "somebody was answered");
        bed.verdict("go");
    });
    all_done(writers, told);
    bed.finish();
}

/// Programs that change something and wait for that.
fn stalled_programs(bed: &Bed, ve: &Path, count: usize) -> Vec<Child> {
    for n in 0..count {
        fs::write(ve.join(format!("p{n}")), "before").unwrap();
        fs::metadata(ve.join(format!("p{n}"))).unwrap();
    }
    bed.verdict("wait");
    let start = |n: usize| {
        let mut command: Command = bed.child("write");
        command.arg(ve.join(format!("p{n}"))).arg("after").stderr(Stdio::null()).spawn().unwrap()
    };
    let programs = (0..count).map(start).collect();
    bed.until_parked(count as u64);
    programs
}

/// checks G20: stalled programs can be killed, and then nothing of them is left behind; a mount that is detached under them ends with them.
#[test]
fn stalled_programs_can_be_killed() {
    let Some((bed, ve)) = bed() else { return };
    let mut programs = stalled_programs(&bed, &ve, 20);
    for program in &mut programs[..10] {
        program.kill().unwrap();
        assert!(wait(program, LONG).is_some(), "a killed program does not end\n{}", bed.log());
    }
    bed.until_parked(10);
    for n in 0..10 {
        assert_eq!(fs::read_to_string(ve.join(format!("p{n}"))).unwrap(), "before");
    }
    // umount -l: nobody finds the mount any more, but who uses it waits on.
    bed.detach(VE, false);
    assert_eq!((bed.status().mounts.len(), bed.counted().parked), (1, 10));
    bed.verdict("go");
    for program in &mut programs[10..] {
        assert!(wait(program, LONG).unwrap().success());
    }
    bed.until_released(VE);
    let ve = bed.mount(VE, &[]);
    for n in 10..20 {
        assert_eq!(fs::read_to_string(ve.join(format!("p{n}"))).unwrap(), "aftere");
    }
    bed.finish();
}

/// checks G20: a detached mount ends when the stalled programs in it are killed, and one that is unmounted by force ends them with an error.
#[test]
fn a_mount_ends_under_stalled_programs() {
    for force in [false, true] {
        let Some((bed, ve)) = bed() else { return };
        let mut programs = stalled_programs(&bed, &ve, 10);
        bed.detach(VE, force);
        for program in &mut programs {
            if !force {
                program.kill().unwrap();
            }
            let ended = wait(program, LONG).unwrap_or_else(|| panic!("it does not end\n{}", bed.log()));
            assert!(!ended.success());
        }
        bed.until_released(VE);
        bed.verdict("go");
        let ve = bed.mount(VE, &[]);
        for n in 0..10 {
            assert_eq!(fs::read_to_string(ve.join(format!("p{n}"))).unwrap(), "before");
        }
        bed.finish();
    }
}

/// checks G16, G33: more than there is room for waits as well, in the end is done once, and holds up no kill of the daemon and no stop.
#[test]
fn more_stalled_bytes_than_there_is_room_for() {
    const WRITERS: usize = 80;
    const LEN: usize = 1 << 20;
    for stop in [false, true] {
        let Some((bed, ve)) = bed() else { return };
        let files: Vec<File> = (0..WRITERS)
            .map(|n| OpenOptions::new().append(true).create(true).mode(0o600).open(ve.join(format!("f{n}"))).unwrap())
            .collect();
        bed.verdict("wait");
        std::thread::scope(|s| {
            let threads: Vec<_> = files
                .iter()
                .enumerate()
                .map(|(n, mut file)| s.spawn(move || file.write_all(&vec![n as u8; LEN])))
                .collect();
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..2 {
                    while bed.counted().parked < 40 {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    match stop {
                        true => assert!(bed.stop().success(), "{}", bed.log()),
                        false => bed.kill(),
                    }
                    bed.run();
                }
                bed.verdict("go");
            }));
            if let Err(e) = done {
                bed.abort();
                std::panic::resume_unwind(e);
            }
            threads.into_iter().for_each(|t| t.join().unwrap().unwrap());
        });
        drop(files);
        bed.umount(VE);
        let ve = bed.mount(VE, &[]);
        for n in 0..WRITERS {
            let bytes = fs::read(ve.join(format!("f{n}"))).unwrap();
            assert!(bytes.len() == LEN && bytes.iter().all(|b| *b == n as u8), "file {n}: {} bytes", bytes.len());
        }
        bed.finish();
    }
}

/// checks G16: pages that a program dirtied in a mapping and the kernel writes back are changes too, and no program waits for them but one that
/// syncs them.
#[test]
fn pages_that_are_written_back_wait_as_well() {
    use aspfs_tests::mounted::system::Mapping;
    let Some((bed, ve)) = bed() else { return };
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(ve.join("mapped")).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 8192).unwrap();
    fs::set_permissions(ve.join("mapped"), PermissionsExt::from_mode(0o600)).unwrap();
    let mapping = Mapping::new(&file, 8192, true, true).unwrap();
    mapping.write(0, b"first");
    mapping.sync().unwrap();
    bed.verdict("wait");
    std::thread::scope(|s| {
        mapping.write(4096, b"second");
        let syncs = s.spawn(|| mapping.sync());
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            bed.until_parked(1);
            assert!(!syncs.is_finished());
            assert_eq!(mapping.read(0, 5), b"first");
            bed.verdict("go");
        }));
        if let Err(e) = done {
            bed.abort();
            std::panic::resume_unwind(e);
        }
        syncs.join().unwrap().unwrap();
    });
    drop(mapping);
    drop(file);
    bed.umount(VE);
    let ve = bed.mount(VE, &[]);
    assert_eq!(&fs::read(ve.join("mapped")).unwrap()[4096..4102], b"second");
    bed.finish();
}
