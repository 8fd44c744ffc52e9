//! Two versions compared, for people and for programs: a row is printed when it comes, so that a long answer takes no memory.

use std::io::{self, BufWriter, Write};

use clap::Args;
use vefs::types::Kind;

use super::{Failure, Node};
use crate::client::{Client, ClientError};
use crate::control::conn::ConnError;
use crate::control::diff::{Became, DiffEnd, DiffRow, Inode};
use crate::control::frame::Kind as Frame;
use crate::control::message::{Id, Request};
use crate::control::path::Path;
use crate::control::versions::Named;

/// The end of the help.
pub const EXAMPLES: &str = "One line a path, in byte order:
  A /path              was added
  D /path              was removed
  M /path  what        is another or otherwise: type, content, mode, owner, xattr, device, mtime
  R /old -> /new       was renamed: the same inode has another name. What else of it changed stands behind it
Paths are those of TO; of what was removed, those of FROM. A name with a control character, a quote or a backslash stands in quotes, with \\xNN.

Files are paired by path, and by inode number where that has another name now. What is below a renamed directory is told only where it differs
itself. A hard link that was made is A, one that was removed D, and a change of a file with several names is told under each of them. A file that
was written again with the same bytes differs in its mtime alone. Of a directory the mtime is told only where its names are all the same: else they
say it. Access times, link counts, and where bytes are stored are not compared.

With --json: a list of rows, one a line, with the attributes of both sides. A row's \"linked\" says that what was added was there under another
name, or that what was removed still has one.

The daemon keeps both versions until it is done, remembers 131072 names of renamed files, and reads no more bytes than it must. Beyond that number
a renamed file is shown as A and D, and a last line says so. Nothing is looked for below paths longer than 16384 bytes: exit status 1.

Examples:
  aspfs diff '0000002A@1 hour ago'            what changed since, up to now
  aspfs diff 0000002A@before-upgrade 0000002A
  aspfs diff 0000002A@1234 0000002A@1300      between two transactions
  aspfs diff 0000002A@epoch-1.0:1234 0000002A@epoch-1.0
                                              what a lost primary had beyond the fork, 1234
  aspfs --json diff 0000002A@-5m | jq -r '.[] | select(.change == \"added\") | .path'";

/// Which versions.
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// The version to compare from, as for `aspfs mount`
    #[arg(value_name = "VEID@VERSION")]
    from: Named,
    /// The version to compare with, of the same VE; without a version, and when it is left out, its present state
    #[arg(value_name = "VEID[@VERSION]")]
    to: Option<Named>,
}

/// Compares two versions.
pub(super) fn run(node: &Node<'_>, args: &DiffArgs) -> Result<(), Failure> {
    let to = args.to.clone().unwrap_or(Named { ve: args.from.ve, version: None });
    if to.ve != args.from.ve {
        let text = format!("two versions of one VE are compared, and {} is not {}", to.ve, args.from.ve);
        return Err(Failure::Usage(text));
    }
    let request = Request::Diff { ve: Id(to.ve), from: args.from.version.clone(), to: to.version };
    let mut out = BufWriter::new(io::stdout().lock());
    let json = node.out.is_json();
    let (mut rows, mut failed) = (0u64, None);
    let answer: Result<DiffEnd, ClientError> =
        Client::connect(node.socket)?.ask_with(&request, &mut |_| {}, &mut |frame| {
            if frame.kind == Frame::Row {
                let text = if json { json_line(&frame.parse()?, rows) } else { Ok(line(&frame.parse()?)) };
                rows += 1;
                text.and_then(|text| out.write_all(text.as_bytes())).map_err(|e| {
                    let kind = e.kind();
                    failed = Some(e);
                    ConnError::Io(kind.into())
                })?;
            }
            Ok(())
        });
    if let Some(e) = failed {
        return Err(e.into());
    }
    let end = answer?;
    out.write_all(if json { end_of_list(rows) } else { summary(&end) }.as_bytes())?;
    out.flush()?;
    if json && end.forgotten {
        eprintln!("aspfs: {FORGOTTEN}");
    }
    match end.too_deep {
        0 => Ok(()),
        n => Err(Failure::Partly(format!("{n} directories were not looked into: their paths are too long"))),
    }
}

const FORGOTTEN: &str = "more was moved than is remembered: some of what was renamed is shown as removed and added";

fn json_line(row: &DiffRow, before: u64) -> io::Result<String> {
    Ok(format!("{}{}", if before == 0 { "[\n" } else { ",\n" }, serde_json::to_string(row)?))
}

fn end_of_list(rows: u64) -> String {
    if rows == 0 { "[]\n" } else { "\n]\n" }.to_owned()
}

fn summary(end: &DiffEnd) -> String {
    let DiffEnd { added, removed, changed, renamed, .. } = end;
    let forgotten = if end.forgotten { format!("{FORGOTTEN}\n") } else { String::new() };
    format!("{added} added, {removed} removed, {changed} changed, {renamed} renamed\n{forgotten}")
}

