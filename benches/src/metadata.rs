//! Metadata operations below FUSE, one thread, journal on: the mix that unpacking, building and cleaning up make, in directories
//! of about a thousand entries.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use vefs::Ve;
use vefs::ids::InodeNo;
use vefs::op::{Op, RenameFlags, SetAttr, XattrMode};
use vefs::types::mode;

use crate::bed::{Bed, Ground, Rng, cpu, create, run};
use crate::outcome::{Figure, Goal, Outcome};

/// Entries of each directory.
const ENTRIES: usize = 1000;

/// Kinds of operation; the ones that only read come last.
const KINDS: [&str; 11] =
    ["create", "mkdir", "rmdir+reap", "chmod", "rename", "link", "unlink", "reap", "setxattr", "lookup", "readdir"];
const FIRST_READ: usize = 9;

/// A file of the tree: its name and inode.
type Name = (String, InodeNo);

/// The tree and the choices made in it.
pub struct Mix<'a> {
    ve: &'a Ve,
    dirs: Vec<(InodeNo, Vec<Name>)>,
    rng: Rng,
    /// The directory that the cycles are in, and for how many more.
    here: usize,
    left: usize,
    serial: u64,
    took: [(u64, Duration); KINDS.len()],
}

impl<'a> Mix<'a> {
    /// Makes the tree: so many directories, each with its files.
    pub fn new(ve: &'a Ve, dirs: usize) -> Result<Mix<'a>> {
        let mut mix = Mix { ve, dirs: Vec::new(), rng: Rng(7), here: 0, left: 0, serial: 0, took: Default::default() };
        for d in 0..dirs {
            let dir = create(ve, InodeNo::ROOT, &format!("dir-{d:04}"), mode::IFDIR)?;
            mix.dirs.push((dir, Vec::new()));
            for _ in 0..ENTRIES {
                let name = mix.fresh();
                let ino = create(ve, dir, &name, mode::IFREG)?;
                mix.dirs[d].1.push((name, ino));
            }
        }
        Ok(mix)
    }

    fn fresh(&mut self) -> String {
        self.serial += 1;
        format!("file-{:08x}.txt", self.serial)
    }

    fn count<T>(&mut self, kind: usize, work: impl FnOnce(&Ve) -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let out = work(self.ve)?;
        let slot = &mut self.took[kind];
        slot.0 += 1;
        slot.1 += start.elapsed();
        Ok(out)
    }

    /// One cycle: a file is made, looked at, changed, and another one goes. Programs stay in a directory for a while; so do 64
    /// cycles, then another one is drawn.
    pub fn cycle(&mut self) -> Result<()> {
        let n = self.serial;
        if self.left == 0 {
            (self.here, self.left) = (self.rng.below(self.dirs.len()), 64);
        }
        self.left -= 1;
        let d = self.here;
        let dir = self.dirs[d].0;
        let name = self.fresh();
        let ino = self.count(0, |ve| create(ve, dir, &name, mode::IFREG))?;
        self.count(9, |ve| Ok(ve.lookup(dir, name.as_bytes())?))?;
        let set = SetAttr { mode: Some(0o600), ..Default::default() };
        self.count(3, |ve| run(ve, &Op::Setattr { ino, set }))?;
        self.dirs[d].1.push((name, ino));
        let other = self.rng.below(self.dirs[d].1.len());
        let (old, target) = self.dirs[d].1[other].clone();
        self.count(9, |ve| Ok(ve.lookup(dir, old.as_bytes())?))?;
        if n.is_multiple_of(2) {
            let new_name = self.fresh();
            let to = new_name.clone().into();
            let flags = RenameFlags::default();
            let op = Op::Rename { parent: dir, name: old.into(), new_parent: dir, new_name: to, flags };
            self.count(4, |ve| run(ve, &op))?;
            self.dirs[d].1[other].0 = new_name;
        }
        if n.is_multiple_of(4) {
            let op = Op::Setxattr {
                ino: target,
                name: b"user.tag".into(),
                value: b"0123456789".into(),
                mode: XattrMode::Set,
            };
            self.count(8, |ve| run(ve, &op))?;
        }
        if n.is_multiple_of(8) {
            self.links_and_folders(dir, target)?;
        }
        let gone = self.rng.below(self.dirs[d].1.len());
        let (name, ino) = self.dirs[d].1.swap_remove(gone);
        self.count(6, |ve| run(ve, &Op::Unlink { parent: dir, name: name.into() }))?;
        self.count(7, |ve| run(ve, &Op::Reap { ino }))?;
        if n.is_multiple_of(256) {
            self.count(10, |ve| Ok(ve.entries(dir, 0, 2 * ENTRIES)?))?;
        }
        Ok(())
    }

    fn links_and_folders(&mut self, dir: InodeNo, target: InodeNo) -> Result<()> {
        let link: Vec<u8> = self.fresh().into();
        self.count(5, |ve| run(ve, &Op::Link { ino: target, parent: dir, name: link.clone() }))?;
        self.count(6, |ve| run(ve, &Op::Unlink { parent: dir, name: link.clone() }))?;
        let name = self.fresh();
        let sub = self.count(1, |ve| create(ve, dir, &name, mode::IFDIR))?;
        self.count(2, |ve| {
            run(ve, &Op::Rmdir { parent: dir, name: name.into() })?;
            run(ve, &Op::Reap { ino: sub })
        })?;
        Ok(())
    }

    fn done(&self, from: usize, to: usize) -> u64 {
        self.took[from..to].iter().map(|t| t.0).sum()
    }
}

/// Runs the mix in rounds over one VE, whose state and history grow meanwhile.
pub fn measure(ground: &Ground) -> Result<Outcome> {
    let bed = Bed::create(ground, "metadata")?;
    let ve = bed.ve(1)?;
    let mut mix = Mix::new(&ve, ground.size(100, 2))?;
    ve.publish()?;
    bed.settle()?;
    let cycles = ground.size(60_000, 300);
    let mut figures: [Vec<f64>; 3] = Default::default();
    let mut out = Outcome { title: "metadata: mixed operations below FUSE, one thread".into(), ..Default::default() };
    let mut total = [(0u64, Duration::ZERO); KINDS.len()];
    for _ in 0..ground.rounds(3) {
        mix.took = Default::default();
        let (start, busy) = (Instant::now(), cpu());
        for _ in 0..cycles {
            mix.cycle()?;
        }
        let (wall, busy) = (start.elapsed().as_secs_f64(), (cpu() - busy).as_secs_f64());
        let all = mix.done(0, KINDS.len()) as f64;
        let changes = mix.done(0, FIRST_READ) as f64;
        let reading: Duration = mix.took[FIRST_READ..].iter().map(|t| t.1).sum();
        figures[0].push(all / wall);
        figures[1].push(changes / (wall - reading.as_secs_f64()));
        figures[2].push(all / busy);
        for (sum, t) in total.iter_mut().zip(mix.took) {
            *sum = (sum.0 + t.0, sum.1 + t.1);
        }
    }
    let [all, changes, busy] = figures;
    out.figures.push(Figure::goal("metadata: operations", "ops/s", Goal::AtLeast(150_000.0), all));
    out.figures.push(Figure::info("metadata: changing operations alone", "ops/s", changes));
    out.figures.push(Figure::info("metadata: operations per CPU second", "ops/s", busy));
    for (kind, (n, took)) in KINDS.iter().zip(total) {
        let mut line = String::new();
        let each = took.as_secs_f64() * 1e6 / n.max(1) as f64;
        let _ = write!(line, "{kind:<12} {n:>9} times {each:>9.2} µs each");
        out.notes.push(line);
    }
    out.notes.push(ground.note()?);
    Ok(out)
}
