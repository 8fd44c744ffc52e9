//! Network namespaces for tests: hosts of their own on this machine, joined by one link each to a bridge that has a namespace of its own. They go
//! when this is dropped.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Distinguishes the networks of one process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network of hosts.
pub struct Network {
    tag: String,
    hosts: usize,
}

fn ip(args: &[&str]) -> Result<(), String> {
    let out = Command::new("ip").args(args).stdin(Stdio::null()).output().map_err(|e| format!("ip: {e}"))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim())),
    }
}

impl Network {
    /// So many hosts that reach each other; why there can be none here.
    pub fn new(hosts: usize) -> Result<Network, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("not root".into());
        }
        let tag = format!("a{:x}{:x}", std::process::id() & 0xf_ffff, NUMBER.fetch_add(1, Ordering::Relaxed));
        let network = Network { tag, hosts };
        // Where there can be a namespace at all, the rest has to work.
        ip(&["netns", "add", &network.name(0)])?;
        network.build().unwrap_or_else(|why| panic!("a network for a test: {why}"));
        Ok(network)
    }

    fn build(&self) -> Result<(), String> {
        let switch = self.name(0);
        ip(&["-n", &switch, "link", "add", "name", "sw0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "sw0", "up"])?;
        for host in 1..=self.hosts {
            let name = self.name(host);
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            let port = format!("p{host}");
            ip(&["-n", &name, "link", "add", "eth", "type", "veth", "peer", "name", &port, "netns", &switch])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "sw0", "up"])?;
            ip(&["-n", &name, "addr", "add", &format!("{}/24", self.address(host)), "dev", "eth"])?;
            ip(&["-n", &name, "link", "set", "eth", "up"])?;
        }
        Ok(())
    }

    /// A host's namespace; 0 is the switch's.
    fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.tag)
    }

    /// The address of a host, counted from 1.
    pub fn address(&self, host: usize) -> String {
        format!("10.99.0.{host}")
    }

    /// What a command is begun with to run on a host. The mount namespace stays this one.
    pub fn enter(&self, host: usize) -> Vec<String> {
        ["nsenter", &format!("--net=/run/netns/{}", self.name(host)), "--"].map(str::to_owned).to_vec()
    }

    /// Cuts a host off, or joins it again.
    pub fn set_link(&self, host: usize, up: bool) {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &self.name(0), "link", "set", &format!("p{host}"), state]).expect("a link to cut");
    }

    /// Takes a host's address away, or gives it back.
    pub fn set_address(&self, host: usize, there: bool) {
        let (name, address) = (self.name(host), format!("{}/24", self.address(host)));
        ip(&["-n", &name, "addr", if there { "add" } else { "del" }, &address, "dev", "eth"]).expect("an address");
    }

    /// What one host sends to another one goes nowhere, or arrives again. The other way nothing changes.
    pub fn set_mute(&self, from: usize, to: usize, mute: bool) {
        let (name, address) = (self.name(from), self.address(to));
        // A hardware address that no port of the switch has: what is sent there is nobody's.
        let nowhere = ["lladdr", "02:00:00:00:00:01", "nud", "permanent"];
        let what = if mute { "replace" } else { "del" };
        let mut args = vec!["-n", &name, "neigh", what, &address, "dev", "eth"];
        args.extend(nowhere.into_iter().filter(|_| mute));
        ip(&args).expect("a neighbour to forget");
    }

    /// Lets a host send so many kilobits a second.
    pub fn limit(&self, host: usize, kbit: u32) {
        self.shape(host, &["rate", &format!("{kbit}kbit"), "burst", "16kb", "latency", "50ms"]);
    }

    /// Drops what a host sends as soon as two full packets wait, at so many kilobits a second.
    pub fn drop_bursts(&self, host: usize, kbit: u32) {
        self.shape(host, &["rate", &format!("{kbit}kbit"), "burst", "3000", "limit", "3000"]);
    }

    fn shape(&self, host: usize, how: &[&str]) {
        let name = self.name(host);
        let args = [&["-n", &name, "qdisc", "replace", "dev", "eth", "root", "tbf"], how].concat();
        let out = Command::new("tc").args(args).output().expect("tc");
        assert!(out.status.success(), "tc: {}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..=self.hosts {
            let _ = ip(&["netns", "del", &self.name(host)]);
        }
    }
}
