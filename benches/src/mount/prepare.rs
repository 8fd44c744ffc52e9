//! Filling a store: a process of its own, since a process that holds a store must never touch a mount.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aspfs_tools::template::sink::Import;
use aspfs_tools::template::source;
use vefs::change::Settings;
use vefs::ids::VeId;
use vefs::{Options, Store};

/// Name of the hidden subcommand.
pub const CHILD: &str = "mount-prepare";
/// The template's name in the store.
const NAME: &str = "template";

/// Runs [`child`] in a process of its own; answers how long the creation of each VE took.
pub fn in_child(store: &Path, template: &Path, ves: u32) -> Result<Vec<Duration>> {
    let mut command = Command::new(std::env::current_exe()?);
    let out = command.arg(CHILD).arg(store).arg(template).arg(ves.to_string()).output()?;
    ensure!(out.status.success(), "preparing a store: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout);
    text.lines().map(|line| line.parse().map(Duration::from_nanos).context("a duration")).collect()
}

/// Makes a store, imports the template, and creates VEs from 1 on.
pub fn child(path: &Path, template: &Path, ves: u32) -> Result<()> {
    Store::create(path)?;
    let store = Arc::new(Store::open(path, Options::default())?);
    let mut import = Import::begin(&store)?;
    let options = source::Options::default();
    source::read(template, &options, &mut |_| {}, &mut |event| Ok(import.event(event)?))?;
    let made = import.finish()?;
    store.template_put(NAME, made.hash, &template.display().to_string())?;
    let settings = Settings::default();
    for ve in 1..=ves {
        let start = Instant::now();
        store.create_ve(VeId(ve), made.hash, settings.clone())?;
        println!("{}", start.elapsed().as_nanos());
    }
    Ok(store.close()?)
}
