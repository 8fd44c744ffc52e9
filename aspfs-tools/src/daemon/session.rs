//! One client: who it is, the greeting, its one request, the answer.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::mounting::Wanted;
use super::refuse::{Answer, refusal};
use super::{Daemon, diff, files, templates, versions};
use crate::control::conn::{Conn, ConnError, Frame};
use crate::control::frame::Kind;
use crate::control::message::{Done, Hello, PROTOCOL, Progress, Refusal, Request, Why};

/// How long a client may take for its greeting and its request, and to read what it is sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that is being served.
pub struct Session<'a> {
    /// The node.
    pub daemon: &'a Arc<Daemon>,
    conn: Conn,
    /// The client cannot be told anything any more.
    gone: bool,
}

impl Session<'_> {
    /// Sends a row. An error means that the client is gone.
    pub fn row<T: serde::Serialize>(&mut self, row: &T) -> Answer<()> {
        self.deliver(|conn| conn.send_message(Kind::Row, row))
    }

    /// Sends many rows, each a frame of its own, and then the answer.
    pub fn rows<R: serde::Serialize, T: serde::Serialize>(&mut self, rows: &[R], answer: &T) -> Answer<()> {
        self.deliver(|conn| conn.send_rows(rows, answer))
    }

    /// Whether what takes long may go on: not when the daemon stops, which waits for it.
    pub fn may_go_on(&self) -> Answer<()> {
        match self.daemon.stopping.load(Ordering::Acquire) {
            true => Err(refusal(Why::Cancelled, "the daemon is stopping")),
            false => Ok(()),
        }
    }

    /// Sends bytes.
    pub fn data(&mut self, bytes: &[u8]) -> Answer<()> {
        self.deliver(|conn| conn.send(Kind::Data, bytes))
    }

    /// Says how far it is.
    pub fn progress(&mut self, progress: &Progress) -> Answer<()> {
        self.deliver(|conn| conn.send_message(Kind::Progress, progress))
    }

    /// The client's next frame, however long it takes. A client that went away is an error.
    pub fn next_frame(&mut self) -> Answer<Frame> {
        let received =
            self.conn.set_timeout(None, Some(PATIENCE)).map_err(ConnError::Io).and_then(|()| self.conn.recv());
        let gone = || refusal(Why::Cancelled, "the client went away");
        match received {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) | Err(ConnError::Closed) => {
                self.gone = true;
                Err(gone())
            }
            Err(e) => Err(refusal(Why::Usage, e.to_string())),
        }
    }

    /// Sends a message that ends the conversation, with descriptors.
    pub fn answer_with<T: serde::Serialize>(&mut self, message: &T, fds: &[std::os::fd::BorrowedFd<'_>]) -> Answer<()> {
        let body = serde_json::to_vec(message).map_err(|e| refusal(Why::Failed, e.to_string()))?;
        self.deliver(|conn| conn.send_with(Kind::Answer, &body, fds))
    }

    /// Sends the answer.
    pub fn answer<T: serde::Serialize>(&mut self, message: &T) -> Answer<()> {
        self.answer_with(message, &[])
    }

    fn deliver(&mut self, send: impl FnOnce(&mut Conn) -> Result<(), ConnError>) -> Answer<()> {
        send(&mut self.conn).map_err(|e| {
            self.gone = !matches!(e, ConnError::Frame(_) | ConnError::Body { .. });
            refusal(if self.gone { Why::Cancelled } else { Why::Failed }, e.to_string())
        })
    }
}

/// Serves a client to its end.
pub fn run(daemon: &Arc<Daemon>, socket: UnixStream) {
    let denied = crate::control::peer_is_allowed(&socket).err();
    let mut session = Session { daemon, conn: Conn::server(socket), gone: false };
    if let Err(e) = session.conn.set_timeout(Some(PATIENCE), Some(PATIENCE)) {
        tracing::warn!(error = %e, "a client's socket");
        return;
    }
    let result = match denied {
        Some(uid) => {
            tracing::warn!(uid, "a client without the right to command this daemon");
            Err(refusal(Why::Denied, "only root, or who runs the daemon, may command it"))
        }
        None => converse(&mut session),
    };
    if let Err(refused) = result {
        tracing::debug!(reason = %refused, "refused");
        if !session.gone {
            let _ = session.conn.send_message(Kind::Refusal, &refused);
        }
    }
}

fn converse(session: &mut Session<'_>) -> Answer<()> {
    session.deliver(|conn| conn.send_message(Kind::Hello, &Hello::ours()))?;
    let hello: Hello = receive(session, Kind::Hello, "a greeting")?;
    if hello.protocol != PROTOCOL {
        let text = format!(
            "client {} speaks protocol {}, this daemon ({}) {PROTOCOL}",
            hello.release,
            hello.protocol,
            crate::version()
        );
        return Err(refusal(Why::Usage, text));
    }
    let request: Request = receive(session, Kind::Request, "a request")?;
    tracing::debug!(?request, "asked");
    handle(session, request)
}

fn receive<T: serde::de::DeserializeOwned>(session: &mut Session<'_>, kind: Kind, wanted: &'static str) -> Answer<T> {
    let received = session.conn.recv().and_then(|frame| {
        let frame = frame.ok_or(ConnError::Closed)?;
        if frame.kind != kind {
            return Err(ConnError::Unexpected { got: frame.kind, wanted });
        }
        frame.parse()
    });
    received.map_err(|e| {
        session.gone = matches!(e, ConnError::Closed);
        refusal(Why::Usage, e.to_string())
    })
}

