#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::Arc;

use vefs::storage::Storage;
use vefs::storage::memory::MemStorage;

use super::*;

type Files = BTreeMap<String, Vec<u8>>;

fn base(files: &[(&str, &[u8])]) -> MemStorage {
    let store = MemStorage::new();
    for (path, data) in files {
        let file = store.create(path, 0).unwrap();
        file.write_at(&[IoSlice::new(data)], 0).unwrap();
    }
    store
}

fn write(disk: &Recorder, path: &str, data: &[u8], offset: u64) {
    disk.open(path).unwrap().write_at(&[IoSlice::new(data)], offset).unwrap();
}

fn sync(disk: &Recorder, path: &str) {
    disk.open(path).unwrap().sync().unwrap();
}

fn files(store: &MemStorage) -> Files {
    store.files().into_iter().map(|(path, content)| (path.to_string(), content.to_vec())).collect()
}

fn found(disk: &Recorder, classes: Classes) -> Vec<(usize, Files)> {
    let log = disk.log();
    disk.states(&log).classes(classes).map(|state| (state.at, files(&state.storage))).collect()
}

/// The states of a disk with the one file `a`, as its bytes.
fn found_a(disk: &Recorder, classes: Classes) -> Vec<(usize, Vec<u8>)> {
    let one = |(at, files): (usize, Files)| (at, files["a"].clone());
    found(disk, classes).into_iter().map(one).collect()
}

fn state(at: usize, list: &[(&str, &[u8])]) -> (usize, Files) {
    (at, list.iter().map(|(path, data)| ((*path).to_owned(), data.to_vec())).collect())
}

fn text(states: &[(usize, Vec<u8>)]) -> Vec<(usize, &str)> {
    states.iter().map(|(at, data)| (*at, std::str::from_utf8(data).unwrap())).collect()
}

/// Three writes that no flush covers.
fn three_writes() -> Recorder {
    let disk = Recorder::new(&base(&[("a", b"000")]));
    for (at, digit) in ["1", "2", "3"].iter().enumerate() {
        write(&disk, "a", digit.as_bytes(), at as u64);
    }
    disk
}

#[test]
fn kill_daemon_keeps_everything() {
    let states = found_a(&three_writes(), Classes::KILL_DAEMON);
    assert_eq!(text(&states), [(0, "000"), (1, "100"), (2, "120"), (3, "123")]);
}

#[test]
fn nothing_keeps_what_is_flushed() {
    let disk = Recorder::new(&base(&[("a", b"000")]));
    write(&disk, "a", b"1", 0);
    sync(&disk, "a");
    write(&disk, "a", b"2", 1);
    write(&disk, "a", b"45", 2);
    disk.sync_all().unwrap();
    assert_eq!(text(&found_a(&disk, Classes::NOTHING)), [(0, "000"), (2, "100"), (5, "1245")]);
}

#[test]
fn prefix_keeps_the_beginning() {
    assert_eq!(text(&found_a(&three_writes(), Classes::PREFIX)), [(2, "100"), (3, "120")]);
}

#[test]
fn drop_one_loses_each_in_turn() {
    let states = found_a(&three_writes(), Classes::DROP_ONE);
    assert_eq!(text(&states), [(1, "000"), (2, "020"), (2, "100"), (3, "023"), (3, "103"), (3, "120")]);
}

#[test]
fn only_one_keeps_each_in_turn() {
    assert_eq!(text(&found_a(&three_writes(), Classes::ONLY_ONE)), [(1, "100"), (2, "020"), (3, "003")]);
}

#[test]
fn subset_is_complete_where_few_are_pending() {
    let states = found_a(&three_writes(), Classes::SUBSET);
    let all: BTreeSet<&str> = text(&states).into_iter().map(|(_, text)| text).collect();
    assert_eq!(all, BTreeSet::from(["000", "100", "020", "003", "120", "103", "023", "123"]));
    assert_eq!(states.len(), 8);
}

#[test]
fn subset_is_drawn_where_many_are_pending() {
    let disk = Recorder::new(&base(&[("a", &[b'0'; 20])]));
    (0..20).for_each(|at| write(&disk, "a", b"1", at));
    let log = disk.log();
    let draw = |seed| -> Vec<Files> {
        let states = disk.states(&log).classes(Classes::SUBSET).seed(seed).per_class(8);
        states.filter(|state| state.at == 20).map(|state| files(&state.storage)).collect()
    };
    let first = draw(1);
    assert!((4..=8).contains(&first.len()), "{}", first.len());
    assert_eq!(first, draw(1));
    assert_ne!(first, draw(2));
    for files in &first {
        let ones = files["a"].iter().filter(|byte| **byte == b'1').count();
        assert!((1..20).contains(&ones), "{ones} of 20 writes: hardly a fair draw");
    }
}

