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
use crate::control::message::{Done, Hello, PROTOCOL, Progress, Refusal, Request, Status, Why};
use crate::control::scrub::ScrubRow;

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

    /// How the daemon is.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        self.ask(&Request::Status {}).map(|(rows, answer)| Status::join(rows, answer))
    }

    /// How the scrub is; with `now` a pass begins.
    pub fn scrub(&mut self, now: bool) -> Result<ScrubRow, ClientError> {
        self.ask(&Request::Scrub { now }).map(|(damage, answer)| ScrubRow { damage, ..answer })
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

#[cfg(test)]
impl Client {
    /// What a client makes of a daemon that answers its request with these rows.
    pub(crate) fn that_hears<R, T, H>(rows: Vec<R>, answer: T, hear: impl FnOnce(&mut Client) -> H) -> H
    where
        R: serde::Serialize + Send + 'static,
        T: serde::Serialize + Send + 'static,
    {
        let (client, daemon) = UnixStream::pair().unwrap();
        let daemon = std::thread::spawn(move || {
            let mut conn = Conn::server(daemon);
            assert_eq!(conn.recv().unwrap().unwrap().kind, Kind::Request);
            conn.send_rows(&rows, &answer).unwrap();
        });
        let heard = hear(&mut Client { conn: Conn::client(client) });
        daemon.join().unwrap();
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{Counted, Id, MountRow};
    use crate::control::path;
    use crate::control::scrub::{DamageRow, ReaderRow};
    use vefs::ids::VeId;

    /// The status was one frame of at most 256 KiB: from some 1,260 mounts on that were read-only for a full disk it was refused, and with it
    /// `aspfs umount DIR` and `aspfs daemon stop --unmount`, which ask for it.
    #[test]
    fn a_status_of_thousands_of_mounts_arrives_whole() {
        let ve = |n: u32| Id(VeId(n + 1));
        let mount = |n: u32| MountRow {
            ve: ve(n),
            version: None,
            dir: format!("/srv/some/place/for/mounts/{n}"),
            source: ve(n).to_string(),
            device: (0, n),
            past: false,
        };
        let status = Status {
            release: "1".into(),
            pid: 1,
            store: "/s".into(),
            uptime: 1,
            ves: 3000,
            mounts: (0..3000).map(mount).collect(),
            counted: Counted::default(),
            holder: 2,
            free: 0,
            size: 1,
            tight: true,
            read_only: (0..3000).map(|n| (ve(n), "its journal met an error: no space left on device".into())).collect(),
        };
        assert!(serde_json::to_vec(&status).unwrap().len() > crate::control::frame::TEXT_MAX);
        let (rows, answer) = status.clone().split();
        assert_eq!(Client::that_hears(rows, answer, |client| client.status().unwrap()), status);
    }

    /// So was the scrub's: 256 damaged things, each with eight readers whose paths a VE's root had made as long as it liked.
    #[test]
    fn a_scrub_that_found_all_it_lists_arrives_whole() {
        let long = b"/\x01".repeat(100_000);
        let reader = ReaderRow { ve: Id(VeId(1)), ino: 7, path: Some(path::Path::shortened(&long)) };
        let damage = |n: u32| DamageRow {
            kind: "object".into(),
            name: n.to_string(),
            detail: "\x01".repeat(512),
            since: "now".into(),
            readers: vec![reader.clone(); 8],
        };
        let answer = ScrubRow {
            pass: 1,
            begun: None,
            ended: None,
            part: None,
            things: 1,
            bytes: 1,
            found: 256,
            repaired: 0,
            damage: vec![],
        };
        let rows: Vec<DamageRow> = (0..256).map(damage).collect();
        let scrub = Client::that_hears(rows.clone(), answer.clone(), |client| client.scrub(false).unwrap());
        assert_eq!(scrub, ScrubRow { damage: rows, ..answer });
    }
}
