//! `aspfs-holder`: keeps mounts while the daemon is away. Started by `aspfsd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match aspfs_holder::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("aspfs-holder: {e}");
            ExitCode::FAILURE
        }
    }
}
