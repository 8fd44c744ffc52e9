#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::storage::memory::MemStorage;

fn disk() -> (Arc<FaultPlan>, FaultStorage) {
    let plan = FaultPlan::new();
    (Arc::clone(&plan), FaultStorage::new(Arc::new(MemStorage::new()), plan))
}

fn write(file: &Arc<dyn File>, data: &[u8], offset: u64) -> Result<(), ErrorKind> {
    file.write_at(&[IoSlice::new(data)], offset).map_err(|e| e.kind())
}

fn bytes(file: &Arc<dyn File>) -> Vec<u8> {
    let mut bytes = vec![0xee; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn the_nth_call_fails_once() {
    let (plan, disk) = disk();
    let file = disk.create("a", 0).unwrap();
    plan.fail(Call::Write, 2, ErrorKind::StorageFull);
    plan.fail(Call::Sync, 1, ErrorKind::TimedOut);
    assert_eq!(write(&file, b"1", 0), Ok(()));
    assert_eq!(write(&file, b"2", 1), Err(ErrorKind::StorageFull));
    assert_eq!(bytes(&file), b"1");
    assert_eq!(write(&file, b"3", 1), Ok(()));
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::TimedOut);
    file.sync().unwrap();
    disk.sync_all().unwrap();
    let expected = Counts { writes: 3, bytes: 2, syncs: 2, sync_alls: 1, creates: 1, reads: 1, ..Counts::default() };
    assert_eq!(plan.counts(), expected);
}

#[test]
fn a_lasting_fault_lasts_until_it_is_healed() {
    let (plan, disk) = disk();
    plan.fail_from(Call::Create, 2, ErrorKind::StorageFull);
    disk.create("a", 0).unwrap();
    for name in ["b", "c"] {
        assert_eq!(disk.create(name, 0).map(|_| ()).unwrap_err().kind(), ErrorKind::StorageFull);
    }
    assert_eq!(disk.list("").unwrap(), ["a"]);
    plan.heal();
    disk.create("b", 0).unwrap();
}

#[test]
fn two_faults_of_a_kind_keep_their_numbers() {
    let (plan, disk) = disk();
    let file = disk.create("a", 0).unwrap();
    plan.fail(Call::Write, 3, ErrorKind::TimedOut);
    plan.fail(Call::Write, 1, ErrorKind::StorageFull);
    let results: Vec<_> = (0..4).map(|at| write(&file, b"x", at).err()).collect();
    assert_eq!(results, [Some(ErrorKind::StorageFull), None, Some(ErrorKind::TimedOut), None]);
}

#[test]
fn of_a_short_write_a_prefix_lands() {
    let (plan, disk) = disk();
    let file = disk.create("a", 10).unwrap();
    plan.short_write(1, 5, ErrorKind::WriteZero);
    let parts = [IoSlice::new(b"abc"), IoSlice::new(b"defg"), IoSlice::new(b"hi")];
    assert_eq!(file.write_at(&parts, 1).unwrap_err().kind(), ErrorKind::WriteZero);
    assert_eq!(bytes(&file), b"\0abcde\0\0\0\0");
    assert_eq!(plan.counts().bytes, 5);
    plan.short_write(1, 500, ErrorKind::WriteZero);
    assert_eq!(write(&file, b"xyz", 0), Err(ErrorKind::WriteZero));
    assert_eq!(bytes(&file), b"xyzcde\0\0\0\0\0"[..10]);
    assert_eq!(plan.counts().bytes, 8);
}

#[test]
fn a_dead_disk_answers_nothing() {
    let (plan, disk) = disk();
    let file = disk.create("a", 3).unwrap();
    plan.die_after(2);
    assert_eq!(write(&file, b"x", 0), Ok(()));
    file.sync().unwrap();
    let eio = |result: io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
    eio(file.read_at(&mut [0], 0));
    eio(file.write_at(&[IoSlice::new(b"y")], 0));
    eio(file.sync());
    eio(file.punch(0, 1));
    eio(file.len().map(|_| ()));
    eio(disk.open("a").map(|_| ()));
    eio(disk.create("b", 0).map(|_| ()));
    eio(disk.rename("a", "b"));
    eio(disk.remove("a"));
    eio(disk.list("").map(|_| ()));
    eio(disk.sync_dir(""));
    eio(disk.sync_all());
    eio(disk.free_bytes().map(|_| ()));
    plan.heal();
    assert_eq!(bytes(&file), b"x\0\0");
    assert_eq!(disk.list("").unwrap(), ["a"]);
}

/// Notes how many flushes are in it at once.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    overlapped: AtomicBool,
}

impl Storage for Gauge {
    fn sync_all(&self) -> io::Result<()> {
        if self.now.fetch_add(1, Ordering::SeqCst) > 0 {
            self.overlapped.store(true, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(1));
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn open(&self, _: &str) -> io::Result<Arc<dyn File>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn create(&self, _: &str, _: u64) -> io::Result<Arc<dyn File>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Err(ErrorKind::Unsupported.into())
    }
}

#[test]
fn flushes_of_one_queue_exclude_each_other() {
    let (plan, gauge) = (FaultPlan::new(), Arc::new(Gauge::default()));
    plan.flush_latency(Duration::from_micros(10), true);
    let disk = FaultStorage::new(Arc::clone(&gauge) as Arc<dyn Storage>, Arc::clone(&plan));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| disk.sync_all().unwrap()));
        }
    });
    assert!(!gauge.overlapped.load(Ordering::SeqCst));
    assert_eq!(plan.counts().sync_alls, 20);
}
