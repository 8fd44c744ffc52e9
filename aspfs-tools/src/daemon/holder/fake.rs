//! A holder for tests: a thread that answers as a script says.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// A store's identity.
const STORE: [u8; 16] = [7; 16];

/// What the script says to a question: packets, with descriptors.
pub type Said = Vec<(Reply, Vec<OwnedFd>)>;

/// One packet.
pub fn say(reply: Reply) -> Said {
    vec![(reply, Vec::new())]
}

/// A new mount.
pub fn made(row: Row) -> Said {
    vec![(Reply::Mount(row), vec![nothing(), nothing(), nothing()])]
}

/// A descriptor of nothing.
pub fn nothing() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// A mount's row.
pub fn row(ve: u32) -> Row {
    let (dir, source, flags) = ("/mnt".into(), format!("{ve:08X}"), Default::default());
    Row { ve, version: None, dir, source, flags, device: (0, 7) }
}

/// A link to a holder that lives in a folder and is asked by a script. A connection that ends is followed by the next one.
pub fn link(folder: &Path, patience: Duration, script: impl FnMut(Ask) -> Said + Send + 'static) -> Link {
    let path = socket_path(folder, &STORE);
    listen_at(&path, script);
    Link::open_with(folder, &STORE, &PathBuf::from("/no/program"), patience).unwrap()
}

fn listen_at(path: &Path, mut script: impl FnMut(Ask) -> Said + Send + 'static) {
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&listener, 8).unwrap();
    std::thread::spawn(move || {
        while let Ok(peer) = rustix::net::accept(&listener) {
            while let Ok(Some((ask, _))) = packet::recv::<Ask>(&peer) {
                let said = match ask {
                    Ask::Hello { .. } => say(Reply::Hello { protocol: PROTOCOL, pid: std::process::id() }),
                    ask => script(ask),
                };
                let send = |(reply, fds): &(Reply, Vec<OwnedFd>)| {
                    packet::send(&peer, reply, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>())
                };
                if said.iter().try_for_each(send).is_err() {
                    break;
                }
            }
        }
    });
}
