//! Three nodes whose replicas name the writer, a program on each that writes whenever it may, and somebody who kills daemons, cuts links, stops
//! processes, slows lines and hands the VE over, drawn by a seed. Afterwards all is mended, and what was answered is held against what there is.
//!
//! `ASPFS_CHAOS=SECONDS` or `SECONDS:SEED` makes it longer, or another one. What a seed draws is the same each time; what comes of it depends on the
//! machine.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use aspfs_tests::node::programs;
use rustix::process::{Pid, Signal, kill_process};

use crate::setup::{Cluster, VE, boot};
use crate::tries::{Answer, Tries, record};

/// The window, and how much later than it a clock outside may see a change.
const WINDOW: Duration = Duration::from_secs(4);
const SLACK: Duration = Duration::from_millis(100);
/// For how long without being told.
const SECONDS: u64 = 40;
/// Lines of each node's log that are shown when it failed.
const LINES: usize = 200;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        // xorshift64*: reproducible, nothing else is asked of it.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

/// What is wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ill {
    Killed,
    Ended,
    Cut,
    Stopped,
    /// Kilobits a second.
    Slow,
    /// What it sends in bursts is lost.
    Lossy,
    /// It hears the others, and they do not hear it.
    Mute,
    /// They hear it, and it hears nobody.
    Deaf,
}

struct Bed {
    cluster: Cluster<3>,
    ill: [Option<Ill>; 3],
    /// Times the VE may have gone to another node, by a person's word.
    handed_over: usize,
}

impl Bed {
    fn signal(&self, n: usize, signal: Signal) {
        kill_process(Pid::from_raw(self.cluster.nodes[n].pid() as i32).unwrap(), signal).unwrap();
    }

    /// What it sends, or what is sent to it, goes nowhere.
    fn one_way(&self, n: usize, out: bool, cut: bool) {
        for other in (0..3).filter(|other| *other != n) {
            let (from, to) = if out { (n, other) } else { (other, n) };
            self.cluster.network.set_mute(from + 1, to + 1, cut);
        }
    }

    fn hurt(&mut self, n: usize, ill: Ill) {
        eprintln!("{:?} node {}: {ill:?}", boot(), n + 1);
        match ill {
            Ill::Killed => self.cluster.nodes[n].kill(),
            Ill::Ended => assert_eq!(self.cluster.nodes[n].term(), 0, "a daemon that was told to end"),
            Ill::Cut => self.cluster.network.set_link(n + 1, false),
            Ill::Stopped => self.signal(n, Signal::STOP),
            Ill::Slow => self.cluster.network.limit(n + 1, 300),
            Ill::Lossy => self.cluster.network.drop_bursts(n + 1, 4000),
            Ill::Mute => self.one_way(n, true, true),
            Ill::Deaf => self.one_way(n, false, true),
        }
        self.ill[n] = Some(ill);
    }

    fn heal(&mut self, n: usize) {
        let Some(ill) = self.ill[n].take() else { return };
        eprintln!("{:?} node {}: {ill:?} no more", boot(), n + 1);
        match ill {
            Ill::Killed | Ill::Ended => self.cluster.nodes[n].up(),
            Ill::Cut => self.cluster.network.set_link(n + 1, true),
            Ill::Stopped => self.signal(n, Signal::CONT),
            Ill::Slow | Ill::Lossy => self.cluster.network.limit(n + 1, 1_000_000),
            Ill::Mute => self.one_way(n, true, false),
            Ill::Deaf => self.one_way(n, false, false),
        }
    }

    /// Whoever writes it is told to hand it over, if it is well. It may refuse.
    fn hand_over(&mut self, to: usize) {
        for n in (0..3).filter(|n| *n != to && self.ill[*n].is_none()) {
            let said = self.cluster.nodes[n].aspfs(&["switchover", VE, &format!("node-{}", to + 1)]);
            eprintln!("{:?} from {} to {}: {}", boot(), n + 1, to + 1, said.err.trim());
            // It may have happened though it was not heard of.
            self.handed_over += 1;
        }
    }

