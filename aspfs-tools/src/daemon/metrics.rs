//! Figures for Prometheus, over HTTP on an address of this machine: one short answer to each connection, whatever it asks.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aspfs_replica::runtime::Word;
use parking_lot::Mutex;

use super::Daemon;
use crate::control::replication::ReplicaRow;

/// How long a client may take, from its connection to its answer: while it does, nobody else is answered.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of a request that are read.
const REQUEST_MAX: usize = 8192;

/// The listener; it ends when this is dropped, whatever a client does.
pub struct Metrics {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Whoever is being answered, to be shut down at a stop.
    client: Mutex<Option<TcpStream>>,
}

/// Starts answering.
pub fn start(daemon: Arc<Daemon>, address: SocketAddr) -> io::Result<Metrics> {
    serve(address, move || text(&daemon))
}

fn serve(address: SocketAddr, text: impl Fn() -> String + Send + 'static) -> io::Result<Metrics> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let shared = Arc::new(Shared::default());
    let of_thread = shared.clone();
    let thread = std::thread::Builder::new().name("aspfs-metrics".into()).spawn(move || {
        for client in listener.incoming() {
            let answered = client.and_then(|client| {
                *of_thread.client.lock() = Some(client.try_clone()?);
                // Behind that: a stop sees the client, or is seen here.
                if of_thread.stop.load(Ordering::Acquire) {
                    return Ok(());
                }
                answer(&text, Timed { client, until: Instant::now() + PATIENCE })
            });
            *of_thread.client.lock() = None;
            if of_thread.stop.load(Ordering::Acquire) {
                return;
            }
            if let Err(e) = answered {
                tracing::debug!(error = %e, "answering a metrics client");
            }
        }
    })?;
    tracing::info!(%address, "metrics");
    Ok(Metrics { shared, address, thread: Some(thread) })
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(client) = &*self.shared.client.lock() {
            let _ = client.shutdown(Shutdown::Both);
        }
        // Wakes the thread where it waits for a client.
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the metrics thread panicked");
        }
    }
}

/// A client that has until a moment for all that it says and hears: a limit for each read(2) alone would let it go on for ever, a byte at a time.
struct Timed {
    client: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.client.set_read_timeout(Some(self.left()?))?;
        self.client.read(buf)
    }
}

impl Write for Timed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.client.set_write_timeout(Some(self.left()?))?;
        self.client.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.client.flush()
    }
}

fn answer(text: &impl Fn() -> String, mut client: Timed) -> io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < REQUEST_MAX {
        match client.read(&mut part)? {
            0 => break,
            n => request.extend_from_slice(&part[..n]),
        }
    }
    let get = request.starts_with(b"GET /metrics ") || request.starts_with(b"GET / ");
    let (status, body) = if get { ("200 OK", text()) } else { ("404 Not Found", String::from("GET /metrics\n")) };
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
    of: Of,
}

/// What a figure is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// A VE, on the node that writes it.
    Ve,
    /// Each replica of a VE, on the node that writes it.
    Replica,
    /// A copy, on the node that has it.
    Copy,
}

const fn family(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    of: Of,
    value: fn(&ReplicaRow) -> Option<f64>,
) -> Family {
    Family { name, kind, help, value, of }
}

const STATES: [&str; 6] = ["protected", "lagging", "stalled", "unprotected", "fenced", "diverged"];

const FAMILIES: &[Family] = &[
    family(
        "aspfs_ve_exposure_seconds",
        "gauge",
        "Age of the oldest change that a required replica lacks; absent: unknown",
        Of::Ve,
        |r| r.exposure_ms.map(seconds),
    ),
    family(
        "aspfs_ve_lease_seconds",
        "gauge",
        "What is left of the lease that replicas or etcd gave; absent: nobody has to",
        Of::Ve,
        |r| r.lease_ms.map(seconds),
    ),
    family("aspfs_ve_window_seconds", "gauge", "The window of the VE", Of::Ve, |r| Some(seconds(r.window_ms))),
    family("aspfs_ve_breaches_total", "counter", "Times that the window was passed", Of::Ve, |r| {
        Some(r.breaches as f64)
    }),
    family("aspfs_ve_breach_seconds_total", "counter", "Time beyond the window", Of::Ve, |r| {
        Some(seconds(r.breach_ms))
    }),
    family("aspfs_ve_throttle_seconds_total", "counter", "Sum of the delays given to writers", Of::Ve, |r| {
        Some(seconds(r.throttle_ms))
    }),
    family("aspfs_ve_stall_seconds_total", "counter", "Time in which writers waited", Of::Ve, |r| {
        Some(seconds(r.stall_ms))
    }),
    family(
        "aspfs_replica_exposure_seconds",
        "gauge",
        "As the VE's, of one replica; absent: unknown",
        Of::Replica,
        |r| r.replica_exposure_ms.map(seconds),
    ),
    family("aspfs_replica_lag_bytes", "gauge", "Bytes that a replica lacks; absent: unknown", Of::Replica, |r| {
        r.behind_bytes.map(|b| b as f64)
    }),
    family(
        "aspfs_replica_lag_transactions",
        "gauge",
        "Transactions that a replica lacks; absent: unknown",
        Of::Replica,
        |r| r.behind_txns.map(|t| t as f64),
    ),
    family("aspfs_replica_connected", "gauge", "Whether there is a connection", Of::Replica, |r| {
        Some(f64::from(u8::from(r.connected)))
    }),
    family(
        "aspfs_replica_differences_total",
        "counter",
        "Comparisons of this copy with its primary's that found a difference",
        Of::Copy,
        |r| Some(r.differences as f64),
    ),
    family("aspfs_copy_connected", "gauge", "Whether who writes the VE ships to this copy", Of::Copy, |r| {
        Some(f64::from(u8::from(r.connected)))
    }),
    family("aspfs_replica_sent_bytes_total", "counter", "Bytes of frames sent", Of::Replica, |r| {
        Some(r.sent_bytes as f64)
    }),
];

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn text(daemon: &Daemon) -> String {
    let rows = daemon.replica_status(None).unwrap_or_default();
    let mut out = render(&rows);
    if let Ok(runtime) = daemon.replication() {
        render_strangers(&mut out, &runtime.strangers().all());
        render_certificates(&mut out, &runtime.cluster().list().list.nodes);
        let name = "aspfs_scrub_repaired_total";
        let help = "Damaged things that were repaired with the bytes of another node";
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", runtime.repaired());
    }
    out
}

