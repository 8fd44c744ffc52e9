//! One connection of the control socket, of either side: whole frames in, whole frames out, descriptors beside them.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::frame::{self, FrameError, HEADER_LEN, Kind};

/// Most descriptors beside one frame.
const FDS_MAX: usize = 4;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    /// The other side went away.
    #[error("the connection was closed")]
    Closed,
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A body that is no message.
    #[error("a {kind:?} frame that cannot be understood: {source}")]
    Body {
        /// Of which kind.
        kind: Kind,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A frame that does not belong here.
    #[error("a {got:?} frame where {wanted} was expected")]
    Unexpected {
        /// Its kind.
        got: Kind,
        /// What should have come.
        wanted: &'static str,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A frame.
#[derive(Debug)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its body.
    pub body: Vec<u8>,
}

impl Frame {
    /// The body as a message of this type.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, ConnError> {
        serde_json::from_slice(&self.body).map_err(|source| ConnError::Body { kind: self.kind, source })
    }
}

/// One end of a connection.
pub struct Conn {
    socket: UnixStream,
    fds: VecDeque<OwnedFd>,
    /// Whether descriptors that come are kept. The daemon wants none: the kernel then closes them.
    takes_fds: bool,
}

impl Conn {
    /// The client's end, which may be given descriptors.
    pub fn client(socket: UnixStream) -> Conn {
        Conn { socket, fds: VecDeque::new(), takes_fds: true }
    }

    /// The daemon's end.
    pub fn server(socket: UnixStream) -> Conn {
        Conn { socket, fds: VecDeque::new(), takes_fds: false }
    }

    /// The socket itself, to wait on or to shut down.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// How long sending and receiving may wait for the other side; `None`: for ever.
    pub fn set_timeout(&self, read: Option<Duration>, write: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(read)?;
        self.socket.set_write_timeout(write)
    }

    /// The next descriptor that came beside a frame.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    /// The next frame; `None` when the other side closed the connection between two frames.
    pub fn recv(&mut self) -> Result<Option<Frame>, ConnError> {
        let mut head = [0; HEADER_LEN];
        match self.fill(&mut head)? {
            0 => return Ok(None),
            HEADER_LEN => {}
            _ => return Err(ConnError::Closed),
        }
        let (kind, len) = frame::parse_header(head)?;
        let mut body = vec![0; len];
        if self.fill(&mut body)? < len {
            return Err(ConnError::Closed);
        }
        Ok(Some(Frame { kind, body }))
    }

    /// Fills the buffer; less only at the end of the stream.
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let room = if self.takes_fds { &mut space[..] } else { &mut [] };
            let mut control = RecvAncillaryBuffer::new(room);
            let mut io = [IoSliceMut::new(&mut buf[done..])];
            let got = match recvmsg(&self.socket, &mut io, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::CONNRESET) => 0,
                other => other?.bytes,
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    // More than can belong to one frame are closed by being dropped.
                    self.fds.extend(fds);
                    self.fds.truncate(FDS_MAX);
                }
            }
            if got == 0 {
                break;
            }
            done += got;
        }
        Ok(done)
    }

    /// Sends a frame.
    pub fn send(&mut self, kind: Kind, body: &[u8]) -> Result<(), ConnError> {
        self.send_with(kind, body, &[])
    }

    /// Sends a message as JSON.
    pub fn send_message<T: serde::Serialize>(&mut self, kind: Kind, message: &T) -> Result<(), ConnError> {
        let body = serde_json::to_vec(message).map_err(|source| ConnError::Body { kind, source })?;
        self.send(kind, &body)
    }

    /// Sends rows, each in a frame of its own, and then the answer: a list may be longer than any frame.
    pub fn send_rows<R: serde::Serialize, T: serde::Serialize>(
        &mut self,
        rows: &[R],
        answer: &T,
    ) -> Result<(), ConnError> {
        rows.iter().try_for_each(|row| self.send_message(Kind::Row, row))?;
        self.send_message(Kind::Answer, answer)
    }

    /// Sends a frame with descriptors beside it.
    pub fn send_with(&mut self, kind: Kind, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ConnError> {
        let head = frame::header(kind, body.len())?;
        let mut done = 0;
        let total = HEADER_LEN + body.len();
        while done < total {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if done == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(ConnError::Io(io::Error::other("too many descriptors beside a frame")));
            }
            let io =
                [IoSlice::new(&head[done.min(HEADER_LEN)..]), IoSlice::new(&body[done.saturating_sub(HEADER_LEN)..])];
            match sendmsg(self.socket.as_fd(), &io, &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Err(ConnError::Closed),
                other => done += other.map_err(io::Error::from)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn pair() -> (Conn, Conn) {
        let (a, b) = UnixStream::pair().unwrap();
        (Conn::client(a), Conn::server(b))
    }

    #[test]
    fn frames_of_every_size_arrive_whole() {
        let (mut client, mut server) = pair();
        let big = vec![7; frame::DATA_MAX];
        let sender = std::thread::spawn(move || {
            client.send(Kind::End, &[]).unwrap();
            client.send(Kind::Data, &big).unwrap();
            client.send(Kind::Data, b"x").unwrap();
        });
        assert_eq!(server.recv().unwrap().unwrap().kind, Kind::End);
        assert_eq!(server.recv().unwrap().unwrap().body.len(), frame::DATA_MAX);
        assert_eq!(server.recv().unwrap().unwrap().body, b"x");
        sender.join().unwrap();
        assert!(server.recv().unwrap().is_none());
    }

    #[test]
    fn a_descriptor_arrives_beside_its_frame_and_only_at_the_client() {
        let (mut client, mut server) = pair();
        let (mut a, b) = UnixStream::pair().unwrap();
        server.send_with(Kind::Answer, b"{}", &[b.as_fd()]).unwrap();
        client.send_with(Kind::Request, b"{}", &[b.as_fd()]).unwrap();
        drop(b);
        assert_eq!(client.recv().unwrap().unwrap().kind, Kind::Answer);
        let mut b = UnixStream::from(client.take_fd().unwrap());
        b.write_all(b"hello").unwrap();
        let mut got = [0; 5];
        a.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        assert_eq!(server.recv().unwrap().unwrap().kind, Kind::Request);
        assert!(server.take_fd().is_none(), "the daemon takes no descriptors");
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut server = Conn::server(b);
        (&a).write_all(&[Kind::Request as u8, 10, 0, 0, 0, b'{']).unwrap();
        drop(a);
        assert!(matches!(server.recv(), Err(ConnError::Closed)));
    }
}
