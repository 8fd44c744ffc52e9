use std::cell::RefCell;

use super::*;

/// A kernel that knows only which backing files there are.
#[derive(Default)]
struct Kernel {
    next: RefCell<u32>,
    live: RefCell<Vec<u32>>,
    /// Those from this number on are of after the last repair.
    current: u32,
}

impl Backings for Kernel {
    fn register(&self, _: Hash) -> Option<u32> {
        *self.next.borrow_mut() += 1;
        let id = *self.next.borrow();
        self.live.borrow_mut().push(id);
        Some(id)
    }

    fn is_current(&self, backing: u32) -> bool {
        backing >= self.current
    }

    fn release(&self, backing: u32, _: Hash) {
        let mut live = self.live.borrow_mut();
        let at = live.iter().position(|b| *b == backing).expect("released once");
        live.remove(at);
    }
}

struct World {
    fd: std::os::fd::OwnedFd,
    nodes: Nodes,
    kernel: Kernel,
    request: u64,
}

impl World {
    fn new() -> World {
        let fd = rustix::fs::memfd_create("kept", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let kept = Kept::read(fd.try_clone().unwrap()).unwrap().kept;
        kept.put_exchange(&crate::fuse::kept::Exchange { request: vec![1], reply: vec![1], salt: 0, fork: None })
            .unwrap();
        World { fd, nodes: Nodes::new(kept, Vec::new()), kernel: Kernel::default(), request: 0 }
    }

    /// The daemon is replaced.
    fn take_over(&mut self) {
        let left = Kept::read(self.fd.try_clone().unwrap()).unwrap();
        self.nodes = Nodes::new(left.kept, left.slots);
    }

    fn open(&mut self, node: NodeId, write: bool) -> Result<Opened, Refused> {
        self.request += 2;
        self.nodes.open(node, write, self.request, || Some(Hash::of(b"body")), &self.kernel)
    }

    fn again(&mut self, node: NodeId) -> Result<Opened, Refused> {
        self.nodes.open(node, false, self.request | RESENT, || Some(Hash::of(b"body")), &self.kernel)
    }

    fn release(&mut self, node: NodeId, passthrough: bool) {
        self.request += 2;
        self.nodes.release(node.ino(), passthrough, self.request, &self.kernel).unwrap();
    }
}

const FILE: NodeId = NodeId(42);

#[test]
fn opens_of_one_node_share_a_backing_file() {
    let mut w = World::new();
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(1))));
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(1))));
    w.release(FILE, true);
    w.release(FILE, true);
    // It is idle now, and found again.
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(1))));
    assert_eq!(w.kernel.live.borrow().len(), 1);
}

/// An object was found damaged and repaired, while its backing file was kept for the next one who opens the file: everybody read the damaged bytes
/// until the mount ended, since the good ones lie in another file under the same name (checks G13).
#[test]
fn a_repaired_object_is_opened_anew() {
    let mut w = World::new();
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(1))));
    w.kernel.current = 2;
    // Somebody reads it: all opens of a node have one backing file.
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(1))));
    w.release(FILE, true);
    w.release(FILE, true);
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(2))));
    assert_eq!(*w.kernel.live.borrow(), [2], "the former one was given back");
    w.take_over();
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(2))));
}

#[test]
fn cached_opens_keep_passthrough_away() {
    let mut w = World::new();
    assert!(matches!(w.open(FILE, true), Ok(Opened::Cached)));
    assert!(matches!(w.open(FILE, false), Ok(Opened::Cached)));
    w.release(FILE, false);
    w.release(FILE, false);
    // Whoever wrote it once may write it again.
    assert!(matches!(w.open(FILE, false), Ok(Opened::Cached)));
}

#[test]
fn a_write_that_meets_passthrough_moves_the_inode() {
    let mut w = World::new();
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(_))));
    assert!(matches!(w.open(FILE, true), Err(Refused::Stale { moved: true })));
    let second = w.nodes.node(FILE.ino());
    assert_ne!(second, FILE);
    assert_eq!(second.ino(), FILE.ino());
    assert!(w.nodes.is_retired(FILE) && !w.nodes.is_retired(second));
    assert!(matches!(w.open(second, true), Ok(Opened::Cached)));
    assert!(matches!(w.open(second, false), Ok(Opened::Cached)));
    assert!(matches!(w.open(FILE, false), Err(Refused::Stale { moved: false })));
    // The move outlives the daemon, and the end of all opens.
    w.take_over();
    w.release(FILE, true);
    w.release(second, false);
    w.release(second, false);
    assert_eq!(w.nodes.node(FILE.ino()), second);
    assert!(matches!(w.open(second, false), Ok(Opened::Cached)));
}

#[test]
fn a_truncation_counts_as_a_write() {
    let mut w = World::new();
    assert!(w.nodes.before_change(FILE).is_ok());
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(_))));
    assert!(matches!(w.nodes.before_change(FILE), Err(Refused::Stale { moved: true })));
    let second = w.nodes.node(FILE.ino());
    assert!(w.nodes.before_change(second).is_ok());
}

