//! The daemon's configuration: command line over file over defaults. The doc comments of [`Settings`] are the help text, the comments of
//! `aspfsd config`, and the reference in `docs/operations.md`, which a test compares.

mod retention;
mod writers;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use serde::Deserialize;
use vefs::ve::Retention;

pub use retention::parse_retention;
use retention::show_retention;
pub use writers::Naming;

use crate::units::{self, UnitError};

/// What can be set, on the command line as `--name`, in the file as `name = "value"`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// The store's folder. A missing or empty one is made a store
    #[arg(long, value_name = "DIR")]
    pub store: Option<String>,
    /// Where clients connect
    #[arg(long, value_name = "PATH", env = "ASPFS_SOCKET")]
    pub socket: Option<String>,
    /// Folder of the holder's socket; made with mode 0700, and refused when others may write to it
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<String>,
    /// The holder's program; empty: aspfs-holder beside this program
    #[arg(long, value_name = "PATH")]
    pub holder: Option<String>,
    /// Time between two commits of what programs did not fsync: what a power cut may cost
    #[arg(long, value_name = "DURATION")]
    pub tick: Option<String>,
    /// Time between two garbage collections; 0s: never
    #[arg(long, value_name = "DURATION")]
    pub gc_interval: Option<String>,
    /// Which versions stay readable, as AGE:EVERY by rising age: up to an age of 10 minutes all, up to 1 hour one a minute…
    #[arg(long, value_name = "STEPS")]
    pub retention: Option<String>,
    /// Time between the beginnings of two checks of everything that is stored; 0s: only when asked for
    #[arg(long, value_name = "DURATION")]
    pub scrub_period: Option<String>,
    /// Bytes a second that such a check reads at most
    #[arg(long, value_name = "SIZE")]
    pub scrub_rate: Option<String>,
    /// Free bytes on the store's file system that programs in VEs may not use
    #[arg(long, value_name = "SIZE")]
    pub reserve: Option<String>,
    /// A checkpoint of the metadata is made when the journals have grown by this much
    #[arg(long, value_name = "SIZE")]
    pub checkpoint_every: Option<String>,
    /// Where other nodes of the cluster are listened for, as ADDRESS:PORT; empty: every address, at the port that the node list has for this node
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where figures for Prometheus are to be had over HTTP, as 127.0.0.1:PORT; empty: nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<String>,
    /// Who says which node writes a VE: people (by the word that the old one is off), replicas (the required ones, by a majority) or etcd. The same on every node of a cluster
    #[arg(long, value_name = "WHO")]
    pub writers: Option<String>,
    /// Whether a replica that hears of no primary is promoted by-itself, by the replicas' or etcd's leave, or by-hand
    #[arg(long, value_name = "HOW")]
    pub fail_over: Option<String>,
    /// A program that is run when this node was promoted by itself, with the VE's identifier and the epoch; empty: none
    #[arg(long, value_name = "PROGRAM")]
    pub on_promotion: Option<String>,
    /// etcd's servers, like http://10.0.0.1:2379, with commas between: where they are named, they say who writes a VE
    #[arg(long, value_name = "URLS")]
    pub etcd: Option<String>,
    /// What etcd's keys begin with
    #[arg(long, value_name = "PREFIX")]
    pub etcd_prefix: Option<String>,
    /// How long replicas or etcd let a writer write at a time, 1s to 60s: a promotion waits for so long, and writers stop where too few of them answer for longer
    #[arg(long, value_name = "DURATION")]
    pub lease: Option<String>,
    /// Whether the threads that serve mounts look out for the next request for up to 60 µs before they sleep: yes or no
    #[arg(long, value_name = "WHETHER")]
    pub linger: Option<String>,
    /// Most clients at a time
    #[arg(long, value_name = "NUMBER")]
    pub connections: Option<String>,
    /// What is logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("configuration {}: {message}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// A value that makes no sense.
    #[error("{name}: {why}")]
    Value {
        /// Of which setting.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// No store was named.
    #[error("no store: say --store DIR, or store = \"DIR\" in the configuration")]
    NoStore,
}

/// Largest configuration file in bytes.
const FILE_MAX: u64 = 1 << 20;

