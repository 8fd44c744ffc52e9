//! `aspfs-bench`: benchmarks that compare ways of doing one thing, in turns. Each subcommand is one question, and
//! prints a table or, with `--json`, one JSON object a line. What the figures should be is in `docs/performance.md`.

mod append_fsync;
mod bed;
mod bulk_write;
mod harness;
mod many_ves;
mod metadata;
mod mount;
mod noise;
mod outcome;
mod reads;
mod recovery;
mod replication;
mod small_append;
mod traced;
mod transport;
mod undo;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use bed::Ground;
use outcome::Outcome;

/// What the daemon will use: values made by one thread and freed by the publishing one cost glibc's allocator most.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "aspfs-bench", version, about = "Compares ways of doing one thing, measured in turns")]
struct Args {
    /// Print one JSON object on a line instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// Rounds that count; each question has a number of its own.
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: Option<u32>,
    /// Folder on the file system to be measured; a folder in it is made and removed.
    #[arg(long, global = true, default_value = "target")]
    dir: PathBuf,
    /// A smoke run: everything happens, in seconds, and the figures mean nothing.
    #[arg(long, global = true)]
    quick: bool,
    #[command(subcommand)]
    question: Question,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Metadata,
    BulkWrite,
    AppendFsync,
    SmallAppend,
    Recovery,
    ManyVes,
    RandomRead,
    SeqRead,
    Transport,
    Replication,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Metadata,
        Kind::BulkWrite,
        Kind::AppendFsync,
        Kind::SmallAppend,
        Kind::Recovery,
        Kind::ManyVes,
        Kind::RandomRead,
        Kind::SeqRead,
        Kind::Transport,
        Kind::Replication,
    ];
}

#[derive(Subcommand)]
enum Question {
    /// How far is a ratio to be trusted here? The same work against itself: the ratio should be 1.
    Noise,
    /// Mixed metadata operations below FUSE, one thread.
    Metadata,
    /// A large file in 128 KiB writes, against a plain file.
    BulkWrite,
    /// 4 KiB appends with fsync, one writer and eight, against plain files.
    AppendFsync,
    /// Bytes on disk per 100-byte append.
    SmallAppend,
    /// Time and memory of a start, after a crash and after a clean stop.
    Recovery,
    /// The fsync of one VE among 200 busy ones, on a slow disk.
    ManyVes,
    /// 4 KiB reads at random places, against pread.
    RandomRead,
    /// 128 KiB reads front to back, against pread.
    SeqRead,
    /// Bulk and round trips between two nodes over loopback, encrypted.
    Transport,
    /// A VE and its replica, durable on both: throughput, age of the newest copy, promotion; and the named questions about it.
    Replication(replication::ReplicationArgs),
    /// Everything but `noise`, and a summary of the goals.
    All,
    /// Programs on a mount: kernel overlayfs, fuse-overlayfs and a VE over the same template (root, Linux, ext4).
    Mount(mount::MountArgs),
    /// Does one piece of work for `mount`.
    #[command(name = mount::CHILD, hide = true)]
    MountWork {
        /// Which.
        group: String,
        /// The place's root.
        root: PathBuf,
        /// What was made beforehand.
        aux: PathBuf,
    },
    /// Fills a store for `mount`.
    #[command(name = mount::prepare::CHILD, hide = true)]
    MountPrepare {
        /// The store's folder.
        store: PathBuf,
        /// The template.
        template: PathBuf,
        /// How many VEs.
        ves: u32,
    },
    /// Writes a byte for `mount`.
    #[command(name = mount::first_write::CHILD, hide = true)]
    MountFirstWrite {
        /// The file.
        path: PathBuf,
    },
    /// Uses a VE for `mount`.
    #[command(name = mount::density::CHILD, hide = true)]
    MountUse {
        /// Its root.
        root: PathBuf,
    },
    /// Loads a folder for `replication`.
    #[command(name = replication::load::CHILD, hide = true)]
    ReplicationLoad {
        /// The folder.
        root: PathBuf,
        /// How long.
        seconds: u64,
    },
    /// Stamps changes for `replication`.
    #[command(name = replication::window::CHILD, hide = true)]
    ReplicationStamps {
        /// The file.
        file: PathBuf,
        /// Where it is noted what was answered.
        notes: PathBuf,
        /// Bytes of a change.
        size: usize,
        /// Bytes a second.
        rate: usize,
    },
    /// Makes files for `replication`.
    #[command(name = replication::failover::CHILD, hide = true)]
    ReplicationFiles {
        /// The folder.
        root: PathBuf,
        /// How many.
        files: usize,
    },
    /// Opens a store for `recovery`.
    #[command(name = recovery::CHILD, hide = true)]
    OpenStore {
        /// The store's folder.
        path: PathBuf,
    },
    /// Fills a store for `recovery`.
    #[command(name = recovery::FILLING_CHILD, hide = true)]
    FillStore {
        /// With what.
        load: recovery::Load,
        /// How it ends.
        end: recovery::End,
        /// Until so many bytes are written.
        bytes: u64,
        /// The store's folder.
        path: PathBuf,
    },
}

