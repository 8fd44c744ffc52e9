//! Appending 4 KiB and waiting until it is durable, as databases and mail servers do, against the same with plain files.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use vefs::Ve;
use vefs::ids::InodeNo;
use vefs::types::mode;

use crate::bed::{Bed, Ground, create, noise, write};
use crate::harness::{Contender, Plan, interleave};
use crate::outcome::Outcome;

/// Bytes of one append.
const PIECE: usize = 4096;
/// Writers of the second comparison.
const WRITERS: usize = 8;

/// A file of a VE that grows.
struct Tail {
    ve: Arc<Ve>,
    ino: InodeNo,
    end: u64,
}

impl Tail {
    fn new(ve: &Arc<Ve>, name: &str) -> Result<Tail> {
        Ok(Tail { ve: ve.clone(), ino: create(ve, InodeNo::ROOT, name, mode::IFREG)?, end: 0 })
    }

    fn append(&mut self, data: &bytes::Bytes) -> Result<()> {
        write(&self.ve, self.ino, self.end, data)?;
        self.end += data.len() as u64;
        Ok(self.ve.sync()?)
    }
}

/// One writer, then eight.
pub fn measure(ground: &Ground) -> Result<Vec<Outcome>> {
    Ok(vec![one_writer(ground)?, many_writers(ground)?])
}

fn one_writer(ground: &Ground) -> Result<Outcome> {
    let bed = Bed::create(ground, "append-1")?;
    let data = noise(PIECE, 3);
    let times = ground.size(200, 5);
    let mut file = File::create(ground.path().join("growing"))?;
    let mut tail = Tail::new(&bed.ve(1)?, "growing")?;
    let plain = Contender::timed("plain file", || {
        for _ in 0..times {
            file.write_all(&data)?;
            file.sync_all()?;
        }
        Ok(())
    });
    let ve = Contender::timed("VE", || {
        for _ in 0..times {
            tail.append(&data)?;
        }
        anyhow::Ok(())
    });
    let plan = Plan { rounds: ground.rounds(15), warm_up: 1 };
    let title = format!("append-fsync: {times} times 4 KiB, one writer");
    let report = interleave(&title, plan, vec![plain, ve])?;
    finish(ground, "one writer", Outcome::of_report(&report, &[("VE", 0.7)]))
}

fn many_writers(ground: &Ground) -> Result<Outcome> {
    let bed = Bed::create(ground, "append-8")?;
    let data = noise(PIECE, 4);
    let times = ground.size(100, 3);
    let mut files = Vec::new();
    let (mut shared, mut own) = (Vec::new(), Vec::new());
    let one = bed.ve(100)?;
    for i in 0..WRITERS {
        files.push(File::create(ground.path().join(format!("growing-{i}")))?);
        shared.push(Tail::new(&one, &format!("growing-{i}"))?);
        own.push(Tail::new(&bed.ve(i as u32 + 1)?, "growing")?);
    }
    let plain = Contender::timed("plain files", || {
        each(&mut files, |file| {
            for _ in 0..times {
                file.write_all(&data)?;
                file.sync_all()?;
            }
            Ok(())
        })
    });
    let in_tails = |tail: &mut Tail| (0..times).try_for_each(|_| tail.append(&data));
    let one_ve = Contender::timed("one VE", || each(&mut shared, in_tails));
    let own_ve = Contender::timed("a VE each", || each(&mut own, in_tails));
    let plan = Plan { rounds: ground.rounds(15), warm_up: 1 };
    let title = format!("append-fsync: {times} times 4 KiB in each of {WRITERS} threads");
    let report = interleave(&title, plan, vec![plain, one_ve, own_ve])?;
    finish(ground, "8 writers", Outcome::of_report(&report, &[("one VE", 0.6), ("a VE each", 0.6)]))
}

fn finish(ground: &Ground, what: &str, mut o: Outcome) -> Result<Outcome> {
    for f in &mut o.figures {
        f.what = format!("append-fsync, {what}: {}", f.what);
    }
    o.notes.push(ground.note()?);
    Ok(o)
}

/// Does something with every item at once, a thread each.
fn each<T: Send>(items: &mut [T], work: impl Fn(&mut T) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.iter_mut().map(|item| scope.spawn(|| work(item))).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| anyhow::bail!("a writer panicked")))
    })
}
