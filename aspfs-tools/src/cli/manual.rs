//! Manual pages and completions, made of the command lines' own definitions.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;

use super::Failure;
use super::args::Cli;

/// Prints a shell's completions.
pub fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "aspfs", &mut text);
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    Ok(out.flush()?)
}

/// Writes `aspfs.8`, a page for each of its commands, and `aspfsd.8`.
pub fn pages(dir: &Path) -> Result<(), Failure> {
    let failed = |e| Failure::Write(dir.display().to_string(), e);
    std::fs::create_dir_all(dir).map_err(failed)?;
    for command in [Cli::command(), crate::daemon::args::Cli::command()] {
        page(dir, command.disable_help_subcommand(true), None).map_err(failed)?;
    }
    Ok(())
}

fn page(dir: &Path, command: clap::Command, above: Option<&str>) -> io::Result<()> {
    let name = above.map_or_else(|| command.get_name().to_owned(), |above| format!("{above}-{}", command.get_name()));
    let command = command.bin_name(name.replace('-', " ")).display_name(name.clone()).version(crate::version());
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).section("8").title(name.to_uppercase()).render(&mut text)?;
    std::fs::write(dir.join(format!("{name}.8")), text)?;
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        page(dir, below.clone(), Some(&name))?;
    }
    Ok(())
}
