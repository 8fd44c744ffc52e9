//! The bed's one program under several names: the daemon, the holder and the client as they are shipped, and what tests need besides.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::{child, janitor, scripted};

/// The names it has in a bed's folder.
pub const NAMES: [&str; 4] = ["aspfsd", "aspfs-holder", "aspfs", "aspfs-child"];

/// Does what its name says.
pub fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let name = args.first().map(Path::new).and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or("");
    let text: Vec<String> = args.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match name {
        "aspfsd" => match daemon() {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(&e.to_string()),
        },
        "aspfs-holder" => match aspfs_holder::main() {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(&e.to_string()),
        },
        "aspfs" => ExitCode::from(aspfs_tools::cli::main(args)),
        _ => match text.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["janitor", dir, seconds] => {
                janitor::main(&PathBuf::from(dir), Duration::from_secs(seconds.parse().unwrap_or(60)));
                ExitCode::SUCCESS
            }
            [what, rest @ ..] => child::main(what, rest),
            [] => fail("what shall it do?"),
        },
    }
}

fn daemon() -> Result<(), Box<dyn std::error::Error>> {
    use aspfs_tools::daemon::args::{Asked, Cli};
    use clap::Parser;
    match Cli::try_parse()?.asked()? {
        Asked::Print(_) => Err("a bed's daemon runs".into()),
        Asked::Run(config) => {
            tracing_subscriber::fmt().with_max_level(config.log).with_ansi(false).with_writer(std::io::stderr).init();
            let verdict = config.store.with_file_name(scripted::FILE);
            Ok(aspfs_tools::daemon::run_with(*config, Box::new(move |ve| scripted::watch(verdict.clone(), ve)))?)
        }
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}
