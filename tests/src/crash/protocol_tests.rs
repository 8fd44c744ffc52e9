//! The enumerator against small protocols of which it is known whether they hold.

#![allow(clippy::unwrap_used)]

use std::io::IoSlice;

use vefs::storage::Storage;
use vefs::storage::memory::MemStorage;

use super::*;

/// Replaces a file's bytes by those of a new one.
#[derive(Clone, Copy)]
struct Replace {
    sync_file: bool,
    sync_folder: bool,
}

/// The file's bytes before, after the first replacement, and after the second.
const CONTENTS: [&[u8]; 3] = [&[b'o'; 1500], &[b'n'; 1700], &[b'm'; 1600]];

/// Runs the protocol and looks at every state a power cut may leave: the first one that is neither the acknowledged content
/// nor a later one that was begun.
fn first_broken(protocol: Replace) -> Option<String> {
    first_broken_with(protocol, |_| {})
}

fn first_broken_with(protocol: Replace, prepare: impl FnOnce(&Recorder)) -> Option<String> {
    let base = MemStorage::new();
    base.create("d/a", 0).unwrap().write_at(&[IoSlice::new(CONTENTS[0])], 0).unwrap();
    let disk = Recorder::new(&base);
    prepare(&disk);
    for (round, bytes) in CONTENTS.iter().enumerate().skip(1) {
        let file = disk.create("d/tmp", 0).unwrap();
        file.write_at(&[IoSlice::new(bytes)], 0).unwrap();
        if protocol.sync_file && file.sync().is_err() {
            // The mistake of many programs: the second attempt succeeds, and says nothing about the first.
            file.sync().unwrap();
        }
        disk.rename("d/tmp", "d/a").unwrap();
        if protocol.sync_folder {
            disk.sync_dir("d").unwrap();
        }
        disk.mark(round as u64);
    }
    let log = disk.log();
    let mut seen = 0;
    for state in disk.states(&log) {
        seen += 1;
        let acknowledged = marks(&log, state.at).last().unwrap_or(0) as usize;
        let begun = log[..state.at].iter().filter(|event| matches!(event, Event::Rename { .. })).count();
        let bytes = state.storage.files().get("d/a").map(|content| content.to_vec()).unwrap_or_default();
        if !CONTENTS[acknowledged..=begun].contains(&bytes.as_slice()) {
            return Some(state.description);
        }
    }
    assert!(seen > 10, "only {seen} states");
    None
}

#[test]
fn the_right_protocol_holds() {
    assert_eq!(first_broken(Replace { sync_file: true, sync_folder: true }), None);
}

#[test]
fn a_rename_before_the_bytes_are_flushed_is_found() {
    let broken = first_broken(Replace { sync_file: false, sync_folder: true }).unwrap();
    // With create, write and rename pending, the write is what the name must not come before.
    assert_eq!(broken, "after 3 events, on disk: all but #1 (write d/tmp 0+1700)");
}

#[test]
fn an_acknowledgement_before_the_name_is_flushed_is_found() {
    let broken = first_broken(Replace { sync_file: true, sync_folder: false }).unwrap();
    assert_eq!(broken, "after 5 events, on disk: nothing pending");
}

#[test]
fn a_flush_that_is_retried_until_it_succeeds_is_found() {
    let right = Replace { sync_file: true, sync_folder: true };
    let broken = first_broken_with(right, |disk| disk.fail_flush(2)).unwrap();
    assert_eq!(broken, "after 11 events, on disk: all but #7 (write d/tmp 0+1600)");
}