/// When each node's certificate ends: with it the node is heard by no other one.
fn render_certificates(out: &mut String, nodes: &[aspfs_replica::cluster::Node]) {
    let name = "aspfs_node_certificate_end_timestamp_seconds";
    let _ = writeln!(out, "# HELP {name} Until when a node's certificate is good\n# TYPE {name} gauge");
    for node in nodes.iter().filter(|n| !n.revoked) {
        let _ = writeln!(out, "{name}{{node=\"{}\"}} {}", node.name, node.not_after());
    }
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
    let copies: Vec<&ReplicaRow> = rows.iter().filter(|r| r.role == "replica").collect();
    let mut out = String::new();
    for family in FAMILIES {
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", family.name, family.help, family.name, family.kind);
        let about = match family.of {
            Of::Ve => &firsts,
            Of::Replica => &led,
            Of::Copy => &copies,
        };
        for row in about {
            let Some(value) = (family.value)(row) else { continue };
            let node = match &row.node {
                Some(node) if family.of == Of::Replica => format!(",node=\"{node}\""),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Far beyond what anything here takes, and far below what it took.
    const GENEROUS: Duration = Duration::from_secs(30);

    fn metrics() -> Metrics {
        serve(SocketAddr::from(([127, 0, 0, 1], 0)), || "figures\n".into()).unwrap()
    }

    /// A client that says a byte now and then for as long as it is listened to.
    fn drip(address: SocketAddr) -> JoinHandle<()> {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET ").unwrap();
        std::thread::spawn(move || {
            while client.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        })
    }

    /// A copy that was found to differ from what it is a copy of was shown by `aspfs replica status` and by no metric: only the rows of VEs that are written
    /// here were looked at.
    #[test]
    fn a_node_that_follows_has_figures_too() {
        let row = |ve: u32, role: &str| ReplicaRow {
            role: role.into(),
            differences: 3,
            node: Some("node-1".into()),
            ..ReplicaRow::sample(ve)
        };
        let text = render(&[row(0x2A, "primary"), row(0x2B, "replica")]);
        for line in [
            "aspfs_replica_differences_total{ve=\"0000002B\"} 3",
            "aspfs_copy_connected{ve=\"0000002B\"} 1",
            "aspfs_replica_connected{ve=\"0000002A\",node=\"node-1\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert_eq!(text.lines().filter(|l| l.contains("0000002B")).count(), 2, "{text}");
    }

    /// Any local user held up everybody else's figures for hours, and the daemon's stop, with a byte every other second: the patience was for one
    /// read(2), not for the client.
    #[test]
    fn a_dripping_client_holds_up_nobody_for_long() {
        let metrics = metrics();
        let dripping = drip(metrics.address);
        let begin = Instant::now();
        let mut client = TcpStream::connect(metrics.address).unwrap();
        client.set_read_timeout(Some(GENEROUS)).unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("\r\n\r\nfigures\n"), "{text}");
        assert!(begin.elapsed() < GENEROUS);
        dripping.join().unwrap();
    }

    #[test]
    fn a_stop_waits_for_no_client() {
        let metrics = metrics();
        let dripping = [drip(metrics.address), drip(metrics.address)];
        let begin = Instant::now();
        drop(metrics);
        assert!(begin.elapsed() < GENEROUS);
        dripping.into_iter().for_each(|client| client.join().unwrap());
    }
}
