//! Templates: the client reads the source itself, and tells the daemon of it.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::TemplateCommand;
use super::{Failure, Node, show};
use crate::client::{Client, ClientError};
use crate::control::message::{Damage, Done, Imported, Progress, Request, TemplateRow};
use crate::template::source::{self, Options, SourceError};
use crate::units::show_size;

/// Does what was asked for.
pub fn run(node: &Node<'_>, command: &TemplateCommand) -> Result<(), Failure> {
    match command {
        TemplateCommand::Import { name, source, image, cross_mounts } => {
            let options = Options { cross_mounts: *cross_mounts, image: image.clone() };
            import(node, name, source, &options)
        }
        TemplateCommand::List => {
            let rows: Vec<TemplateRow> = node.rows(&Request::TemplateList {})?;
            Ok(node.out.table(&rows, show::TEMPLATE_HEAD, show::template_line)?)
        }
        TemplateCommand::Show { name } => {
            let row: TemplateRow = node.call(&Request::TemplateShow { name: name.clone() })?;
            Ok(node.out.print(&row, || show::template(&row))?)
        }
        TemplateCommand::Verify { name } => verify(node, name),
        TemplateCommand::Remove { name } => {
            let done: Done = node.call(&Request::TemplateRemove { name: name.clone() })?;
            Ok(node.out.print(&done, String::new)?)
        }
    }
}

/// A bar at a terminal, else nothing.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Sets the bar to a share of a known whole, or to a spinner.
fn advance(bar: &ProgressBar, done: u64, of: Option<u64>, message: String) {
    let template = match of {
        Some(_) => "{bar:30} {percent:>3}%  {msg}  {eta} left",
        None => "{spinner} {msg}  {elapsed}",
    };
    if bar.length() != of
        && let Ok(style) = ProgressStyle::with_template(template)
    {
        bar.set_style(style);
        match of {
            Some(of) => bar.set_length(of),
            None => bar.unset_length(),
        }
    }
    bar.set_position(done);
    bar.set_message(message);
}

fn import(node: &Node<'_>, name: &str, path: &Path, options: &Options) -> Result<(), Failure> {
    let shown = std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    // Before the daemon is bothered: most mistakes are here.
    std::fs::metadata(path).map_err(|source| SourceError::Io { what: "opening", path: shown.clone(), source })?;
    let mut client = Client::connect(node.socket)?;
    client.begin(&Request::TemplateImport { name: name.to_owned(), source: shown })?;
    let bar = bar();
    let mut refused: Option<ClientError> = None;
    let mut skipped = 0;
    let told = source::read(
        path,
        options,
        &mut |p| {
            skipped = p.skipped;
            let message = format!("{} entries, {}", p.entries, show_size(p.bytes));
            advance(&bar, p.read.map_or(0, |(done, _)| done), p.read.map(|(_, of)| of), message);
        },
        &mut |event| {
            client.data(&event.encode()).map_err(|e| {
                let text = e.to_string();
                refused = Some(e);
                text.into()
            })
        },
    );
    // What the daemon said is why the reading stopped.
    if let Some(e) = refused {
        return Err(e.into());
    }
    let kind = told?;
    advance(&bar, 0, None, "making it durable".into());
    let done: Imported = client.finish(&mut |_| {})?;
    bar.finish_and_clear();
    if skipped > 0 {
        eprintln!(
            "aspfs: what is mounted in {skipped} places of it is not in the template; --cross-mounts takes it in"
        );
    }
    Ok(node.out.print(&done, || {
        let t = &done.template;
        let (bytes, new) = (show_size(t.bytes), show_size(done.new_bytes));
        format!("template {} from a {kind}: {} files, {bytes}, of which {new} are new in the store\n", t.name, t.inodes)
    })?)
}

fn verify(node: &Node<'_>, name: &str) -> Result<(), Failure> {
    let bar = bar();
    let request = Request::TemplateVerify { name: name.to_owned() };
    let mut on_progress = |p: &Progress| advance(&bar, p.done, p.of, p.doing.clone());
    let found: Damage = Client::connect(node.socket)?.ask_with(&request, &mut on_progress, &mut |_| Ok(()))?;
    bar.finish_and_clear();
    verdict(name, found.damaged, node.out.print(&found, || show::damage(&found)))
}

/// What is damaged counts, also where nobody reads on.
fn verdict(name: &str, damaged: u64, printed: io::Result<()>) -> Result<(), Failure> {
    match damaged {
        0 => Ok(printed?),
        n => Err(Failure::Partly(format!("template {name}: {n} things are damaged"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `aspfs template verify NAME | head -1` said that all was well: a reader that has seen enough is no failure, and it came before the damage.
    #[test]
    fn damage_counts_also_when_nobody_reads_of_it() {
        let closed = || Err(io::ErrorKind::BrokenPipe.into());
        assert!(matches!(verdict("t", 2, closed()), Err(Failure::Partly(text)) if text.contains("2 things")));
        assert!(matches!(verdict("t", 0, closed()), Err(Failure::Write(..))));
        assert!(verdict("t", 0, Ok(())).is_ok());
    }
}
