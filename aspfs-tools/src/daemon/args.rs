//! The command line of `aspfsd`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::config::{Config, ConfigError, Settings};

/// Stores virtual environments and serves their mounts, in the foreground, until SIGTERM or SIGINT.
///
/// Mounts outlive this program: a small holder process keeps them, and the next aspfsd of the same store goes on serving them. `aspfs daemon stop
/// --unmount` ends both.
///
/// Exit status: 0 stopped as told, 1 failed, 2 configured wrongly.
#[derive(Parser)]
#[command(
    name = "aspfsd",
    args_override_self = true,
    version,
    after_help = "Examples:
  aspfsd --store /var/lib/aspfs
  aspfsd --config /etc/aspfs/aspfsd.toml --log debug
  aspfsd --store /var/lib/aspfs config > /etc/aspfs/aspfsd.toml
  aspfsd --store /var/lib/aspfs --rebuild-metadata"
)]
pub struct Cli {
    /// A configuration file (TOML); what the command line says wins
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Throw the metadata away, make them anew from the last checkpoint and the journals, and start: for metadata that are damaged or lost. Nothing that
    /// was answered is lost by it, and the former ones stay in STORE/meta.replaced until the next time
    #[arg(long)]
    rebuild_metadata: bool,
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

/// What the command line asks for.
pub enum Asked {
    /// Print this.
    Print(String),
    /// Run.
    Run(Box<Config>),
}

impl Cli {
    /// Reads the configuration file and checks everything.
    pub fn asked(self) -> Result<Asked, ConfigError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        let settings = self.settings.over(file);
        match self.command {
            Some(Command::Config { reference: true }) => Ok(Asked::Print(super::config::reference())),
            Some(Command::Config { reference: false }) => {
                Ok(Asked::Print(settings.over(Settings::defaults()).to_toml()))
            }
            None => {
                let mut config = Config::new(settings)?;
                config.options.rebuild = self.rebuild_metadata;
                Ok(Asked::Run(Box::new(config)))
            }
        }
    }
}
