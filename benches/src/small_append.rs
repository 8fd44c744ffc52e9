//! What a line of a log costs on disk: 100 bytes appended, a commit after each or after ten; bytes of journal beyond the data, and
//! bytes of history rows.

use anyhow::Result;
use vefs::Ve;
use vefs::ids::{InodeNo, VeId};
use vefs::meta::{MetaStore, Scan, Table, prefix_end, rows};
use vefs::types::mode;

use crate::bed::{Bed, Ground, create, noise, write};
use crate::outcome::{Figure, Goal, Outcome};

/// Bytes of one append.
const PIECE: usize = 100;

/// A commit per append, then one per ten.
pub fn measure(ground: &Ground) -> Result<Outcome> {
    let mut out = Outcome { title: "small-append: 100 bytes each, on disk per append".into(), ..Default::default() };
    for every in [1, 10] {
        let bed = Bed::create(ground, &format!("small-{every}"))?;
        let ve = bed.ve(1)?;
        case(ground, &bed, &ve, every, &mut out)?;
    }
    out.notes
        .push("history: keys and values in the tables history, changes, system and places after publishing".into());
    out.notes.push(ground.note()?);
    Ok(out)
}

fn case(ground: &Ground, bed: &Bed, ve: &Ve, every: usize, out: &mut Outcome) -> Result<()> {
    let times = ground.size(5000, 50);
    let data = noise(PIECE, 5);
    let ino = create(ve, InodeNo::ROOT, "log", mode::IFREG)?;
    ve.publish()?;
    let before = (ve.journal_position().0, history_rows(bed, VeId(1))?, live_bytes(bed)?);
    for i in 0..times {
        write(ve, ino, (i * PIECE) as u64, &data)?;
        if (i + 1) % every == 0 {
            ve.seal()?;
        }
    }
    ve.publish()?;
    let journal = (ve.journal_position().0 - before.0) as f64 / times as f64 - PIECE as f64;
    let history: Vec<u64> = history_rows(bed, VeId(1))?.iter().zip(before.1).map(|(a, b)| a - b).collect();
    let live = live_bytes(bed)?.saturating_sub(before.2) as f64 / times as f64;
    let per = |n: u64| n as f64 / times as f64;
    let (a, b) = if every == 1 { (Some(300.0), Some(1024.0)) } else { (None, None) };
    let name = format!("small-append, commit every {every}");
    let mut push = |what: &str, goal: Option<f64>, v: f64| {
        out.figures.push(Figure {
            what: format!("{name}: {what}"),
            unit: "bytes",
            goal: goal.map(Goal::AtMost),
            values: vec![v],
        });
    };
    push("journal beyond the data", a, journal);
    push("history rows", b, per(history.iter().sum()));
    push("live table files, compacted", None, live);
    let [h, c, s, p] = history[..] else { anyhow::bail!("four tables") };
    out.notes.push(format!(
        "commit every {every}: history {:.0}, changes {:.0}, system {:.0}, places {:.0}",
        per(h),
        per(c),
        per(s),
        per(p)
    ));
    Ok(())
}

/// Bytes of keys and values of a VE's rows, by table.
fn history_rows(bed: &Bed, ve: VeId) -> Result<Vec<u64>> {
    let txns = [b"T".to_vec(), ve.0.to_be_bytes().to_vec()].concat();
    let prefix = rows::ve_prefix(ve);
    let tables =
        [(Table::History, &prefix), (Table::Changes, &prefix), (Table::System, &txns), (Table::Places, &prefix)];
    let mut sums = Vec::new();
    for (table, prefix) in tables {
        let mut sum = 0;
        let end = prefix_end(prefix).unwrap_or_default();
        bed.rocks.scan(table, prefix, &end, &mut |k, v| {
            sum += (k.len() + v.len()) as u64;
            Scan::Next
        })?;
        sums.push(sum);
    }
    Ok(sums)
}

fn live_bytes(bed: &Bed) -> Result<u64> {
    bed.rocks.persist()?;
    bed.rocks.compact()?;
    Ok(bed.rocks.live_bytes())
}
