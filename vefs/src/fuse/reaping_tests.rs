use super::*;
use crate::op::{Op, Owner, Reply};
use crate::store::Store;
use crate::store::bed::in_memory;
use crate::types::mode;
use crate::ve::Request;

/// A mount's part of a reaper whose thread is not there: what it was told is seen instead.
struct Bed {
    _store: Store,
    ve: Arc<Ve>,
    gate: Arc<RwLock<()>>,
    reaping: Arc<Reaping>,
    told: Receiver<Weak<Reaping>>,
}

fn bed() -> Bed {
    let (store, ve, _) = in_memory();
    let (sender, told) = channel();
    let gate = Arc::default();
    let reaping = Reaper(sender).reaping(ve.clone(), &gate);
    Bed { _store: store, ve, gate, reaping, told }
}

impl Bed {
    /// A removed file.
    fn removed(&self) -> InodeNo {
        let (parent, name) = (InodeNo::ROOT, b"f".to_vec());
        let (mode, owner) = (mode::IFREG | 0o600, Owner::default());
        let create = Op::Create { parent, name: name.clone(), mode, rdev: 0, owner };
        let Reply::Inode(ino, _) = self.ve.execute(&create, Request::default()).unwrap() else { panic!("no inode") };
        self.ve.execute(&Op::Unlink { parent, name }, Request::default()).unwrap();
        ino
    }

    fn forget(&self, files: usize) -> Vec<InodeNo> {
        let files: Vec<InodeNo> = (0..files).map(|_| self.removed()).collect();
        files.iter().for_each(|ino| self.reaping.forgotten(*ino));
        files
    }

    fn left(&self) -> Vec<InodeNo> {
        self.ve.orphans().unwrap()
    }
}

/// A record holds the VE's lock for all files in it, and every request of the VE waits for that.
#[test]
fn a_record_erases_the_oldest_and_not_more_than_a_few() {
    let bed = bed();
    let files = bed.forget(3 * AT_ONCE + 1);
    assert_eq!((bed.left(), bed.reaping.times()), (files.clone(), 0));
    assert!(bed.reaping.some());
    assert_eq!(bed.left(), files[AT_ONCE..]);
    bed.reaping.now();
    assert_eq!((bed.left(), bed.reaping.times()), (Vec::new(), 4));
    assert!(!bed.reaping.some());
}

/// Whoever removes faster than the thread erases waits for some of it, but not for 2,048 files at once.
#[test]
fn whoever_fills_the_queue_erases_some_of_it() {
    let bed = bed();
    let files = bed.forget(MOST - 1);
    assert_eq!((bed.left().len(), bed.reaping.times()), (MOST - 1, 0));
    let more = bed.forget(1);
    assert_eq!((bed.left().len(), bed.reaping.times()), (MOST - AT_ONCE, 1));
    assert_eq!((bed.left().first(), bed.left().last()), (files.get(AT_ONCE), more.last()));
    bed.forget(AT_ONCE - 1);
    assert_eq!(bed.reaping.times(), 1);
    bed.forget(1);
    assert_eq!((bed.left().len(), bed.reaping.times()), (MOST - AT_ONCE, 2));
}

/// The thread is told of a mount once, erases what waited then, and is told again of what comes later; of a mount that is shut it leaves everything.
#[test]
fn the_thread_erases_what_waits_unless_the_mount_is_shut() {
    let bed = bed();
    let files = bed.forget(AT_ONCE + 1);
    assert_eq!(bed.told.try_iter().count(), 1);
    let shut = bed.gate.write();
    bed.reaping.by_and_by();
    assert_eq!((bed.left(), bed.told.try_iter().count()), (files, 0));
    drop(shut);
    bed.reaping.by_and_by();
    assert_eq!((bed.left(), bed.reaping.times(), bed.told.try_iter().count()), (Vec::new(), 2, 0));
    bed.forget(1);
    assert_eq!(bed.told.try_iter().count(), 1);
}

/// A file that was forgotten while it is open is erased by whoever closes it last, once.
#[test]
fn a_file_that_is_open_waits_for_its_closing() {
    let bed = bed();
    let ino = bed.removed();
    bed.reaping.forgotten_open(ino);
    bed.reaping.now();
    assert_eq!(bed.left(), [ino]);
    assert!(bed.reaping.closed(ino) && !bed.reaping.closed(ino));
}
