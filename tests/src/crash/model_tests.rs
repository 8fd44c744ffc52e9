//! Random logs against a slow, separate reading of the fault model.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::IoSlice;

use proptest::prelude::*;
use vefs::storage::Storage;
use vefs::storage::memory::MemStorage;

use super::*;

type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Create(usize, u64),
    Write(usize, u64, u8, usize),
    Punch(usize, u64, u64),
    Rename(usize, usize),
    Remove(usize),
    Sync(usize),
    SyncDir(usize),
    SyncAll,
    FailFlush,
}

const PATHS: [&str; 4] = ["a", "b", "d/a", "d/b"];
const DIRS: [&str; 2] = ["", "d"];

fn step_or_failure() -> impl Strategy<Value = Step> {
    prop_oneof![14 => step(), 1 => Just(Step::FailFlush)]
}

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    prop_oneof![
        2 => (path.clone(), 0..3_u64).prop_map(|(path, zeros)| Step::Create(path, zeros * 700)),
        4 => (path.clone(), 0..2000_u64, 1..255_u8, 1..1500_usize)
            .prop_map(|(path, at, byte, len)| Step::Write(path, at, byte, len)),
        1 => (path.clone(), 0..1000_u64, 0..1000_u64).prop_map(|(path, at, len)| Step::Punch(path, at, len)),
        2 => (path.clone(), path.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => path.clone().prop_map(Step::Remove),
        2 => path.prop_map(Step::Sync),
        2 => (0..DIRS.len()).prop_map(Step::SyncDir),
        1 => Just(Step::SyncAll),
    ]
}

/// Steps on files that are not there do nothing.
fn run(disk: &Recorder, step: &Step) {
    let open = |path: &usize| disk.open(PATHS[*path]);
    let _ = match step {
        Step::Create(path, zeros) => disk.create(PATHS[*path], *zeros).map(|_| ()),
        Step::Write(path, at, byte, len) => {
            open(path).and_then(|file| file.write_at(&[IoSlice::new(&vec![*byte; *len])], *at))
        }
        Step::Punch(path, at, len) => open(path).and_then(|file| file.punch(*at, *len)),
        Step::Rename(from, to) => disk.rename(PATHS[*from], PATHS[*to]),
        Step::Remove(path) => disk.remove(PATHS[*path]),
        Step::Sync(path) => open(path).and_then(|file| file.sync()),
        Step::SyncDir(dir) => disk.sync_dir(DIRS[*dir]),
        Step::SyncAll => disk.sync_all(),
        Step::FailFlush => {
            disk.fail_flush(1);
            Ok(())
        }
    };
}

fn files(store: &MemStorage) -> Files {
    store.files().into_iter().map(|(path, content)| (path.to_string(), content.to_vec())).collect()
}

/// The folders whose names an event changes.
fn touched(event: &Event) -> Vec<&str> {
    let folder = |path: &'_ str| if path.starts_with("d/") { "d" } else { "" };
    match event {
        Event::Create { path, fresh: true, .. } | Event::Remove { path, .. } => vec![folder(path)],
        Event::Rename { from, to, .. } => vec![folder(from), folder(to)],
        _ => Vec::new(),
    }
}

/// Whether the name change at `i` is covered by a flush in `log`: directly, or through a later rename that is and that
/// shares a folder with it.
fn name_is_durable(log: &[Event], i: usize) -> bool {
    let mine = touched(&log[i]);
    log.iter().enumerate().skip(i + 1).any(|(j, event)| match event {
        Event::SyncAll => true,
        Event::SyncDir { dir } => mine.contains(&&**dir),
        Event::Rename { .. } => touched(event).iter().any(|dir| mine.contains(dir)) && name_is_durable(log, j),
        _ => false,
    })
}

/// Whether the first flush that concerns the bytes succeeded.
fn bytes_are_durable(log: &[Event], i: usize, file: FileId) -> bool {
    let verdict = |event: &Event| match event {
        Event::SyncAll => Some(true),
        Event::Sync { file: synced, .. } => (*synced == file).then_some(true),
        Event::FlushFailed { file: failed } => failed.is_none_or(|failed| failed == file).then_some(false),
        _ => None,
    };
    log[i + 1..].iter().find_map(verdict).unwrap_or(false)
}

/// Exactly what is covered by flushes, read from the log by the letter of the fault model.
fn covered(log: &[Event]) -> Files {
    let mut names: BTreeMap<String, FileId> = BTreeMap::new();
    let mut bytes: BTreeMap<FileId, Vec<u8>> = BTreeMap::new();
    for (i, event) in log.iter().enumerate() {
        let named = name_is_durable(log, i);
        match event {
            Event::Create { path, file, zeros, fresh } => {
                if *fresh && named {
                    names.insert(path.to_string(), *file);
                }
                if bytes_are_durable(log, i, *file) {
                    bytes.insert(*file, vec![0; *zeros as usize]);
                }
            }
            Event::Write { file, offset, data, .. } if bytes_are_durable(log, i, *file) => {
                let (from, to) = (*offset as usize, *offset as usize + data.len());
                let all = bytes.entry(*file).or_default();
                all.resize(all.len().max(to), 0);
                all[from..to].copy_from_slice(data);
            }
            Event::Punch { file, offset, len, .. } if bytes_are_durable(log, i, *file) => {
                let all = bytes.entry(*file).or_default();
                let (from, to) = ((*offset as usize).min(all.len()), ((offset + len) as usize).min(all.len()));
                all[from..to].fill(0);
            }
            Event::Rename { from, to, file } if named => {
                names.remove(&**from);
                names.insert(to.to_string(), *file);
            }
            Event::Remove { path, .. } if named => {
                names.remove(&**path);
            }
            _ => {}
        }
    }
    names.into_iter().map(|(path, file)| (path, bytes.get(&file).cloned().unwrap_or_default())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_flushed_and_what_is_there(steps in prop::collection::vec(step_or_failure(), 1..30)) {
        let disk = Recorder::new(&MemStorage::new());
        for (i, step) in steps.iter().enumerate() {
            run(&disk, step);
            // Every point in time on its own, so that no state is left out for being equal to an earlier one.
            disk.mark(i as u64);
        }
        let log = disk.log();
        let mut nothing = 0;
        for state in disk.states(&log).classes(Classes::NOTHING) {
            prop_assert_eq!(files(&state.storage), covered(&log[..state.at]), "{}", state.description);
            nothing += 1;
        }
        prop_assert!(nothing > steps.len());
        let alive = disk.states(&log).classes(Classes::KILL_DAEMON).last().unwrap();
        prop_assert_eq!(alive.at, log.len());
        prop_assert_eq!(files(&alive.storage), files(&disk.now()));
    }

    /// Without anything pending there is one state, whatever the class.
    #[test]
    fn after_a_full_flush_nothing_is_open(steps in prop::collection::vec(step(), 1..15)) {
        let disk = Recorder::new(&MemStorage::new());
        steps.iter().for_each(|step| run(&disk, step));
        disk.sync_all().unwrap();
        disk.mark(0);
        let log = disk.log();
        let last: Vec<_> = disk.states(&log).filter(|state| state.at == log.len()).collect();
        prop_assert_eq!(last.len(), 1);
        prop_assert_eq!(files(&last[0].storage), files(&disk.now()));
    }
}
