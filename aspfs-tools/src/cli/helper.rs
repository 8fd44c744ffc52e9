//! mount(8)'s helper, installed as `/sbin/mount.fuse.vefs`: `mount.fuse.vefs VEID[@VERSION] DIR [-sfnvN] [-t TYPE] [-o OPTIONS]` (mount(8), "EXTERNAL
//! HELPERS"). Exit status: 2 for what was asked for wrongly, else 1.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Failure;
use crate::client::mounting;
use crate::client::options::Options;
use crate::control::versions::NameError;

/// What mount(8) asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    what: String,
    dir: PathBuf,
    options: Vec<String>,
    /// `-f`: everything but the mount itself.
    fake: bool,
}

/// Runs the helper.
pub fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let asked = parse(args)?;
    let options = Options::parse(asked.options.iter().map(String::as_str))?;
    if options.remount {
        return match asked.fake {
            true => Ok(()),
            false => Ok(mounting::remount(&asked.dir, &options)?),
        };
    }
    let what = asked.what.parse().map_err(|e: NameError| Failure::Usage(e.to_string()))?;
    if !asked.fake {
        let named = std::env::var_os("ASPFS_SOCKET").map(PathBuf::from);
        let socket = options.socket.clone().or(named).unwrap_or_else(|| crate::control::DEFAULT_SOCKET.into());
        mounting::mount(&socket, &what, &asked.dir, &options)?;
    }
    Ok(())
}

fn parse(args: Vec<OsString>) -> Result<Asked, Failure> {
    let usage = |why: &str| {
        Failure::Usage(format!("{why}; usage: mount.fuse.vefs VEID[@VERSION] DIR [-sfnv] [-t TYPE] [-o OPTIONS]"))
    };
    let mut out = Asked::default();
    let mut places = Vec::new();
    let mut args = args.into_iter().skip(1);
    while let Some(arg) = args.next() {
        let text = arg.as_bytes();
        match text {
            b"-o" => {
                let value = args.next().ok_or_else(|| usage("-o without options"))?;
                out.options.push(value.to_string_lossy().into_owned());
            }
            // The type is ours whatever it is called; the namespace is the one that mount(8) has entered already.
            b"-t" | b"-N" => drop(args.next().ok_or_else(|| usage("an option without its value"))?),
            [b'-', flags @ ..] if !flags.is_empty() && flags.iter().all(|f| b"sfnv".contains(f)) => {
                out.fake |= flags.contains(&b'f');
            }
            [b'-', ..] => return Err(usage(&format!("unknown option {:?}", arg.to_string_lossy()))),
            _ => places.push(arg),
        }
    }
    let [what, dir]: [OsString; 2] = places.try_into().map_err(|_| usage("a VE and a folder are needed"))?;
    out.what = what.to_string_lossy().into_owned();
    out.dir = dir.into();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Asked, Failure> {
        parse(["mount.fuse.vefs"].iter().chain(args).map(OsString::from).collect())
    }

    #[test]
    fn what_mount_says_is_understood() {
        let got = parsed(&["0000002A", "/mnt", "-sn", "-o", "rw,nosuid", "-t", "fuse.vefs"]).unwrap();
        assert_eq!((got.what.as_str(), got.dir.to_str(), got.fake), ("0000002A", Some("/mnt"), false));
        assert_eq!(got.options, ["rw,nosuid"]);
        assert!(parsed(&["-f", "0000002A", "/mnt"]).unwrap().fake);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [&["0000002A"][..], &[], &["a", "b", "c"], &["a", "b", "-o"], &["a", "b", "-x"], &["a", "b", "-"]] {
            assert_eq!(parsed(bad).unwrap_err().status(), 2, "{bad:?}");
        }
    }
}