fn answer(kind: Kind, args: &Args) -> Result<Vec<Outcome>> {
    let ground = Ground::new(&args.dir, args.quick, args.rounds.map(|r| r as usize))?;
    let outcomes = match kind {
        Kind::Metadata => vec![metadata::measure(&ground)?],
        Kind::BulkWrite => bulk_write::measure(&ground)?,
        Kind::AppendFsync => append_fsync::measure(&ground)?,
        Kind::SmallAppend => vec![small_append::measure(&ground)?],
        Kind::Recovery => vec![recovery::measure(&ground)?],
        Kind::ManyVes => vec![many_ves::measure(&ground)?],
        Kind::RandomRead => vec![reads::random(&ground)?],
        Kind::SeqRead => vec![reads::sequential(&ground)?],
        Kind::Transport => vec![transport::measure(&ground)?],
        Kind::Replication => vec![replication::measure(&ground)?],
    };
    for o in &outcomes {
        if args.json {
            println!("{}", o.json());
        } else {
            println!("{}", o.table());
        }
    }
    Ok(outcomes)
}

fn all(args: &Args) -> Result<()> {
    let mut outcomes = Vec::new();
    for kind in Kind::ALL {
        outcomes.extend(answer(kind, args)?);
    }
    if !args.json {
        print!("{}", outcome::summary(&outcomes));
    }
    Ok(())
}

fn mounts(args: &Args, what: &mount::MountArgs) -> Result<()> {
    let ground = Ground::new(&args.dir, args.quick, args.rounds.map(|r| r as usize))?;
    let outcomes =
        mount::measure(&ground, what, &mut |o| println!("{}", if args.json { o.json() } else { o.table() }))?;
    if !args.json {
        print!("{}", outcome::summary(&outcomes));
    }
    Ok(())
}

/// A named question about replication, with the rows that its answer is in the documents.
fn replicate(args: &Args, what: &replication::ReplicationArgs) -> Result<()> {
    let Some(named) = what.what else { return answer(Kind::Replication, args).map(|_| ()) };
    let out = replication::named(&args.dir, args.quick, args.rounds.map(|r| r as usize), what, named)?;
    if args.json {
        println!("{}", out.json());
    } else {
        let words: Vec<String> = std::env::args().skip(1).collect();
        println!("{}\n{}", out.table(), out.rows(&words.join(" ")));
    }
    Ok(())
}

fn noise(args: &Args) {
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 200 }) as usize;
    let Ok(report) = noise::run(harness::Plan { rounds, warm_up: rounds / 10 });
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let kind = match &args.question {
        Question::Noise => {
            noise(&args);
            return Ok(());
        }
        Question::OpenStore { path } => return recovery::child(path),
        Question::Mount(what) => return mounts(&args, what),
        Question::MountWork { group, root, aux } => return mount::works::child(group, root, aux, args.quick),
        Question::MountPrepare { store, template, ves } => return mount::prepare::child(store, template, *ves),
        Question::MountFirstWrite { path } => return mount::first_write::child(path),
        Question::MountUse { root } => return mount::density::child(root),
        Question::Replication(what) => return replicate(&args, what),
        Question::ReplicationLoad { root, seconds } => return replication::load::child(root, *seconds),
        Question::ReplicationStamps { file, notes, size, rate } => {
            return replication::window::child(file, notes, *size, *rate);
        }
        Question::ReplicationFiles { root, files } => return replication::failover::child(root, *files),
        Question::FillStore { load, end, bytes, path } => return recovery::filling_child(*load, *end, *bytes, path),
        Question::All => return all(&args),
        Question::Metadata => Kind::Metadata,
        Question::BulkWrite => Kind::BulkWrite,
        Question::AppendFsync => Kind::AppendFsync,
        Question::SmallAppend => Kind::SmallAppend,
        Question::Recovery => Kind::Recovery,
        Question::ManyVes => Kind::ManyVes,
        Question::RandomRead => Kind::RandomRead,
        Question::SeqRead => Kind::SeqRead,
        Question::Transport => Kind::Transport,
    };
    answer(kind, &args).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_refuses_no_rounds() {
        Args::command().debug_assert();
        assert!(Args::try_parse_from(["aspfs-bench", "noise", "--rounds", "0"]).is_err());
        let args = Args::try_parse_from(["aspfs-bench", "all", "--rounds", "7", "--quick"]);
        assert_eq!(args.map(|a| (a.rounds, a.quick)).ok(), Some((Some(7), true)));
    }
}
