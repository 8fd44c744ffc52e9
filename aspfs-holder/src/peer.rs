//! Who is at the other end of a Unix socket.

use std::os::fd::AsFd;

/// Whether the user at the other end may command this process: root, or who runs it. If not, the user's number where the kernel tells it.
pub fn peer_is_allowed(socket: impl AsFd) -> Result<(), Option<u32>> {
    match rustix::net::sockopt::socket_peercred(socket) {
        Ok(peer) if peer.uid.is_root() || peer.uid == rustix::process::geteuid() => Ok(()),
        Ok(peer) => Err(Some(peer.uid.as_raw())),
        Err(_) => Err(None),
    }
}
