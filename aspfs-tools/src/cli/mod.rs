//! The client `aspfs`: parses the command line, asks the daemon, prints the answer. Called as `mount.fuse.vefs` it is mount(8)'s helper
//! ([`helper`]).

pub mod args;
pub mod cluster_args;
pub mod diff;
mod helper;
mod manual;
mod output;
mod promotion;
mod replication;
mod show;
mod templates;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::Parser;

use crate::client::mounting::{self, MountError};
use crate::client::options::{OptionError, Options};
use crate::client::{Client, ClientError};
use crate::control::frame::Kind;
use crate::control::message::{At, Change, Collected, Done, FileRow, HoldRow, Id, MountRow, Request, VeRow, Version};
use crate::control::versions::{Named, Which};
use args::{Cli, Command, DaemonCommand, HoldCommand, MountArgs, SettingArgs, VeCommand};
use output::Output;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Mounting or unmounting.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Mount options.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A template's source.
    #[error(transparent)]
    Source(#[from] crate::template::source::SourceError),
    /// Asked for wrongly.
    #[error("{0}")]
    Usage(String),
    /// Writing what was found.
    #[error("{0}: {1}")]
    Write(String, io::Error),
    /// Some of several things were not done; each was reported.
    #[error("{0}")]
    Partly(String),
}

impl Failure {
    /// The exit status: 2 for what was asked for wrongly, else 1.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Option(_) => 2,
            Failure::Client(e) | Failure::Mount(MountError::Client(e)) if e.is_usage() => 2,
            _ => 1,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Write("standard output".into(), e)
    }
}

/// Runs the program; returns its exit status.
pub fn main(args: Vec<OsString>) -> u8 {
    let name = args.first().map(|a| Path::new(a).file_name().unwrap_or_default().to_owned()).unwrap_or_default();
    let result = match name.as_bytes() {
        b"mount.fuse.vefs" | b"mount.vefs" => helper::run(args),
        _ => run(&Cli::parse_from(args)),
    };
    match result {
        Ok(()) => 0,
        // Whoever read our output has seen enough.
        Err(Failure::Write(_, e)) if e.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(e) => {
            eprintln!("{}: {e}", name.to_string_lossy());
            e.status()
        }
    }
}

/// The present conversation partner.
struct Node<'a> {
    socket: &'a Path,
    out: Output,
}

impl Node<'_> {
    fn call<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        Ok(Client::connect(self.socket)?.call(request)?)
    }

    fn rows<R: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<Vec<R>, Failure> {
        Ok(Client::connect(self.socket)?.ask::<R, Done>(request)?.0)
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let node = Node { socket: &cli.socket, out: Output::new(cli.json) };
    match &cli.command {
        Command::Status => {
            let status = Client::connect(node.socket)?.status()?;
            Ok(node.out.print(&status, || show::status(&status))?)
        }
        Command::Ve(command) => ve(&node, command),
        Command::Template(command) => templates::run(&node, command),
        Command::Mount(args) => mount(&node, args),
        Command::Umount(args) => Ok(mounting::umount(&cli.socket, &args.what, args.lazy)?),
        Command::Versions { what } => {
            let branch = match &what.version {
                None => None,
                Some(Which::Name(branch)) => Some(branch.clone()),
                Some(_) => {
                    return Err(Failure::Usage("of a VE or of a branch, VEID@BRANCH, versions are listed".into()));
                }
            };
            let rows: Vec<Version> = node.rows(&Request::Versions { ve: Id(what.ve), branch })?;
            Ok(node.out.table(&rows, show::VERSION_HEAD, show::version)?)
        }
        Command::Cat { what, path, at } => cat(&node, what, path, at.at),
        Command::Diff(args) => diff::run(&node, args),
        Command::Hold(command) => hold(&node, command),
        Command::Cluster(command) => replication::cluster(&node, command),
        Command::Node(command) => replication::nodes(&node, command),
        Command::Replica(command) => replication::replicas(&node, command),
        Command::Promote(args) => promotion::promote(&node, args),
        Command::Switchover(args) => promotion::switchover(&node, args),
        Command::Branch(command) => replication::branches(&node, command),
        Command::Gc => {
            let done: Collected = node.call(&Request::Gc {})?;
            Ok(node.out.print(&done, || show::collected(&done))?)
        }
        Command::Scrub { now } => {
            let scrub = Client::connect(node.socket)?.scrub(*now)?;
            Ok(node.out.print(&scrub, || show::scrub(&scrub))?)
        }
        Command::Daemon(DaemonCommand::Stop { unmount }) => stop(&node, *unmount),
        Command::Completions { shell } => manual::completions(*shell),
        Command::Man { dir } => manual::pages(dir),
    }
}