    /// One thing happens.
    fn step(&mut self, rng: &mut Rng) {
        let n = rng.below(3) as usize;
        let ills = self.ill.iter().flatten().count();
        match (self.ill[n], rng.below(8)) {
            (Some(_), _) => self.heal(n),
            // Two of three at a time now and then: then nobody may write.
            (None, 0..7) if ills == 0 || (ills == 1 && rng.below(4) == 0) => {
                let all = [
                    [Ill::Killed, Ill::Killed, Ill::Ended, Ill::Cut, Ill::Stopped],
                    [Ill::Slow, Ill::Lossy, Ill::Mute, Ill::Deaf, Ill::Cut],
                ]
                .concat();
                self.hurt(n, all[rng.below(all.len() as u64) as usize]);
            }
            (None, 7) => self.hand_over(n),
            _ => {}
        }
    }
}

/// What there is to know when it failed.
impl Drop for Bed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (n, node) in self.cluster.nodes.iter().enumerate() {
            for args in [["replica", "status", VE], ["ve", "show", VE]] {
                let said = node.aspfs(&args);
                eprintln!("node {}: {}: {}{}", n + 1, args.join(" "), said.out, said.err);
            }
            let log = std::fs::read_to_string(node.path("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("node {}, the end of its log:\n{}", n + 1, lines[lines.len().saturating_sub(LINES)..].join("\n"));
        }
    }
}

fn bed(said: &Path) -> Option<Bed> {
    let script =
        format!("#!/bin/sh\nprintf '%s %s\\n' \"$2\" \"$(cut -d' ' -f1 /proc/uptime)\" >> {}\n", said.display());
    let program = said.with_extension("sh");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let flags = ["--writers", "replicas", "--lease", "2s", "--fail-over", "by-itself", "--on-promotion"];
    let mut flags: Vec<String> = flags.map(str::to_owned).to_vec();
    flags.push(program.to_str().unwrap().to_owned());
    let made = Cluster::<3>::network(3).and_then(|network| Cluster::with(network, &flags));
    let cluster = made.inspect_err(|why| eprintln!("skipped: {why}")).ok()?;
    Some(Bed { cluster, ill: [None; 3], handed_over: 0 })
}