/// A row for people.
fn line(row: &DiffRow) -> String {
    let path = show_path(&row.path);
    let mut notes = Vec::new();
    if let (Some(before), Some(after)) = (&row.before, &row.after) {
        notes.extend(row.differs.iter().map(|what| difference(what, before, after)));
    }
    let names = match row.change {
        Became::Added => format!("A {path}"),
        Became::Removed => format!("D {path}"),
        Became::Changed => format!("M {path}"),
        Became::Renamed => format!("R {} -> {path}", row.from.as_ref().map(show_path).unwrap_or_default()),
    };
    if row.change != Became::Changed && row.change != Became::Renamed {
        let kind = row.after.as_ref().or(row.before.as_ref()).map(|inode| kind(inode.mode));
        notes.extend(kind.filter(|kind| *kind != "file").map(str::to_owned));
    }
    match row.change {
        Became::Added if row.linked => notes.push("another name of what was there".into()),
        Became::Removed if row.linked => notes.push("has another name".into()),
        Became::Renamed if row.replaced => notes.push("in the place of another".into()),
        _ => {}
    }
    if notes.is_empty() { names + "\n" } else { format!("{names}  {}\n", notes.join(", ")) }
}

fn difference(what: &str, before: &Inode, after: &Inode) -> String {
    let device = |inode: &Inode| inode.device.map_or("none".into(), |(major, minor)| format!("{major}:{minor}"));
    match what {
        "type" => format!("type {} -> {}", kind(before.mode), kind(after.mode)),
        "content" if before.size != after.size => format!("content {} -> {} bytes", before.size, after.size),
        "mode" => format!("mode {:04o} -> {:04o}", before.mode & 0o7777, after.mode & 0o7777),
        "owner" => format!("owner {}:{} -> {}:{}", before.uid, before.gid, after.uid, after.gid),
        "device" => format!("device {} -> {}", device(before), device(after)),
        other => other.to_owned(),
    }
}

fn kind(mode: u32) -> &'static str {
    match Kind::of_mode(mode) {
        Some(Kind::Regular) => "file",
        Some(Kind::Directory) => "directory",
        Some(Kind::Symlink) => "symlink",
        Some(Kind::Fifo) => "fifo",
        Some(Kind::Socket) => "socket",
        Some(Kind::CharDevice) => "character device",
        Some(Kind::BlockDevice) => "block device",
        None => "unknown",
    }
}

/// A path on one line and as nothing else: in quotes where it has what a line must not, or could be taken for two.
pub(super) fn show_path(path: &Path) -> String {
    let plain = |text: &str| !text.contains(" -> ") && !text.chars().any(|c| c.is_control() || c == '"' || c == '\\');
    if let Path::Text(text) = path
        && plain(text)
    {
        return text.clone();
    }
    let mut out = String::from("\"");
    for chunk in path.bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if c.is_control() => c.encode_utf8(&mut [0; 4]).bytes().for_each(|b| out += &format!("\\x{b:02x}")),
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|b| out += &format!("\\x{b:02x}"));
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(mode: u32, size: u64) -> Inode {
        Inode { ino: 5, mode, uid: 0, gid: 0, size, device: None, mtime: "now".into() }
    }

    fn row(change: Became, path: &[u8]) -> DiffRow {
        let (before, after) = (Some(inode(0o100644, 5)), Some(inode(0o100600, 7)));
        let path = Path::new(path);
        DiffRow { change, path, from: None, differs: Vec::new(), linked: false, replaced: false, before, after }
    }

    #[test]
    fn rows_as_lines() {
        let differs = vec!["content".into(), "mode".into(), "mtime".into()];
        let changed = DiffRow { differs: differs.clone(), ..row(Became::Changed, b"/f") };
        assert_eq!(line(&changed), "M /f  content 5 -> 7 bytes, mode 0644 -> 0600, mtime\n");
        let from = Some(Path::new(b"/a -> b"));
        let renamed = DiffRow { from, replaced: true, ..row(Became::Renamed, b"/c") };
        assert_eq!(line(&renamed), "R \"/a -> b\" -> /c  in the place of another\n");
        let added = DiffRow { before: None, after: Some(inode(0o040755, 0)), ..row(Became::Added, b"/d") };
        assert_eq!(line(&added), "A /d  directory\n");
        let removed = DiffRow { linked: true, after: None, ..row(Became::Removed, b"/x") };
        assert_eq!(line(&removed), "D /x  has another name\n");
    }

    #[test]
    fn a_path_is_one_line_and_can_be_told_from_others() {
        for (path, shown) in [
            (&b"/plain name"[..], "/plain name"),
            ("/ä".as_bytes(), "/ä"),
            (b"/a\nD /b", "\"/a\\x0aD /b\""),
            (b"/\xff\"\\", "\"/\\xff\\\"\\\\\""),
            ("/\u{85}".as_bytes(), "\"/\\xc2\\x85\""),
        ] {
            assert_eq!(show_path(&Path::new(path)), shown);
        }
    }

    #[test]
    fn rows_as_json_make_a_list() {
        for n in 0..3 {
            let rows = (0..n).map(|n| json_line(&row(Became::Changed, b"/f"), n).unwrap());
            let text = rows.collect::<String>() + &end_of_list(n);
            assert_eq!(serde_json::from_str::<Vec<DiffRow>>(&text).unwrap().len() as u64, n);
        }
    }
}
