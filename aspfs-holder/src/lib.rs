//! `aspfs-holder`: a small process that owns what must survive the daemon. For each mounted VE it keeps the open `/dev/fuse` and a memfd with
//! the mount's volatile state, and hands duplicates to the daemon that serves the store. When the daemon dies the mounts wait; the next
//! daemon finds the holder by its socket and goes on serving them.
//!
//! Invariants:
//! - **One daemon at a time**: a new one is heard when the process of the one before has ended, not only its socket.
//! - **It never waits for a VE**: it follows no path but `/dev/fuse`, makes mounts detached and never attaches them (the client does, in its
//!   own mount namespace), never unmounts, and has no descriptor of a mount. So nothing that a VE's server owes anybody can stop it.
//! - **It never touches a store** and holds no descriptor of one.
//! - A mount whose descriptor never reached a client is nowhere attached, and ends with the last descriptor of it.
//!
//! The socket lies in a folder that only its owner may enter; both sides ask the kernel who the other is.
//!
//! As `aspfs-holder push` the program is something else: see [`push`].
//!
//! This crate knows nothing of the file system, so that the program stays small. It is a library besides because the daemon speaks its protocol.

pub mod mount;
pub mod mountinfo;
pub mod packet;
mod peer;
pub mod protocol;
pub mod push;
mod run;

pub use peer::peer_is_allowed;
pub use run::{raise_descriptor_limit, socket_path};

/// The program `aspfs-holder`: holds, or does what its argument says.
pub fn main() -> std::io::Result<()> {
    match std::env::args_os().nth(1) {
        None => run::main(),
        Some(arg) if arg == "push" => push::main(),
        Some(_) => Err(std::io::Error::other("aspfsd starts this program, with no argument or with push")),
    }
}