impl Settings {
    /// What a daemon has that was told nothing.
    pub fn defaults() -> Settings {
        let s = |text: &str| Some(text.to_owned());
        Settings {
            store: s(""),
            socket: s(crate::control::DEFAULT_SOCKET),
            runtime_dir: s("/run/aspfs"),
            holder: s(""),
            tick: s("1s"),
            gc_interval: s("60s"),
            retention: s(&show_retention(&Retention::default())),
            scrub_period: s("7d"),
            scrub_rate: s("16M"),
            reserve: s("64M"),
            checkpoint_every: s("512M"),
            listen: s(""),
            metrics: s(""),
            writers: s("people"),
            fail_over: s("by-hand"),
            on_promotion: s(""),
            etcd: s(""),
            etcd_prefix: s("/aspfs"),
            lease: s("10s"),
            linger: s("yes"),
            connections: s("64"),
            log: s("info"),
        }
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Settings, ConfigError> {
        let at = |source| ConfigError::Read { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(at)?.len();
        if size > FILE_MAX {
            return Err(at(std::io::Error::other("longer than 1 MiB")));
        }
        let text = std::fs::read_to_string(path).map_err(at)?;
        toml::from_str(&text).map_err(|e| ConfigError::Parse { path: path.to_owned(), message: e.to_string() })
    }

    /// What is not set here is taken from `below`.
    pub fn over(self, below: Settings) -> Settings {
        Settings {
            store: self.store.or(below.store),
            socket: self.socket.or(below.socket),
            runtime_dir: self.runtime_dir.or(below.runtime_dir),
            holder: self.holder.or(below.holder),
            tick: self.tick.or(below.tick),
            gc_interval: self.gc_interval.or(below.gc_interval),
            retention: self.retention.or(below.retention),
            scrub_period: self.scrub_period.or(below.scrub_period),
            scrub_rate: self.scrub_rate.or(below.scrub_rate),
            reserve: self.reserve.or(below.reserve),
            checkpoint_every: self.checkpoint_every.or(below.checkpoint_every),
            listen: self.listen.or(below.listen),
            metrics: self.metrics.or(below.metrics),
            writers: self.writers.or(below.writers),
            fail_over: self.fail_over.or(below.fail_over),
            on_promotion: self.on_promotion.or(below.on_promotion),
            etcd: self.etcd.or(below.etcd),
            etcd_prefix: self.etcd_prefix.or(below.etcd_prefix),
            lease: self.lease.or(below.lease),
            linger: self.linger.or(below.linger),
            connections: self.connections.or(below.connections),
            log: self.log.or(below.log),
        }
    }

    /// Names and values of what is set, by name.
    fn values(&self) -> BTreeMap<&'static str, &str> {
        let all = [
            ("store", &self.store),
            ("socket", &self.socket),
            ("runtime-dir", &self.runtime_dir),
            ("holder", &self.holder),
            ("tick", &self.tick),
            ("gc-interval", &self.gc_interval),
            ("retention", &self.retention),
            ("scrub-period", &self.scrub_period),
            ("scrub-rate", &self.scrub_rate),
            ("reserve", &self.reserve),
            ("checkpoint-every", &self.checkpoint_every),
            ("listen", &self.listen),
            ("metrics", &self.metrics),
            ("writers", &self.writers),
            ("fail-over", &self.fail_over),
            ("on-promotion", &self.on_promotion),
            ("etcd", &self.etcd),
            ("etcd-prefix", &self.etcd_prefix),
            ("lease", &self.lease),
            ("linger", &self.linger),
            ("connections", &self.connections),
            ("log", &self.log),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }

    /// As a file, each setting with its comment.
    pub fn to_toml(&self) -> String {
        let values = self.values();
        let mut out = String::new();
        for (name, help, _) in reference_rows() {
            if let Some(value) = values.get(name.as_str()) {
                let value = toml::Value::String((*value).to_owned());
                let _ = writeln!(out, "# {help}.\n{name} = {value}\n");
            }
        }
        out
    }
}

/// Name, help and kind of value of every setting, in order.
fn reference_rows() -> Vec<(String, String, String)> {
    #[derive(clap::Parser)]
    struct Whole {
        #[command(flatten)]
        settings: Settings,
    }
    let command = Whole::command();
    let rows = command.get_arguments().filter_map(|arg| {
        let value = arg.get_value_names().and_then(|names| names.first()).map_or(String::new(), |n| n.to_string());
        Some((arg.get_long()?.to_owned(), arg.get_help()?.to_string(), value))
    });
    rows.filter(|(name, ..)| name != "help").collect()
}

/// The reference as a Markdown table: what stands in `docs/operations.md`.
pub fn reference() -> String {
    let defaults = Settings::defaults();
    let values = defaults.values();
    let mut out = String::from("| setting | value | default | what it does |\n|---|---|---|---|\n");
    for (name, help, kind) in reference_rows() {
        let default = values.get(name.as_str()).filter(|v| !v.is_empty()).map_or("".into(), |v| format!("`{v}`"));
        let _ = writeln!(out, "| `{name}` | {kind} | {default} | {help} |");
    }
    out
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store's folder.
    pub store: PathBuf,
    /// Where clients connect.
    pub socket: PathBuf,
    /// Folder of the holder's socket.
    pub runtime_dir: PathBuf,
    /// The holder's program.
    pub holder: PathBuf,
    /// Time between commits.
    pub tick: std::time::Duration,
    /// Time between collections.
    pub gc_interval: Option<std::time::Duration>,
    /// Which versions stay.
    pub retention: Retention,
    /// Time between two passes of the scrub.
    pub scrub_period: Option<std::time::Duration>,
    /// Bytes a second that it reads at most.
    pub scrub_rate: u64,
    /// Sizes of the store.
    pub options: vefs::Options,
    /// Where other nodes are listened for.
    pub listen: Option<std::net::SocketAddr>,
    /// Where figures are to be had.
    pub metrics: Option<std::net::SocketAddr>,
    /// Who names writers.
    pub naming: Naming,
    /// Whether readers of mounts linger.
    pub linger: bool,
    /// Most clients at a time.
    pub connections: usize,
    /// What is logged.
    pub log: tracing::level_filters::LevelFilter,
}

impl Config {
    /// Checks every value.
    pub fn new(settings: Settings) -> Result<Config, ConfigError> {
        let settings = settings.over(Settings::defaults());
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let bad = |name, e: &UnitError| ConfigError::Value { name, why: e.to_string() };
        let size = |name, value: &Option<String>| units::parse_size(&text(value)).map_err(|e| bad(name, &e));
        let duration = |name, value: &Option<String>| {
            units::parse_duration(&text(value)).map(std::time::Duration::from_millis).map_err(|e| bad(name, &e))
        };
        let store = text(&settings.store);
        if store.is_empty() {
            return Err(ConfigError::NoStore);
        }
        let tick = duration("tick", &settings.tick)?;
        if !(10..=60_000).contains(&tick.as_millis()) {
            return Err(ConfigError::Value { name: "tick", why: "must be from 10ms to 60s".into() });
        }
        let gc = duration("gc-interval", &settings.gc_interval)?;
        let scrub = duration("scrub-period", &settings.scrub_period)?;
        let connections = text(&settings.connections);
        let connections = connections.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| {
            ConfigError::Value { name: "connections", why: format!("{connections:?} is not a number from 1 to 1024") }
        })?;
        let linger = match text(&settings.linger).as_str() {
            "yes" => true,
            "no" => false,
            other => {
                return Err(ConfigError::Value { name: "linger", why: format!("{other:?} is neither yes nor no") });
            }
        };
        let address = |name, value: &Option<String>| match text(value).as_str() {
            "" => Ok(None),
            at => at.parse().map(Some).map_err(|_| ConfigError::Value {
                name,
                why: format!("{at:?} is no address with a port, like 127.0.0.1:7447"),
            }),
        };
        let log = text(&settings.log);
        let log = log.parse().map_err(|_| ConfigError::Value {
            name: "log",
            why: format!("{log:?} is none of error, warn, info, debug, trace and off"),
        })?;
        let options = vefs::Options {
            reserve: size("reserve", &settings.reserve)?,
            checkpoint_bytes: size("checkpoint-every", &settings.checkpoint_every)?,
            ..vefs::Options::default()
        };
        Ok(Config {
            store: store.into(),
            socket: text(&settings.socket).into(),
            runtime_dir: text(&settings.runtime_dir).into(),
            holder: holder_program(&text(&settings.holder)),
            tick,
            gc_interval: (!gc.is_zero()).then_some(gc),
            scrub_period: (!scrub.is_zero()).then_some(scrub),
            scrub_rate: size("scrub-rate", &settings.scrub_rate)?.max(1),
            retention: parse_retention(&text(&settings.retention))?,
            options,
            listen: address("listen", &settings.listen)?,
            metrics: address("metrics", &settings.metrics)?,
            naming: Naming::new(&settings)?,
            linger,
            connections,
            log,
        })
    }
}

/// The holder's program: the one named, or the one beside this program. The program may have been replaced since it was started; its folder
/// is still right.
fn holder_program(named: &str) -> PathBuf {
    if !named.is_empty() {
        return named.into();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("aspfs-holder")));
    beside.unwrap_or_else(|| "aspfs-holder".into())
}

#[cfg(test)]
mod tests;