fn ve(node: &Node<'_>, command: &VeCommand) -> Result<(), Failure> {
    let row: VeRow = match command {
        VeCommand::Create { ve, template, settings } => {
            if template.iter().any(String::is_empty) {
                return Err(Failure::Usage("a template's name is empty".into()));
            }
            let change = change(settings);
            node.call(&Request::VeCreate { ve: Id(*ve), templates: template.clone(), change })?
        }
        VeCommand::List => {
            let rows: Vec<VeRow> = node.rows(&Request::VeList {})?;
            return Ok(node.out.table(&rows, show::VE_HEAD, show::ve_line)?);
        }
        VeCommand::Show { ve } => node.call(&Request::VeShow { ve: Id(*ve) })?,
        VeCommand::Set { ve, settings } => {
            let change = change(settings);
            if change == Change::default() {
                return Err(Failure::Usage(
                    "nothing to set: say --quota, --inodes, --history, --window or --at-window".into(),
                ));
            }
            node.call(&Request::VeSet { ve: Id(*ve), change })?
        }
        VeCommand::Destroy { ve } => {
            let done: Done = node.call(&Request::VeDestroy { ve: Id(*ve) })?;
            return Ok(node.out.print(&done, String::new)?);
        }
    };
    Ok(node.out.print(&row, || show::ve(&row))?)
}

fn change(settings: &SettingArgs) -> Change {
    Change {
        quota: settings.quota,
        inodes: settings.inodes,
        history: settings.history,
        window_ms: settings.window,
        at_window: settings.at_window,
        priority: settings.priority,
    }
}

fn mount(node: &Node<'_>, args: &MountArgs) -> Result<(), Failure> {
    let wanted = || args.options.iter().map(String::as_str);
    let options = Options::parse(wanted())?;
    let socket = options.socket.as_deref().unwrap_or(node.socket);
    if options.remount {
        // mount(8) does so before it calls its helper.
        let present = mounting::present(&args.dir)?;
        let options = Options::parse(std::iter::once(present.as_str()).chain(wanted()))?;
        return Ok(mounting::remount(&args.dir, &options)?);
    }
    let row: MountRow = mounting::mount(socket, &args.what, &args.dir, &options)?;
    Ok(node.out.print(&row, String::new)?)
}

fn cat(node: &Node<'_>, what: &Named, path: &Path, at: Option<At>) -> Result<(), Failure> {
    let (ve, at) = match (&what.version, at) {
        (Some(_), Some(_)) => return Err(Failure::Usage("one version is wanted: say VEID@VERSION, or --at".into())),
        (version, at) => (Id(what.ve), version.clone().or(at.map(Which::At))),
    };
    let path = crate::control::path::Path::new(path.as_os_str().as_bytes());
    let mut out = io::stdout().lock();
    let mut failed = None;
    let answer: Result<Done, ClientError> =
        Client::connect(node.socket)?.ask_with(&Request::Cat { ve, path, at }, &mut |_| {}, &mut |frame| {
            match frame.kind {
                Kind::Row => drop(frame.parse::<FileRow>()?),
                _ => {
                    out.write_all(&frame.body).map_err(|e| {
                        let kind = e.kind();
                        failed = Some(e);
                        crate::control::conn::ConnError::Io(kind.into())
                    })?;
                }
            }
            Ok(())
        });
    if let Some(e) = failed {
        return Err(e.into());
    }
    answer?;
    Ok(out.flush()?)
}

fn hold(node: &Node<'_>, command: &HoldCommand) -> Result<(), Failure> {
    match command {
        HoldCommand::Add { ve, name, at, onwards, owner } => {
            let request = Request::HoldAdd {
                ve: Id(*ve),
                name: name.clone(),
                at: at.at,
                onwards: *onwards,
                owner: owner.clone(),
            };
            let row: HoldRow = node.call(&request)?;
            Ok(node.out.print(&row, || show::hold(&row).join("  ") + "\n")?)
        }
        HoldCommand::List { ve } => {
            let rows: Vec<HoldRow> = node.rows(&Request::HoldList { ve: Id(*ve) })?;
            Ok(node.out.table(&rows, show::HOLD_HEAD, show::hold)?)
        }
        HoldCommand::Release { ve, name } => {
            let done: Done = node.call(&Request::HoldRelease { ve: Id(*ve), name: name.clone() })?;
            Ok(node.out.print(&done, String::new)?)
        }
    }
}

/// Stops the daemon; with `unmount` every VE is unmounted before, and if one cannot be, nothing is stopped.
fn stop(node: &Node<'_>, unmount: bool) -> Result<(), Failure> {
    if unmount {
        let status = Client::connect(node.socket)?.status()?;
        let mut failed = 0;
        for row in &status.mounts {
            let outcome = mounting::umount_row(node.socket, row, false);
            // What somebody else unmounts at the moment ends while we look.
            if let Err(e) = outcome.or_else(|e| if e.is_gone() { Ok(()) } else { Err(e) }) {
                eprintln!("aspfs: VE {}: {e}", row.name());
                failed += 1;
            }
        }
        if failed > 0 {
            return Err(Failure::Partly(format!(
                "{failed} of {} mounts stay; the daemon runs on",
                status.mounts.len()
            )));
        }
    }
    let done: Done = node.call(&Request::Stop { holder: unmount })?;
    Ok(node.out.print(&done, String::new)?)
}
