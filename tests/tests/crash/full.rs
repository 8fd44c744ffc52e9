//! Full disks: nothing promised is lost, what frees space works, and writers go on once there is some.

use std::sync::Arc;
use std::time::Duration;

use aspfs_tests::crashrun::check::{Depth, sweep};
use aspfs_tests::crashrun::probe::Probe;
use aspfs_tests::crashrun::record::{How, Step, record};
use aspfs_tests::crashrun::sweep::all;
use aspfs_tests::crashrun::world::{Base, Rest, VE, both, open, pattern, tiny_options};
use aspfs_tests::opgen::Rng;
use vefs::Error;
use vefs::ids::InodeNo;
use vefs::op::{Op, Owner};
use vefs::storage::Storage;
use vefs::store::Options;
use vefs::types::mode;
use vefs::ve::Retention;

use crate::random::draw;

const RESERVE: u64 = 512 << 10;

fn base(room: u64) -> Base {
    let options = Options { reserve: RESERVE, ..tiny_options() };
    Base::prepared(Rest::Published, options).unwrap().0.with_room(room)
}

fn create(name: &str) -> Op {
    Op::Create {
        parent: InodeNo::ROOT,
        name: name.as_bytes().to_vec(),
        mode: mode::IFREG | 0o644,
        rdev: 0,
        owner: Owner::default(),
    }
}

/// Checks G4: fill, restart, erase, collect, go on. `len` is the size of each file, `ticks` the number of files between two ticks,
/// `room` what the disk takes, in bytes.
fn fill(len: usize, ticks: u64, room: u64) {
    let base = base(room);
    let (disk, mut meta) = (Arc::new(base.storage.snapshot()), Arc::new(base.meta.after_crash()));
    let (mut store, mut clock) = open(&base, disk.clone(), meta.clone(), 1 << 40).unwrap();
    let mut ve = store.ve(VE).unwrap();
    let mut model = base.model.clone();
    let mut refused = 0;
    let mut made = 0;
    while refused < 30 {
        clock.advance(Duration::from_millis(3));
        let new = model.next_ino();
        let write = Op::Write { ino: new, offset: 0, data: pattern(made, len), kill_priv: false };
        for op in [create(&format!("f{made}")), write] {
            match both(&ve, &mut model, &op, &clock).unwrap() {
                Ok(()) => {}
                Err(Error::NoSpace { .. }) => refused += 1,
                Err(e) => panic!("file {made} of {len} bytes: {e:?}"),
            }
        }
        made += 1;
        assert!(made < 10_000, "the disk does not fill");
        if made % ticks == 0 {
            store.tick().unwrap();
        }
    }
    // One operation and one segment may reach into it.
    let free = disk.free_bytes().unwrap();
    assert!(free >= RESERVE / 2, "writers left {free} bytes of the reserve");
    assert_eq!(Probe::new(&ve, &model).run(), (Ok(()), 0));
    ve.sync().unwrap();
    for round in 0..2 {
        drop((ve, store));
        meta = Arc::new(meta.after_crash());
        (store, clock) = open(&base, disk.clone(), meta.clone(), (2 + round) << 40).unwrap();
        clock.advance(Duration::from_secs(100));
        ve = store.ve(VE).unwrap_or_else(|e| panic!("opening a full store, round {round}: {e:?}"));
        assert_eq!(Probe::new(&ve, &model).run(), (Ok(()), 0), "round {round}");
    }
    let mut names = Vec::new();
    for (_, entry) in ve.entries(InodeNo::ROOT, 0, usize::MAX).unwrap() {
        if entry.name.starts_with(b"f") && entry.name.len() > 1 && entry.name[1].is_ascii_digit() {
            names.push((entry.name.to_vec(), entry.ino));
        }
    }
    assert!(names.len() > 3, "{} files", names.len());
    for (name, ino) in names {
        for op in [Op::Unlink { parent: InodeNo::ROOT, name }, Op::Reap { ino }] {
            both(&ve, &mut model, &op, &clock).unwrap().unwrap_or_else(|e| panic!("{op:?} on a full disk: {e:?}"));
        }
    }
    store.collect_garbage(&Retention { steps: Vec::new() }).unwrap();
    store.tick().unwrap();
    let data = pattern(1, 100_000);
    let ino = model.next_ino();
    for op in [create("again"), Op::Write { ino, offset: 0, data, kill_priv: false }] {
        both(&ve, &mut model, &op, &clock).unwrap().unwrap_or_else(|e| panic!("{op:?} after erasing: {e:?}"));
    }
    ve.sync().unwrap();
    assert_eq!(Probe::new(&ve, &model).run(), (Ok(()), 0));
}