/// Where a file of `len` zeros has the byte `x`, by ranges.
fn landed(len: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut data = vec![0; len as usize];
    ranges.iter().for_each(|(from, to)| data[*from as usize..*to as usize].fill(b'x'));
    data
}

#[test]
fn torn_cuts_at_units_of_the_file() {
    let disk = Recorder::new(&base(&[("a", &[0; 2000])]));
    write(&disk, "a", &[b'x'; 1500], 100);
    let states = found_a(&disk, Classes::TORN_512);
    let expected = [(100, 512), (512, 1600), (100, 1024), (1024, 1600), (100, 1536), (1536, 1600)];
    assert_eq!(states, expected.map(|range| (1, landed(2000, &[range]))));
    assert_eq!(found_a(&disk, Classes::TORN_4096), []);
}

#[test]
fn torn_in_larger_units_takes_first_middle_and_last() {
    let disk = Recorder::new(&base(&[("a", &[0; 30_000])]));
    write(&disk, "a", &[b'x'; 25_000], 4096);
    let states = found_a(&disk, Classes::TORN_4096);
    let (start, end) = (4096, 29_096);
    let expected = [8192, 16_384, 28_672].map(|cut| [(start, cut), (cut, end)]).concat();
    assert_eq!(states, expected.iter().map(|range| (1, landed(30_000, &[*range]))).collect::<Vec<_>>());
}

#[test]
fn one_unit_does_not_tear() {
    let disk = Recorder::new(&base(&[("a", &[0; 2000])]));
    write(&disk, "a", &[b'x'; 512], 512);
    assert_eq!(found_a(&disk, Classes::TORN_512 | Classes::TORN_4096), []);
}

#[test]
fn torn_growth_has_the_length_of_what_landed() {
    let disk = Recorder::new(&base(&[("a", b"")]));
    write(&disk, "a", &[b'x'; 1024], 0);
    let states = found_a(&disk, Classes::TORN_512);
    assert_eq!(states, [(1, landed(512, &[(0, 512)])), (1, landed(1024, &[(512, 1024)]))]);
}

#[test]
fn an_earlier_write_tears_while_later_ones_are_there() {
    let disk = Recorder::new(&base(&[("a", &[0; 3000])]));
    write(&disk, "a", &[b'x'; 1024], 0);
    write(&disk, "a", b"x", 2999);
    let states = found_a(&disk, Classes::TORN_512);
    let head = landed(3000, &[(0, 512), (2999, 3000)]);
    let tail = landed(3000, &[(512, 1024), (2999, 3000)]);
    assert!(states[2..] == [(2, head)] || states[2..] == [(2, tail)], "{} states", states.len());
}

#[test]
fn misdirected_goes_elsewhere_and_leaves_the_old_bytes() {
    let disk = Recorder::new(&base(&[("a", &[b'-'; 4 * 4096])]));
    write(&disk, "a", b"x", 4096 + 7);
    let states = found_a(&disk, Classes::MISDIRECTED);
    assert!(!states.is_empty());
    for (at, data) in states {
        let places: Vec<usize> = (0..data.len()).filter(|i| data[*i] == b'x').collect();
        assert_eq!((at, places.len(), data.len()), (1, 1, 4 * 4096));
        assert!([7, 2 * 4096 + 7, 3 * 4096 + 7].contains(&places[0]), "at {}", places[0]);
    }
}

#[test]
fn a_write_with_no_other_place_is_not_misdirected() {
    let disk = Recorder::new(&base(&[("a", &[b'-'; 5000])]));
    write(&disk, "a", &[b'x'; 4000], 1000);
    assert_eq!(found_a(&disk, Classes::MISDIRECTED), []);
}

#[test]
fn dropped_loses_one_flushed_write() {
    let disk = Recorder::new(&base(&[("a", b"00")]));
    write(&disk, "a", b"1", 0);
    sync(&disk, "a");
    write(&disk, "a", b"2", 1);
    assert_eq!(text(&found_a(&disk, Classes::DROPPED)), [(2, "00"), (3, "02")]);
    sync(&disk, "a");
    assert_eq!(text(&found_a(&disk, Classes::DROPPED)), [(2, "00"), (4, "02"), (4, "10")]);
}

