//! `aspfs promote` and `aspfs switchover`.

use std::io::{self, BufRead, IsTerminal, Read};

use super::cluster_args::{PromoteArgs, SwitchoverArgs};
use super::output::fields;
use super::{Failure, Node};
use crate::control::message::{Id, Request};
use crate::control::replication::{PromotedRow, StakesRow};
use crate::units::show_size;

/// Longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 100;

pub fn promote(node: &Node<'_>, args: &PromoteArgs) -> Result<(), Failure> {
    if args.force {
        confirm(node, args)?;
    }
    let request = Request::Promote { ve: Id(args.ve), old_primary_is_off: args.old_primary_is_off, force: args.force };
    let row: PromotedRow = node.call(&request)?;
    Ok(node.out.print(&row, || promoted(&row))?)
}

/// Shows what would be lost, on standard error, and asks.
fn confirm(node: &Node<'_>, args: &PromoteArgs) -> Result<(), Failure> {
    let stakes: StakesRow = node.call(&Request::PromoteStakes { ve: Id(args.ve) })?;
    eprint!("{}", at_stake(&stakes));
    if args.yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::Usage("nobody can be asked here: --yes says that what is listed may be lost".into()));
    }
    eprint!("Lose it? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().take(ANSWER_MAX).read_line(&mut answer).map_err(|e| Failure::Write("answer".into(), e))?;
    match matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(Failure::Partly(format!("VE {} was not promoted", args.ve))),
    }
}

fn at_stake(stakes: &StakesRow) -> String {
    let of = stakes.time.as_ref().map_or(String::new(), |time| format!(" of {time}"));
    let mut out = format!("VE {} would go on behind version {}{of}. Beyond it, to be lost:\n", stakes.ve, stakes.txn);
    let mut rows = vec![];
    for row in &stakes.nodes {
        let (least, other) =
            (if row.at_least { "at least " } else { "" }, if row.diverged { ", of another history" } else { "" });
        let what = match (row.txns, row.files, row.bytes) {
            (Some(0), ..) if !row.diverged => "nothing".into(),
            (Some(txns), Some(files), Some(bytes)) => {
                let plural = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
                let (versions, files) = (plural(txns, "version"), plural(files, "file"));
                format!("{versions}, {least}{files}, {least}{}{other}", show_size(bytes))
            }
            _ => "unknown: it does not answer".into(),
        };
        rows.push((row.node.clone() + if row.primary { " (wrote it)" } else { "" }, what));
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, what) in rows {
        out += &format!("  {name:width$}  {what}\n");
    }
    out
}

pub fn switchover(node: &Node<'_>, args: &SwitchoverArgs) -> Result<(), Failure> {
    let row: PromotedRow = node.call(&Request::Switchover { ve: Id(args.ve), node: args.node.clone() })?;
    Ok(node.out.print(&row, || promoted(&row))?)
}

fn promoted(row: &PromotedRow) -> String {
    let mut out = vec![
        ("VE", row.ve.to_string()),
        ("epoch", format!("{} (promotion {})", row.epoch, row.epoch >> 32)),
        ("goes on behind", format!("version {}", row.fork_txn)),
    ];
    if let Some(time) = &row.fork_time {
        out.push(("of", format!("{time}; what the old primary had beyond it stays there as a branch")));
    }
    for (name, txn) in &row.others {
        let has = txn.map_or_else(|| "did not answer".into(), |txn| format!("has version {txn}"));
        out.push(("other node", format!("{name} {has}")));
    }
    fields(&out)
}