/// Waits until something is so.
#[track_caller]
fn wait(what: &str, until: impl Fn() -> bool) {
    let begin = boot();
    while !until() {
        assert!(boot() - begin < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What is there in the end, soon on every node the same, whoever writes: the numbers of the whole records, each once, each one that was tried. A record of
/// which only the beginning is there was answered to nobody as a whole: there are no more of them than tries without an answer.
fn content(bed: &Bed, tried: &HashSet<u64>, answered: usize) -> Vec<u64> {
    let texts = || -> [String; 3] { std::array::from_fn(|n| bed.cluster.nodes[n].aspfs(&["cat", VE, "/log"]).ok()) };
    wait("the nodes stay different", || texts().iter().collect::<HashSet<_>>().len() == 1);
    let text = texts()[0].clone();
    let number = |line: &&str| {
        let number: u64 = line.split(' ').next()?.parse().ok()?;
        (record(number)[1..] == [line.as_bytes(), b"\n"].concat()).then_some(number)
    };
    let (whole, torn): (Vec<&str>, Vec<&str>) =
        text.lines().filter(|line| !line.is_empty()).partition(|line| number(line).is_some());
    let begins = |line: &&str| tried.iter().any(|n| record(*n)[1..].starts_with(line.as_bytes()));
    assert!(torn.len() <= tried.len() - answered && torn.iter().all(begins), "lines that nobody wrote: {torn:?}");
    let numbers: Vec<u64> = whole.iter().filter_map(number).collect();
    assert!(numbers.iter().all(|n| tried.contains(n)), "a record that nobody wrote");
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len(), "a record is there twice");
    eprintln!("{} whole records, {} torn, {} tried", numbers.len(), torn.len(), tried.len());
    numbers
}

/// Holds what was answered against what is there.
fn judge(answers: &[Answer], there: &[u64], promoted: &[Duration], handed_over: usize) {
    let place: HashMap<u64, usize> = there.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    let turns = answers.windows(2).filter(|w| w[0].node != w[1].node).count();
    assert!(turns <= promoted.len() + handed_over, "{turns} turns of writers, {} promotions", promoted.len());
    let kept: Vec<&Answer> = answers.iter().filter(|a| place.contains_key(&a.number)).collect();
    for pair in kept.windows(2) {
        assert!(place[&pair[0].number] < place[&pair[1].number], "{:?} stands behind {:?}", pair[0], pair[1]);
    }
    // What is lost was answered in the last moments of somebody's writing, and all that it wrote afterwards is lost, too.
    let mut lost: Vec<&Answer> = vec![];
    let mut most = Duration::ZERO;
    for (i, answer) in answers.iter().enumerate() {
        let before = i.checked_sub(1).map(|b| &answers[b]);
        let new_turn =
            before.is_none_or(|b| b.node != answer.node || promoted.iter().any(|p| (b.at..answer.at).contains(p)));
        if new_turn {
            lost.clear();
        }
        match place.contains_key(&answer.number) {
            true => assert!(lost.is_empty(), "{:?} is lost, and {answer:?} of the same turn is not", lost[0]),
            false => lost.push(answer),
        }
        if let Some(first) = lost.first() {
            most = most.max(answer.at - first.at);
            assert!(answer.at - first.at <= WINDOW + SLACK, "{first:?} is lost, {answer:?} was answered later");
        }
    }
    let gone = answers.len() - kept.len();
    eprintln!(
        "{} answered, {gone} of them lost, at most {most:?} at a time; {turns} turns, promoted {}",
        answers.len(),
        promoted.len()
    );
}

/// For how long, and the seed: as the environment says, or each night another one.
fn told() -> (u64, u64) {
    let told = match (std::env::var("ASPFS_CHAOS"), std::env::var_os("ASPFS_NIGHTLY")) {
        (Ok(told), _) => told,
        (_, Some(_)) => format!("600:{}", boot().as_secs()),
        _ => format!("{SECONDS}:1"),
    };
    let (seconds, seed) = told.split_once(':').unwrap_or((&told, "1"));
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("ASPFS_CHAOS is SECONDS:SEED, not {told:?}"));
    eprintln!("for {seconds} s, seed {seed}");
    (number(seconds), number(seed))
}

/// Checks G9, G14, G18, G19, G20, G22 from outside: whoever writes, and whatever happens, at most one node answers changes at a time, what is lost
/// are the last seconds of a node that was superseded, everything waits for an answer no longer than the trouble lasts, and the nodes end up alike.
#[test]
fn whatever_happens_one_writes_and_a_window_is_lost() {
    let (seconds, seed) = told();
    programs();
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said");
    let Some(mut bed) = bed(&said) else { return };
    bed.cluster.replicated(&["--window", "4s", "--at-window", "stall"]);
    let tries: Vec<Tries> = bed.cluster.nodes.iter().enumerate().map(|(n, node)| Tries::start(n, node)).collect();
    let (begin, mut rng) = (boot(), Rng(seed * 0x9E37_79B9 + 1));
    while boot() - begin < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(200 + rng.below(3000)));
        bed.step(&mut rng);
    }
    (0..3).for_each(|n| bed.heal(n));
    let primary = |n: &usize| {
        let rows = bed.cluster.status(*n);
        rows.len() == 2 && rows.iter().all(|r| r.role == "primary" && r.state == "protected")
    };
    wait("nobody writes it, protected", || (0..3).any(|n| primary(&n)));
    let (before, answered) = (boot(), || tries.iter().map(Tries::answered).sum::<u64>());
    let so_far = answered();
    wait("nothing is answered in the end", || answered() > so_far);
    let (mut answers, mut tried) = (vec![], HashSet::new());
    for one in tries {
        let (done, all) = one.end();
        answers.extend(done);
        tried.extend(all);
    }
    answers.sort_by_key(|a| a.at);
    assert!(answers.last().is_some_and(|a| a.at > before));
    let promoted: Vec<Duration> = std::fs::read_to_string(&said).unwrap_or_default().lines().map(uptime).collect();
    judge(&answers, &content(&bed, &tried, answers.len()), &promoted, bed.handed_over);
}

/// When the program of a promotion was run.
fn uptime(line: &str) -> Duration {
    Duration::from_secs_f64(line.split(' ').nth(1).unwrap().parse().unwrap())
}
