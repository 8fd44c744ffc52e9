//! `aspfs-bench`: benchmarks that compare ways of doing one thing, in turns. Each subcommand is one question, and
//! prints a table or, with `--json`, one JSON object a line.

mod harness;
mod noise;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "aspfs-bench", version, about = "Compares ways of doing one thing, measured in turns")]
struct Args {
    /// Print one JSON object on a line instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// Rounds that count.
    #[arg(long, global = true, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// How far is a ratio to be trusted here? The same work against itself: the ratio should be 1.
    Noise,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let plan = harness::Plan { rounds: args.rounds as usize, warm_up: (args.rounds / 10) as usize };
    let report = match args.question {
        Question::Noise => noise::run(plan)?,
    };
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_refuses_no_rounds() {
        Args::command().debug_assert();
        assert!(Args::try_parse_from(["aspfs-bench", "noise", "--rounds", "0"]).is_err());
        assert_eq!(Args::try_parse_from(["aspfs-bench", "noise"]).map(|a| a.rounds).ok(), Some(200));
    }
}
