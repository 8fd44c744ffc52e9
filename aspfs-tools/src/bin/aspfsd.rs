//! `aspfsd`: a node's storage daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use aspfs_tools::daemon::config::{Config, ConfigError, Settings};
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Stores virtual environments and serves their mounts, in the foreground, until SIGTERM or SIGINT.
///
/// Mounts outlive this program: a small holder process keeps them, and the next aspfsd of the same store goes on serving them. `aspfs daemon stop
/// --unmount` ends both.
#[derive(Parser)]
#[command(version, after_help = "Examples:
  aspfsd --store /var/lib/aspfs
  aspfsd --config /etc/aspfs/aspfsd.toml --log debug
  aspfsd --store /var/lib/aspfs config > /etc/aspfs/aspfsd.toml")]
struct Cli {
    /// A configuration file (TOML); what the command line says wins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Print the configuration that would be used, as a configuration file, and end
    Config {
        /// Print what can be set as a Markdown table instead
        #[arg(long)]
        reference: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("aspfsd: {e:#}");
            ExitCode::from(if e.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let file = cli.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let settings = cli.settings.over(file);
    if let Some(Command::Config { reference }) = cli.command {
        match reference {
            true => print!("{}", aspfs_tools::daemon::config::reference()),
            false => print!("{}", settings.over(Settings::defaults()).to_toml()),
        }
        return Ok(());
    }
    let config = Config::new(settings)?;
    tracing_subscriber::fmt().with_max_level(config.log).with_ansi(false).with_writer(std::io::stderr).init();
    aspfs_tools::daemon::run(config)?;
    Ok(())
}
