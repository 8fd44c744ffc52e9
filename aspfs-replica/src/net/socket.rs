//! The UDP socket, with buffers that hold what arrives while the process is not running: with the kernel's defaults packets are lost on
//! fast links.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use rustix::net::sockopt;

use super::error::NetError;

/// Bytes of each of the socket's two buffers.
const BUFFER: usize = 4 << 20;

/// A socket bound to `listen`. `[::]` takes IPv4 as well, unless the system says otherwise.
pub(super) fn bind(listen: SocketAddr) -> Result<UdpSocket, NetError> {
    let named = |e: io::Error| NetError::Listen(io::Error::new(e.kind(), format!("{listen}: {e}")));
    let socket = UdpSocket::bind(listen).map_err(named)?;
    let (receive, send) = buffers(&socket).map_err(|e| named(e.into()))?;
    // socket(7): the kernel doubles the number that is set, for its own needs, and shows the double.
    if receive < 2 * BUFFER || send < 2 * BUFFER {
        tracing::warn!(
            receive = receive / 2,
            send = send / 2,
            "the socket's buffers are smaller than {BUFFER} bytes and will lose packets on a fast link; \
             set the sysctls net.core.rmem_max and net.core.wmem_max to {BUFFER} or more"
        );
    }
    Ok(socket)
}

/// Asks for large buffers: past the system's limits where that is allowed (CAP_NET_ADMIN), else up to them. What there is then.
fn buffers(socket: &UdpSocket) -> rustix::io::Result<(usize, usize)> {
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, BUFFER)?;
    }
    if sockopt::set_socket_send_buffer_size_force(socket, BUFFER).is_err() {
        sockopt::set_socket_send_buffer_size(socket, BUFFER)?;
    }
    Ok((sockopt::socket_recv_buffer_size(socket)?, sockopt::socket_send_buffer_size(socket)?))
}
