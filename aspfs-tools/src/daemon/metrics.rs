//! Figures for Prometheus, over HTTP on an address of this machine: one short answer to each connection, whatever it asks.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aspfs_replica::runtime::Word;

use super::Daemon;
use crate::control::replication::ReplicaRow;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of a request that are read.
const REQUEST_MAX: u64 = 8192;

/// The listener; it ends when this is dropped.
pub struct Metrics {
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// Starts answering.
pub fn start(daemon: Arc<Daemon>, address: SocketAddr) -> io::Result<Metrics> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::Builder::new().name("aspfs-metrics".into()).spawn(move || {
        for client in listener.incoming() {
            if stopped.load(Ordering::Acquire) {
                return;
            }
            if let Ok(client) = client
                && let Err(e) = answer(&daemon, client)
            {
                tracing::debug!(error = %e, "answering a metrics client");
            }
        }
    })?;
    tracing::info!(%address, "metrics");
    Ok(Metrics { stop, address, thread: Some(thread) })
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread.
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the metrics thread panicked");
        }
    }
}

fn answer(daemon: &Daemon, mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && (request.len() as u64) < REQUEST_MAX {
        match client.read(&mut part)? {
            0 => break,
            n => request.extend_from_slice(&part[..n]),
        }
    }
    let get = request.starts_with(b"GET /metrics ") || request.starts_with(b"GET / ");
    let (status, body) = if get { ("200 OK", text(daemon)) } else { ("404 Not Found", String::from("GET /metrics\n")) };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())
}

/// A family of figures.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&ReplicaRow) -> Option<f64>,
    /// Whether it is about a VE, or about each of its replicas.
    each: bool,
}

const fn family(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    each: bool,
    value: fn(&ReplicaRow) -> Option<f64>,
) -> Family {
    Family { name, kind, help, value, each }
}

const STATES: [&str; 6] = ["protected", "lagging", "stalled", "unprotected", "fenced", "diverged"];

const FAMILIES: &[Family] = &[
    family(
        "aspfs_ve_exposure_seconds",
        "gauge",
        "Age of the oldest change that a required replica lacks; absent: unknown",
        false,
        |r| r.exposure_ms.map(seconds),
    ),
    family(
        "aspfs_ve_lease_seconds",
        "gauge",
        "What is left of the lease that replicas or etcd gave; absent: nobody has to",
        false,
        |r| r.lease_ms.map(seconds),
    ),
    family("aspfs_ve_window_seconds", "gauge", "The window of the VE", false, |r| Some(seconds(r.window_ms))),
    family("aspfs_ve_breaches_total", "counter", "Times that the window was passed", false, |r| {
        Some(r.breaches as f64)
    }),
    family("aspfs_ve_breach_seconds_total", "counter", "Time beyond the window", false, |r| Some(seconds(r.breach_ms))),
    family("aspfs_ve_throttle_seconds_total", "counter", "Sum of the delays given to writers", false, |r| {
        Some(seconds(r.throttle_ms))
    }),
    family("aspfs_ve_stall_seconds_total", "counter", "Time in which writers waited", false, |r| {
        Some(seconds(r.stall_ms))
    }),
    family("aspfs_replica_exposure_seconds", "gauge", "As the VE's, of one replica; absent: unknown", true, |r| {
        r.replica_exposure_ms.map(seconds)
    }),
    family("aspfs_replica_lag_bytes", "gauge", "Bytes that a replica lacks; absent: unknown", true, |r| {
        r.behind_bytes.map(|b| b as f64)
    }),
    family(
        "aspfs_replica_lag_transactions",
        "gauge",
        "Transactions that a replica lacks; absent: unknown",
        true,
        |r| r.behind_txns.map(|t| t as f64),
    ),
    family("aspfs_replica_connected", "gauge", "Whether there is a connection", true, |r| {
        Some(f64::from(u8::from(r.connected)))
    }),
    family(
        "aspfs_replica_differences_total",
        "counter",
        "Comparisons of this copy with its primary's that found a difference",
        true,
        |r| (r.role == "replica").then_some(r.differences as f64),
    ),
    family("aspfs_replica_sent_bytes_total", "counter", "Bytes of frames sent", true, |r| Some(r.sent_bytes as f64)),
];

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn text(daemon: &Daemon) -> String {
    let rows = daemon.replica_status(None).unwrap_or_default();
    let mut out = render(&rows);
    if let Ok(runtime) = daemon.replication() {
        render_strangers(&mut out, &runtime.strangers().all());
        let name = "aspfs_scrub_repaired_total";
        let help = "Damaged things that were repaired with the bytes of another node";
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", runtime.repaired());
    }
    out
}

/// How often peers were turned away (promise G30).
fn render_strangers(out: &mut String, counts: &[(Word, u64)]) {
    let name = "aspfs_peer_unauthorised_total";
    let help = "Messages about a VE of members of the cluster that are none of its nodes, all refused";
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
    for (word, count) in counts {
        let _ = writeln!(out, "{name}{{message=\"{}\"}} {count}", word.name());
    }
}

/// The exposition of Prometheus' text format 0.0.4.
fn render(rows: &[ReplicaRow]) -> String {
    let led: Vec<&ReplicaRow> = rows.iter().filter(|r| r.role == "primary").collect();
    let mut firsts: Vec<&ReplicaRow> = Vec::new();
    for row in &led {
        if !firsts.iter().any(|f| f.ve == row.ve) {
            firsts.push(row);
        }
    }
    let mut out = String::new();
    for family in FAMILIES {
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", family.name, family.help, family.name, family.kind);
        for row in if family.each { &led } else { &firsts } {
            let Some(value) = (family.value)(row) else { continue };
            let node = match (&row.node, family.each) {
                (Some(node), true) => format!(",node=\"{node}\""),
                _ => String::new(),
            };
            let _ = writeln!(out, "{}{{ve=\"{}\"{node}}} {value}", family.name, row.ve);
        }
    }
    let _ = writeln!(out, "# HELP aspfs_ve_state Whether the VE is in this state\n# TYPE aspfs_ve_state gauge");
    for row in &firsts {
        for state in STATES {
            let is = u8::from(row.state == state);
            let _ = writeln!(out, "aspfs_ve_state{{ve=\"{}\",state=\"{state}\"}} {is}", row.ve);
        }
    }
    out
}
