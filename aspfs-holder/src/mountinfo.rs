//! `/proc/self/mountinfo` (proc_pid_mountinfo(5)): what is mounted where, in this process's mount namespace. Reading it touches no
//! mount.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub dir: PathBuf,
    /// The options of the mount, not of its file system, like `ro,nosuid,noatime`.
    pub options: String,
    /// Its type, like `fuse.vefs`.
    pub kind: String,
    /// Its source.
    pub source: String,
}

/// All mounts, in the order in which they were attached.
pub fn read() -> io::Result<Vec<Line>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The topmost mount at exactly this place.
pub fn at<'a>(lines: &'a [Line], dir: &Path) -> Option<&'a Line> {
    lines.iter().rev().find(|line| line.dir == dir)
}

/// What such a file says; lines that are not understood are left out.
pub fn parse(text: &[u8]) -> Vec<Line> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|b| *b == b' ');
    let number = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = number.split_once(':')?;
    let dir = unescape(fields.nth(1)?);
    let options = String::from_utf8_lossy(fields.next()?).into_owned();
    // Any number of optional fields, then a dash.
    fields.find(|field| *field == b"-")?;
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    let device = (major.parse().ok()?, minor.parse().ok()?);
    Some(Line { device, dir: PathBuf::from(OsString::from_vec(dir)), options, kind, source })
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits {
            Some(d) => {
                let value = d.iter().fold(0u32, |v, b| v * 8 + u32::from(b - b'0'));
                out.push(value as u8);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n\
            40 36 0:52 / /a\\040b\\134c rw - fuse.vefs my\\040web rw\nnonsense\n1 2 3\n";
        let lines = parse(text);
        assert_eq!(lines.len(), 2);
        let line = |device, dir: &str, options: &str, kind: &str, source: &str| Line {
            device,
            dir: dir.into(),
            options: options.into(),
            kind: kind.into(),
            source: source.into(),
        };
        assert_eq!(lines[0], line((98, 0), "/mnt2", "rw,noatime", "ext3", "/dev/root"));
        assert_eq!(lines[1], line((0, 52), "/a b\\c", "rw", "fuse.vefs", "my web"));
        assert_eq!(at(&lines, Path::new("/mnt2")).map(|l| l.device), Some((98, 0)));
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(at(&read().unwrap(), Path::new("/")).is_some());
    }
}
