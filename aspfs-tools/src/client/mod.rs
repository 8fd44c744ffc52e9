//! The client's side of the control socket, and what only a client can do: attach a mount in its own mount namespace, and detach it.

pub use aspfs_holder::mountinfo;
pub mod mounting;
pub mod options;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::control::conn::{Conn, ConnError, Frame};
use crate::control::frame::Kind;
use crate::control::message::{Done, Hello, PROTOCOL, Progress, Refusal, Request, Why};

/// Why the daemon did not do something.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached.
    #[error("no daemon at {}: {source}{}", .path.display(), hint(.source))]
    NoDaemon {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is of another release.
    #[error("the daemon ({release}) speaks protocol {found}, this program {PROTOCOL}")]
    Protocol {
        /// Its release.
        release: String,
        /// Its protocol.
        found: u32,
    },
    /// It said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The conversation broke off.
    #[error("talking to the daemon: {0}")]
    Conn(#[from] ConnError),
}

fn hint(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            " (is aspfsd running? --socket or ASPFS_SOCKET names its socket)"
        }
        io::ErrorKind::PermissionDenied => " (only root, or who runs the daemon, may command it)",
        _ => "",
    }
}

impl ClientError {
    /// Whether what was asked for makes no sense.
    pub fn is_usage(&self) -> bool {
        matches!(self, ClientError::Refused(Refusal { kind: Why::Usage, .. }))
    }
}

/// Hears of progress.
pub type OnProgress<'a> = &'a mut dyn FnMut(&Progress);

/// A conversation with the daemon: one request.
pub struct Client {
    conn: Conn,
}

impl Client {
    /// Connects and greets.
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let socket =
            UnixStream::connect(path).map_err(|source| ClientError::NoDaemon { path: path.to_owned(), source })?;
        let mut client = Client { conn: Conn::client(socket) };
        let hello: Hello = client.expect(Kind::Hello)?.parse()?;
        if hello.protocol != PROTOCOL {
            return Err(ClientError::Protocol { release: hello.release, found: hello.protocol });
        }
        client.conn.send_message(Kind::Hello, &Hello::ours())?;
        Ok(client)
    }

    /// Asks, and returns the answer and the rows that came before it.
    pub fn ask<R: DeserializeOwned, T: DeserializeOwned>(
        &mut self,
        request: &Request,
    ) -> Result<(Vec<R>, T), ClientError> {
        let mut rows = Vec::new();
        let answer = self.ask_with(request, &mut |_| {}, &mut |frame| {
            if frame.kind == Kind::Row {
                rows.push(frame.parse()?);
            }
            Ok(())
        })?;
        Ok((rows, answer))
    }

    /// Asks, and returns the answer.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        self.ask::<Done, T>(request).map(|(_, answer)| answer)
    }

    /// Asks; rows and data are given to `each` as they come.
    pub fn ask_with<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        progress: OnProgress<'_>,
        each: &mut dyn FnMut(Frame) -> Result<(), ClientError>,
    ) -> Result<T, ClientError> {
        self.conn.send_message(Kind::Request, request)?;
        self.hear(progress, each)
    }

    /// Begins a request that data follows.
    pub fn begin(&mut self, request: &Request) -> Result<(), ClientError> {
        Ok(self.conn.send_message(Kind::Request, request)?)
    }

    /// Sends data. A daemon that has closed the connection may have said why.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.conn.send(Kind::Data, bytes).or_else(|e| self.why(e))
    }

    /// Says that all data was sent, and returns the answer.
    pub fn finish<T: DeserializeOwned>(&mut self, progress: OnProgress<'_>) -> Result<T, ClientError> {
        self.conn.send(Kind::End, &[]).or_else(|e| self.why(e))?;
        self.hear(progress, &mut |_| Ok(()))
    }

    fn why(&mut self, e: ConnError) -> Result<(), ClientError> {
        match self.conn.recv() {
            Ok(Some(frame)) if frame.kind == Kind::Refusal => Err(frame.parse::<Refusal>()?.into()),
            _ => Err(e.into()),
        }
    }

    fn hear<T: DeserializeOwned>(
        &mut self,
        progress: OnProgress<'_>,
        each: &mut dyn FnMut(Frame) -> Result<(), ClientError>,
    ) -> Result<T, ClientError> {
        loop {
            let frame = self.conn.recv()?.ok_or(ConnError::Closed)?;
            match frame.kind {
                Kind::Answer => return Ok(frame.parse()?),
                Kind::Refusal => return Err(frame.parse::<Refusal>()?.into()),
                Kind::Progress => progress(&frame.parse()?),
                Kind::Row | Kind::Data => each(frame)?,
                got => return Err(ConnError::Unexpected { got, wanted: "an answer" }.into()),
            }
        }
    }

    /// A descriptor that came with the answer.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.conn.take_fd()
    }

    fn expect(&mut self, kind: Kind) -> Result<Frame, ClientError> {
        let frame = self.conn.recv()?.ok_or(ConnError::Closed)?;
        match frame.kind {
            Kind::Refusal => Err(frame.parse::<Refusal>()?.into()),
            got if got != kind => Err(ConnError::Unexpected { got, wanted: "a greeting" }.into()),
            _ => Ok(frame),
        }
    }
}
