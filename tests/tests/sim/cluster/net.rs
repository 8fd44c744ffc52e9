//! What happens when: the queue of events, and the links between the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::random::Random;

/// The kinds of frames on the stream of bulk.
const BULK: [u8; 2] = [6, 14];

/// What a packet carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// A wire frame of a VE's stream.
    Frame(usize, Vec<u8>),
    /// A question about a VE, of this number.
    Request(usize, u64, Vec<u8>),
    /// Part of the answer: its place in it; `None`: the answer's end.
    Answer(u64, usize, Option<Vec<u8>>),
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Body::Frame(_, b) | Body::Request(_, _, b) | Body::Answer(_, _, Some(b)) => b.len() + 40,
            Body::Answer(..) => 40,
        }
    }

    /// Whether it has an order of its own: the stream of bulk beside all else that goes one way.
    fn is_bulk(&self) -> bool {
        matches!(self, Body::Frame(_, b) if b.get(6).is_some_and(|kind| BULK.contains(kind)))
    }

    fn bytes(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Body::Frame(_, b) | Body::Request(_, _, b) | Body::Answer(_, _, Some(b)) => Some(b),
            Body::Answer(..) => None,
        }
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
pub enum What {
    /// A node looks at its clock.
    Tick(usize),
    /// A node's commit tick.
    Commit(usize),
    /// A packet arrives: from, to.
    Deliver(usize, usize, Body),
    /// A flush of a VE ended at a node: up to so many transactions, begun in this run of the node.
    Flushed(usize, usize, usize, u64),
    /// A program of a VE at a node does something.
    Write(usize, usize),
    /// Something breaks, or is repaired.
    Chaos,
    /// An operator looks at a VE.
    Operator(usize),
    /// A node is switched on.
    Start(usize),
}

/// How bad the weather is: one in so many packets, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss: u64,
    pub twice: u64,
    pub flip: u64,
    pub swap: u64,
    /// Longest delay in microseconds.
    pub delay: u64,
    /// Bytes a second of a link.
    pub rate: u64,
}

#[derive(Debug, Default)]
pub struct Net {
    pub now: Duration,
    queue: BTreeMap<(Duration, u64), What>,
    numbers: u64,
    pub weather: Weather,
    /// The arbiter's place.
    pub arbiter: usize,
    /// Directions that carry nothing.
    pub blocked: BTreeSet<(usize, usize)>,
    /// When a direction has sent what it was given.
    free: BTreeMap<(usize, usize), Duration>,
    /// When what was given last to a stream of a direction arrives.
    arrived: BTreeMap<(usize, usize, bool), Duration>,
    pub packets: u64,
}

fn odd(random: &mut Random, one_in: u64) -> bool {
    one_in > 0 && random.one_in(one_in)
}

impl Net {
    pub fn at(&mut self, time: Duration, what: What) {
        self.numbers += 1;
        self.queue.insert((time.max(self.now), self.numbers), what);
    }

    pub fn after(&mut self, wait: Duration, what: What) {
        self.at(self.now + wait, what);
    }

    pub fn next(&mut self) -> Option<What> {
        let ((time, _), what) = self.queue.pop_first()?;
        self.now = self.now.max(time);
        Some(what)
    }

    /// How long what was given to a link takes to be sent.
    pub fn backlog(&self, from: usize, to: usize) -> Duration {
        self.free.get(&(from, to)).map_or(Duration::ZERO, |sent| sent.saturating_sub(self.now))
    }

    /// A packet is sent. Those of one stream and direction arrive in order, but for those that the weather takes out of it.
    pub fn send(&mut self, random: &mut Random, from: usize, to: usize, mut body: Body) {
        self.packets += 1;
        let w = self.weather;
        let ms = |n: u64| Duration::from_micros(n);
        let bulk = body.is_bulk();
        let sent = self.free.get(&(from, to)).copied().unwrap_or_default();
        let arrived = self.arrived.get(&(from, to, bulk)).copied().unwrap_or_default();
        let sent = sent.max(self.now) + ms(body.len() as u64 * 1_000_000 / w.rate.max(1));
        if sent > self.now + Duration::from_secs(20) || self.blocked.contains(&(from, to)) || odd(random, w.loss) {
            return;
        }
        // A lost packet of bulk delays bulk alone.
        let late = if bulk && random.one_in(8) { random.below(100_000) } else { 0 };
        let delay = ms(50 + random.below(w.delay.max(1)) + late);
        let mut arrives = (sent + delay).max(arrived);
        self.free.insert((from, to), sent);
        if odd(random, w.swap) {
            arrives += ms(random.below(200_000));
        } else {
            self.arrived.insert((from, to, bulk), arrives);
        }
        if odd(random, w.twice) {
            self.at(arrives + ms(random.below(300_000)), What::Deliver(from, to, body.clone()));
        }
        // What goes to an arbiter and comes from it is under checksums that are not ours.
        let ours = from.max(to) < self.arbiter;
        if let Some(bytes) = body.bytes().filter(|_| ours && odd(random, w.flip)) {
            let bit = random.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        self.at(arrives, What::Deliver(from, to, body));
    }
}