#[test]
fn a_write_that_was_overwritten_is_not_missed() {
    let disk = Recorder::new(&base(&[("a", b"0")]));
    write(&disk, "a", b"1", 0);
    sync(&disk, "a");
    disk.mark(1);
    write(&disk, "a", b"2", 0);
    sync(&disk, "a");
    assert_eq!(text(&found_a(&disk, Classes::DROPPED)), [(2, "0"), (5, "1")]);
}

#[test]
fn a_power_cut_includes_no_damage() {
    let disk = Recorder::new(&base(&[("a", &[0; 3 * 4096])]));
    write(&disk, "a", &[1; 4096], 0);
    disk.sync_all().unwrap();
    write(&disk, "a", &[2; 4096], 4096);
    let log = disk.log();
    let classes: Vec<CrashClass> = disk.states(&log).map(|state| state.class).collect();
    assert!(classes.iter().all(|class| !class.is_damage()), "{classes:?}");
    let damage: Vec<CrashClass> = disk.states(&log).classes(Classes::DAMAGE).map(|state| state.class).collect();
    assert!(damage.contains(&CrashClass::Dropped) && damage.contains(&CrashClass::Misdirected), "{damage:?}");
}

#[test]
fn a_rename_without_its_folder_flushed_may_be_undone() {
    let disk = Recorder::new(&base(&[("a", b"1"), ("b", b"2")]));
    write(&disk, "a", b"9", 0);
    disk.rename("a", "b").unwrap();
    let both = Classes::NOTHING | Classes::ONLY_ONE | Classes::KILL_DAEMON;
    let expected = [
        state(0, &[("a", b"1"), ("b", b"2")]),
        state(1, &[("a", b"9"), ("b", b"2")]),
        state(2, &[("b", b"9")]),
        // The new name leads to the old bytes.
        state(2, &[("b", b"1")]),
    ];
    assert_eq!(found(&disk, both), expected);
    disk.sync_dir("").unwrap();
    let nothing = found(&disk, Classes::NOTHING);
    assert_eq!(nothing, [state(0, &[("a", b"1"), ("b", b"2")]), state(3, &[("b", b"1")])]);
}