#[test]
fn a_disk_filled_with_small_files_recovers() {
    fill(1500, 7, RESERVE + (300 << 10));
}

#[test]
fn a_disk_filled_with_large_files_recovers() {
    fill(70_000, 3, 2 << 20);
}

/// Free space was only looked at in a tick: a writer that was fast between two of them used the reserve up, and then the VE
/// could not even be opened, because recovery wanted to end the open transaction.
#[test]
fn a_disk_filled_between_two_ticks_recovers() {
    fill(70_000, 100_000, 2 << 20);
}

/// Checks G1, G2, G4: every crash while the disk is full.
#[test]
fn crashes_on_a_full_disk_lose_nothing() {
    let most = if crate::nightly() { 400 } else { 6 };
    let jobs: Vec<u64> = (0..most).collect();
    all("full disks", &jobs, |seed| {
        let told = |e: String| format!("seed {seed}: {e}");
        let base = base(RESERVE + 40_000 + (seed % 8) * 30_000);
        let steps: Vec<Step> = draw(&mut Rng::new(*seed), &base, 40);
        let run = record(&base, &steps, How { seed: *seed, ..How::default() }).map_err(told)?;
        if let Some(e) = &run.ended {
            return Err(told(format!("{e:?}")));
        }
        sweep(&run, Depth { per_class: Some(2), nest_every: 0, whole_every: 1, seed: *seed }).map_err(told)
    })
    .unwrap();
}

/// Publishing copies small payloads out of the journal. A disk that was filled with them between two ticks left no room for the
/// copies: nothing could be published, so nothing recycled, so nothing collected, for ever. Checks G4.
#[test]
fn a_disk_filled_with_small_payloads_comes_back() {
    fill(20_000, 100_000, 1 << 20);
}

/// Recovery ends the open transaction, which takes a new segment: on a disk that others had filled to the last byte the VE could not
/// be opened at all. Checks G4, G31.
#[test]
fn a_disk_that_others_filled_can_be_opened() {
    let base = base(4 << 20);
    let (disk, meta) = (Arc::new(base.storage.snapshot()), Arc::new(base.meta.after_crash()));
    let (store, clock) = open(&base, disk.clone(), meta.clone(), 1 << 40).unwrap();
    let ve = store.ve(VE).unwrap();
    let mut model = base.model.clone();
    both(&ve, &mut model, &create("open"), &clock).unwrap().unwrap();
    drop((ve, store));
    disk.set_capacity(Some(disk.used()));
    let (store, _) = open(&base, disk.clone(), Arc::new(meta.after_crash()), 2 << 40).unwrap();
    let ve = store.ve(VE).unwrap();
    assert_eq!(Probe::new(&ve, &model).run(), (Ok(()), 0));
    assert!(matches!(both(&ve, &mut model, &create("no"), &clock).unwrap(), Err(Error::NoSpace { .. })));
    disk.set_capacity(base.capacity);
    store.tick().unwrap();
    both(&ve, &mut model, &create("yes"), &clock).unwrap().unwrap();
    ve.commit().unwrap();
    assert_eq!(Probe::new(&ve, &model).run(), (Ok(()), 0));
}
