//! What tests need a process of its own for.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use aspfs_tools::template::sink::Import;
use aspfs_tools::template::source;
use nix::fcntl::{FcntlArg, fcntl};
use vefs::Store;
use vefs::change::Settings;
use vefs::ids::VeId;

type Done = Result<(), Box<dyn std::error::Error>>;

/// Does one of these things; the exit status tells whether it could.
pub fn main(what: &str, args: &[&str]) -> ExitCode {
    let done = match (what, args) {
        ("import", [store, source, ves @ ..]) => import(Path::new(store), Path::new(source), ves),
        ("lock", [file]) => lock(Path::new(file)),
        ("write", [file, text]) => write(Path::new(file), text),
        ("sleep", []) => wait_for_end(),
        _ => Err(format!("{what} {args:?}: unknown").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{what}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Makes a store where there is none, takes a folder's tree in, and creates VEs over it.
fn import(store: &Path, folder: &Path, ves: &[&str]) -> Done {
    if !store.exists() {
        Store::create(store)?;
    }
    let store = Arc::new(Store::open(store, vefs::Options::default())?);
    let mut import = Import::begin(&store)?;
    source::read(folder, &source::Options::default(), &mut |_| {}, &mut |event| Ok(import.event(event)?))?;
    let imported = import.finish()?;
    store.template_put("tree", imported.hash, "a test's folder")?;
    for ve in ves {
        store.create_ve(ve.parse::<VeId>()?, imported.hash, Settings::default())?;
    }
    Ok(store.close()?)
}

/// Takes a POSIX lock (fcntl(2)) on a whole file or fails at once; says so, and holds it until its standard input ends.
fn lock(file: &Path) -> Done {
    let file = OpenOptions::new().read(true).write(true).open(file)?;
    let whole = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_SETLK(&whole))?;
    println!("locked");
    wait_for_end()
}

/// Writes over the beginning of a file.
fn write(file: &Path, text: &str) -> Done {
    use std::os::unix::fs::FileExt;
    Ok(File::options().write(true).open(file)?.write_all_at(text.as_bytes(), 0)?)
}

/// Until standard input ends.
fn wait_for_end() -> Done {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
