//! Telling the kernel to forget what it did not change itself. One thread for all mounts does it: it holds no lock and serves no request,
//! since the kernel may take locks that a request is waiting under.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier};

use super::nodes::NodeId;

/// Something that the kernel shall forget.
pub struct Forget {
    notifier: Notifier,
    node: NodeId,
}

/// The thread; it ends when nobody can send to it any more.
pub fn start() -> std::io::Result<Sender<Forget>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("vefs-invalidate".into()).spawn(move || serve(&receiver))?;
    Ok(sender)
}

fn serve(receiver: &Receiver<Forget>) {
    while let Ok(Forget { notifier, node }) = receiver.recv() {
        // A negative offset: the attributes only.
        if let Err(e) = notifier.inval_inode(INodeNo(node.0), -1, 0) {
            tracing::debug!(node = node.0, error = %e, "invalidating");
        }
    }
}

/// A mount's way to the thread.
pub struct Invalidator {
    sender: Sender<Forget>,
    notifier: Arc<OnceLock<Notifier>>,
}

impl Invalidator {
    /// `notifier` is there as soon as the session is.
    pub fn new(sender: Sender<Forget>, notifier: Arc<OnceLock<Notifier>>) -> Invalidator {
        Invalidator { sender, notifier }
    }

    /// The kernel shall ask for a node's attributes again.
    pub fn attributes(&self, node: NodeId) {
        if let Some(notifier) = self.notifier.get() {
            // Without the thread the process is ending.
            let _ = self.sender.send(Forget { notifier: notifier.clone(), node });
        }
    }
}
