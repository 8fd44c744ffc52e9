//! `aspfsd`: a node's storage daemon.

use std::io::Write;
use std::process::ExitCode;

use aspfs_tools::daemon::args::{Asked, Cli};
use aspfs_tools::daemon::config::ConfigError;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: aspfs_tools::sys::Resident<std::alloc::System> = aspfs_tools::sys::Resident(std::alloc::System);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("aspfsd: {e}");
            ExitCode::from(if e.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

fn run() -> anyhow::Result<()> {
    match Cli::parse().asked()? {
        Asked::Print(text) => Ok(std::io::stdout().write_all(text.as_bytes())?),
        Asked::Run(config) => {
            tracing_subscriber::fmt().with_max_level(config.log).with_ansi(false).with_writer(std::io::stderr).init();
            aspfs_tools::sys::tune_allocator();
            Ok(aspfs_tools::daemon::run(*config)?)
        }
    }
}
