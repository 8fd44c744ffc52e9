//! Bytes that garbage collection moves, with the metadata store cut off between its batches.

use std::sync::Arc;

use aspfs_tests::crash::Recorder;
use aspfs_tests::crashrun::meta::RecordedMeta;
use aspfs_tests::crashrun::world::{Base, VE, open, pattern, tiny_options};
use vefs::ids::InodeNo;
use vefs::op::{FallocMode, Op, Owner};
use vefs::store::Options;
use vefs::types::mode;
use vefs::ve::{Request, Retention};

/// Pieces of the file: of every three one stays alive, more than the rows that one batch of a collection takes.
const PIECES: u64 = 33_000;
/// Bytes of a piece.
const PIECE: u64 = 64;
/// Where the first piece begins: a file that is written from its start on would have an extent file of its own.
const BEGIN: u64 = 4096;

/// Checks G2, G26. A collection deleted the row of a place before it put those of the moved parts; with more rows than a batch takes, a
/// crash between two batches left live bytes that nobody knew the place of.
#[test]
fn moved_bytes_are_named_after_every_batch() {
    let large = Options { overlay_soft: 64 << 20, overlay_hard: 256 << 20, extent_target: 1 << 20, ..tiny_options() };
    let base = Base::empty(large).unwrap();
    let recorder = Arc::new(Recorder::new(&base.storage));
    let meta = Arc::new(RecordedMeta::new(&base.meta, recorder.clone(), false));
    let (store, _) = open(&base, recorder.clone(), meta.clone(), 5 << 40).unwrap();
    let ve = store.ve(VE).unwrap();
    let run = |op: &Op| ve.execute(op, Request::default()).unwrap();
    let ino = base.model.next_ino();
    let (name, owner) = (b"f".to_vec(), Owner::default());
    run(&Op::Create { parent: InodeNo::ROOT, name, mode: mode::IFREG | 0o600, rdev: 0, owner });
    let content = pattern(1, (PIECES * PIECE) as usize);
    run(&Op::Write { ino, offset: BEGIN, data: content.clone(), kill_priv: false });
    for piece in (0..PIECES).step_by(3) {
        run(&Op::Fallocate { ino, mode: FallocMode::PunchHole, offset: BEGIN + piece * PIECE, len: 2 * PIECE });
    }
    // A file that is being written to is not cleaned: this begins the next one.
    run(&Op::Write { ino, offset: BEGIN + PIECES * PIECE, data: pattern(2, 70_000), kill_priv: false });
    ve.publish().unwrap();
    let before = meta.states().len() - 1;
    let done = ve.collect(&Retention { steps: Vec::new() }).unwrap();
    assert!(done.moved >= PIECES / 3 * PIECE, "{done:?}");
    let disk = recorder.now();
    let states = meta.states();
    for (n, rows) in states.iter().enumerate().skip(before) {
        let (store, _) = open(&base, Arc::new(disk.snapshot()), Arc::new(rows.after_crash()), 6 << 40).unwrap();
        let ve = store.ve(VE).unwrap();
        for piece in (2..PIECES).step_by(3) {
            let (from, to) = ((piece * PIECE) as usize, ((piece + 1) * PIECE) as usize);
            let read = ve.read(ino, BEGIN + piece * PIECE, PIECE as usize);
            let read = read.unwrap_or_else(|e| panic!("after batch {n} of {before}..{}: {e}", states.len()));
            assert!(read == content[from..to], "piece {piece} after batch {n}");
        }
    }
}