fn handle(session: &mut Session<'_>, request: Request) -> Answer<()> {
    let daemon = session.daemon.clone();
    match request {
        Request::Status {} => {
            let (rows, status) = daemon.status()?.split();
            session.rows(&rows, &status)
        }
        Request::VeCreate { ve, templates, change } => session.answer(&daemon.create(ve, &templates, &change)?),
        Request::VeList {} => {
            let names = daemon.template_names()?;
            for ve in daemon.store.list()? {
                match daemon.row_with(ve, &names) {
                    Ok(row) => session.row(&row)?,
                    // It was destroyed meanwhile.
                    Err(refused) if refused.kind == Why::NotFound => {}
                    Err(refused) => session.row(&daemon.damaged_row(ve, refused.message))?,
                }
            }
            session.answer(&Done {})
        }
        Request::VeShow { ve } => session.answer(&daemon.row(ve.0)?),
        Request::VeSet { ve, change } => session.answer(&daemon.set(ve, &change)?),
        Request::VeDestroy { ve } => daemon.destroy(ve).and_then(|()| session.answer(&Done {})),
        Request::TemplateImport { name, source } => templates::import(session, &name, &source),
        Request::TemplateList {} => templates::list(session),
        Request::TemplateShow { name } => session.answer(&daemon.template_row(&name)?),
        Request::TemplateVerify { name } => templates::verify(session, &name),
        Request::TemplateRemove { name } => daemon.template_remove(&name).and_then(|()| session.answer(&Done {})),
        Request::Mount { ve, version, dir, source, flags } => {
            let (version, source) = (version.as_ref(), source.as_deref());
            let wanted = Wanted { ve: ve.0, version, dir: &dir, source, flags: &flags };
            let (row, mount) = daemon.mount(&wanted)?;
            session.answer_with(&row, &[std::os::fd::AsFd::as_fd(&mount)])
        }
        Request::Mounted { ve, version } => session.answer(&daemon.mounted(ve.0, version.as_ref())?),
        Request::Unmounted { ve, version, wait_ms } => {
            let wait = Duration::from_millis(wait_ms.min(60_000));
            session.answer(&daemon.released(ve.0, version.as_deref(), wait))
        }
        Request::Versions { ve, branch } => {
            session.rows(&versions::versions(&daemon, ve, branch.as_deref())?, &Done {})
        }
        Request::Cat { ve, path, at } => files::cat(session, ve, path.bytes(), at.as_ref()),
        Request::Diff { ve, from, to } => diff::diff(session, ve, from.as_ref(), to.as_ref()),
        Request::HoldAdd { ve, name, at, onwards, owner } => {
            session.answer(&versions::hold(&daemon, ve, &name, at, onwards, &owner)?)
        }
        Request::HoldList { ve } => session.rows(&versions::holds(&daemon, ve)?, &Done {}),
        Request::HoldRelease { ve, name } => {
            versions::release(&daemon, ve, &name).and_then(|()| session.answer(&Done {}))
        }
        Request::Gc {} => session.answer(&daemon.collect()?),
        Request::Scrub { now } => {
            let mut scrub = daemon.scrub(now)?;
            let damage = std::mem::take(&mut scrub.damage);
            session.rows(&damage, &scrub)
        }
        Request::Stop { holder } => {
            daemon.end(holder)?;
            session.answer(&Done {})
        }
        request => replicated(session, &daemon, request),
    }
}

/// What is asked of clusters and replication.
fn replicated(session: &mut Session<'_>, daemon: &Daemon, request: Request) -> Answer<()> {
    match request {
        Request::ClusterInit { name, node, addresses } => {
            session.answer(&daemon.cluster_init(&name, &node, &addresses)?)
        }
        Request::ClusterJoin { bundle } => session.answer(&daemon.cluster_join(&bundle.0)?),
        Request::NodeAdd { name, addresses } => session.answer(&daemon.node_add(&name, &addresses)?),
        Request::NodeList {} => session.answer(&daemon.nodes()?),
        Request::NodeRevoke { node } => session.answer(&daemon.node_revoke(&node)?),
        Request::NodeRenew { node } => session.answer(&daemon.node_renew(&node)?),
        Request::NodeAddress { node, addresses } => session.answer(&daemon.node_addresses(&node, &addresses)?),
        Request::ReplicaAdd { ve, node, required, bandwidth } => {
            session.answer(&daemon.replica_add(ve, &node, required, bandwidth)?)
        }
        Request::ReplicaRemove { ve, node, node_is_off } => {
            daemon.replica_remove(ve, &node, node_is_off)?;
            session.answer(&Done {})
        }
        Request::ReplicaStatus { ve } => session.rows(&daemon.replica_status(ve)?, &Done {}),
        Request::PromoteStakes { ve } => session.answer(&daemon.stakes(ve)?),
        Request::Promote { ve, old_primary_is_off, force } => {
            session.answer(&daemon.promote(ve, old_primary_is_off, force)?)
        }
        Request::Switchover { ve, node } => session.answer(&daemon.switchover(ve, &node)?),
        Request::BranchList { ve } => session.answer(&daemon.branches(ve)?),
        Request::BranchRemove { ve, name } => {
            daemon.branch_remove(ve, &name)?;
            session.answer(&Done {})
        }
        other => Err(refusal(Why::Usage, format!("not understood: {other:?}"))),
    }
}

impl From<ConnError> for Refusal {
    fn from(e: ConnError) -> Refusal {
        refusal(Why::Failed, e.to_string())
    }
}