#[test]
fn a_request_that_comes_again_is_counted_once() {
    let mut w = World::new();
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(1))));
    w.take_over();
    assert!(matches!(w.again(FILE), Ok(Opened::Passthrough(1))));
    w.release(FILE, true);
    w.take_over();
    w.nodes.release(FILE.ino(), true, w.request | RESENT, &w.kernel).unwrap();
    assert!(!w.nodes.is_open(FILE.ino()));
    // Were it counted twice, an open would be missing now.
    assert!(matches!(w.open(FILE, false), Ok(Opened::Passthrough(1))));
    w.take_over();
    assert!(w.nodes.is_open(FILE.ino()));
}

/// The last one who had a file open closed it, somebody else opened it, and the daemon was killed before it had answered the close. The next daemon knew nothing
/// of that, and counted it against the other open: a file that was removed meanwhile could be erased under whoever read it (checks G7).
#[test]
fn a_close_that_comes_again_takes_no_other_open() {
    let mut w = World::new();
    let (none, node) = (|| None, NodeId(7));
    assert!(matches!(w.nodes.open(node, false, 2, none, &w.kernel), Ok(Opened::Cached)));
    w.nodes.release(node.ino(), false, 4, &w.kernel).unwrap();
    assert!(matches!(w.nodes.open(node, false, 6, none, &w.kernel), Ok(Opened::Cached)));
    w.take_over();
    w.nodes.release(node.ino(), false, 4 | RESENT, &w.kernel).unwrap();
    assert!(w.nodes.is_open(node.ino()));
    w.nodes.release(node.ino(), false, 8, &w.kernel).unwrap();
    assert!(!w.nodes.is_open(node.ino()));
}

/// An open with O_TRUNC came again, and its truncation failed: closing it was taken for the open's own coming again, and the file counted as open
/// for as long as it was mounted.
#[test]
fn an_open_that_fails_is_not_open_when_it_came_again() {
    let mut w = World::new();
    assert!(matches!(w.open(FILE, true), Ok(Opened::Cached)));
    w.take_over();
    assert!(matches!(w.again(FILE), Ok(Opened::Cached)));
    w.nodes.undo(FILE.ino(), false, w.request | RESENT, &w.kernel).unwrap();
    assert!(!w.nodes.is_open(FILE.ino()));
    // Once more: it is opened, and not taken for what failed.
    assert!(matches!(w.again(FILE), Ok(Opened::Cached)));
    assert!(w.nodes.is_open(FILE.ino()));
}

/// An open that took so long that others of the same file came and went, and pushed its request out.
#[test]
fn an_open_that_fails_late_is_not_open() {
    let mut w = World::new();
    assert!(matches!(w.open(FILE, true), Ok(Opened::Cached)));
    let first = w.request;
    for _ in 0..crate::fuse::kept::REMEMBERED {
        assert!(matches!(w.open(FILE, false), Ok(Opened::Cached)));
        w.release(FILE, false);
    }
    w.nodes.undo(FILE.ino(), false, first, &w.kernel).unwrap();
    assert!(!w.nodes.is_open(FILE.ino()));
}

/// Reading many files, which leaves nothing to remember, forgets no mark of writing: whoever reads a written file next would read it past the daemon, and
/// whoever writes it after that would have to move it.
#[test]
fn files_that_were_read_displace_no_marks() {
    let mut w = World::new();
    assert!(matches!(w.open(FILE, true), Ok(Opened::Cached)));
    w.release(FILE, false);
    for n in 100..100 + 4 * IDLE_MAX as u64 {
        w.request += 2;
        assert!(matches!(w.nodes.open(NodeId(n), false, w.request, || None, &w.kernel), Ok(Opened::Cached)));
        w.release(NodeId(n), false);
    }
    assert!(w.nodes.slots.len() <= 2 * RESTING + 2, "{}", w.nodes.slots.len());
    assert!(matches!(w.open(FILE, false), Ok(Opened::Cached)), "it was written once");
    // The last ones that were closed stay over a takeover, however many come after it.
    w.take_over();
    let last = NodeId(99 + 4 * IDLE_MAX as u64);
    assert!(w.nodes.slots.contains_key(&last.ino()));
    for n in 5000..5000 + RESTING as u64 {
        w.request += 2;
        assert!(matches!(w.nodes.open(NodeId(n), false, w.request, || None, &w.kernel), Ok(Opened::Cached)));
        w.release(NodeId(n), false);
    }
    assert!(w.nodes.slots.contains_key(&last.ino()));
}

#[test]
fn what_is_idle_is_bounded_and_backing_files_are_given_back() {
    let mut w = World::new();
    for n in 1..=3 * IDLE_MAX as u64 {
        let node = NodeId(n);
        assert!(matches!(w.open(node, false), Ok(Opened::Passthrough(_))));
        w.release(node, true);
    }
    assert!(w.nodes.slots.len() <= IDLE_MAX + 1);
    assert_eq!(w.kernel.live.borrow().len(), w.nodes.backings().count());
    // Slots are used again: the kept state does not grow either.
    assert!(w.nodes.next as usize <= IDLE_MAX + 2, "{}", w.nodes.next);
    let live: Vec<InodeNo> = w.nodes.slots.keys().copied().collect();
    for ino in live {
        w.nodes.gone(ino, &w.kernel).unwrap();
    }
    assert!(w.kernel.live.borrow().is_empty());
    w.take_over();
    assert!(w.nodes.slots.is_empty());
}