#[test]
fn writes_after_a_rename_belong_to_the_file() {
    let disk = Recorder::new(&base(&[("a", b"1")]));
    let file = disk.open("a").unwrap();
    disk.rename("a", "b").unwrap();
    file.write_at(&[IoSlice::new(b"2")], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(found(&disk, Classes::NOTHING), [state(0, &[("a", b"1")]), state(3, &[("a", b"2")])]);
}

#[test]
fn a_name_and_its_bytes_are_flushed_apart() {
    let bytes_only = Recorder::new(&base(&[]));
    bytes_only.create("d/a", 0).unwrap();
    write(&bytes_only, "d/a", b"x", 0);
    sync(&bytes_only, "d/a");
    assert_eq!(found(&bytes_only, Classes::NOTHING), [state(0, &[])]);

    let name_only = Recorder::new(&base(&[]));
    name_only.create("d/a", 2).unwrap();
    write(&name_only, "d/a", b"x", 0);
    name_only.sync_dir("d").unwrap();
    assert_eq!(found(&name_only, Classes::NOTHING), [state(0, &[]), state(3, &[("d/a", b"")])]);
    sync(&name_only, "d/a");
    assert_eq!(found(&name_only, Classes::NOTHING).last().unwrap(), &state(4, &[("d/a", b"x\0")]));
}

#[test]
fn a_rename_between_folders_carries_earlier_names_along() {
    let disk = Recorder::new(&base(&[]));
    disk.create("x/a", 1).unwrap();
    disk.create("z/c", 1).unwrap();
    sync(&disk, "x/a");
    disk.rename("x/a", "y/b").unwrap();
    disk.sync_dir("y").unwrap();
    assert_eq!(found(&disk, Classes::NOTHING), [state(0, &[]), state(5, &[("y/b", b"\0")])]);
    disk.remove("z/c").unwrap();
    disk.mark(1);
    let after = found(&disk, Classes::POWER_CUT).into_iter().filter(|(at, _)| *at == 7);
    let names: Vec<Vec<String>> = after.map(|(_, files)| files.into_keys().collect()).collect();
    // With and without the folder z, and with z/c empty or filled; the old name x/a never comes back.
    assert_eq!(names, [vec!["y/b"], vec!["y/b"], vec!["y/b", "z/c"], vec!["y/b", "z/c"]]);
}

#[test]
fn emptying_a_file_and_filling_it_are_two_things() {
    let disk = Recorder::new(&base(&[("a", b"old")]));
    disk.create("a", 2).unwrap();
    let states = found_a(&disk, Classes::NOTHING | Classes::ONLY_ONE | Classes::KILL_DAEMON);
    assert_eq!(text(&states), [(0, "old"), (1, "\0\0"), (1, ""), (1, "\0\0d")]);
}

#[test]
fn a_removal_may_be_undone_until_it_is_flushed() {
    let disk = Recorder::new(&base(&[("a", b"1"), ("d/b", b"2")]));
    disk.remove("d/b").unwrap();
    disk.sync_dir("").unwrap();
    disk.mark(1);
    disk.sync_dir("d").unwrap();
    disk.mark(2);
    let before = [("a", &b"1"[..]), ("d/b", &b"2"[..])];
    let expected = [state(0, &before), state(3, &before), state(4, &[("a", b"1")]), state(5, &[("a", b"1")])];
    assert_eq!(found(&disk, Classes::NOTHING), expected);
}

#[test]
fn equal_states_are_handed_out_once_between_two_marks() {
    let disk = Recorder::new(&base(&[("a", b"0")]));
    write(&disk, "a", b"1", 0);
    let log = disk.log();
    let mut states = disk.states(&log);
    assert_eq!(states.by_ref().map(|state| state.class).collect::<Vec<_>>().len(), 2);
    // All and nothing at the beginning; then all, nothing, without it, only it, and two subsets.
    assert_eq!(states.counts(), StateCounts { made: 3 + 6, distinct: 2, sampled: 0 });

    write(&disk, "a", b"1", 0);
    assert_eq!(disk.states(&disk.log()).count(), 2);
    disk.mark(5);
    assert_eq!(disk.states(&disk.log()).map(|state| state.at).collect::<Vec<_>>(), [0, 1, 3, 3]);
    assert_eq!(marks(&disk.log(), 2).next(), None);
    assert_eq!(marks(&disk.log(), 3).collect::<Vec<_>>(), [5]);
}

#[test]
fn what_a_failed_flush_should_have_covered_is_never_sure() {
    let disk = Recorder::new(&base(&[("a", b"000")]));
    disk.fail_flush(2);
    write(&disk, "a", b"1", 0);
    sync(&disk, "a");
    write(&disk, "a", b"22", 1);
    assert_eq!(disk.open("a").unwrap().sync().unwrap_err().raw_os_error(), Some(5));
    write(&disk, "a", b"3", 2);
    sync(&disk, "a");
    disk.sync_all().unwrap();
    disk.mark(0);
    let last: Vec<_> = found_a(&disk, Classes::POWER_CUT).into_iter().filter(|(at, _)| *at == 8).collect();
    // The later write is there in its place whether the earlier one is or not.
    assert_eq!(text(&last), [(8, "123"), (8, "103")]);
}

#[test]
fn a_state_is_independent_of_the_others() {
    let disk = three_writes();
    let log = disk.log();
    let mut seen = 0;
    for state in disk.states(&log).classes(Classes::ALL) {
        let file = state.storage.open("a").unwrap();
        file.write_at(&[IoSlice::new(b"garbage")], 0).unwrap();
        state.storage.remove("a").unwrap();
        seen += 1;
    }
    assert_eq!(found_a(&disk, Classes::SUBSET).len(), seen);
    assert_eq!(files(disk.base())["a"], b"000");
}

#[test]
fn a_description_names_what_is_missing() {
    let log = three_writes().log();
    let disk = three_writes();
    let lost: Vec<String> = disk.states(&log).classes(Classes::DROP_ONE).map(|state| state.description).collect();
    assert_eq!(lost[1], "after 2 events, on disk: all but #0 (write a 0+1)");
}

#[test]
fn failed_calls_are_not_recorded() {
    let full = MemStorage::with_capacity(10);
    let disk = Recorder::new(&full);
    let file = disk.create("a", 10).unwrap();
    assert!(file.write_at(&[IoSlice::new(b"x")], 10).is_err());
    assert!(disk.create("b", 1).is_err());
    assert!(disk.remove("none").is_err() && disk.rename("none", "a").is_err() && disk.sync_dir("none").is_err());
    let expected = [("a", 10), ("b", 0)].map(|(path, zeros)| (Arc::from(path), zeros));
    let created: Vec<(Arc<str>, u64)> = disk.log().iter().map(created).collect();
    assert_eq!(created, expected);
}

fn created(event: &Event) -> (Arc<str>, u64) {
    match event {
        Event::Create { path, zeros, .. } => (Arc::clone(path), *zeros),
        other => panic!("recorded: {other}"),
    }
}
