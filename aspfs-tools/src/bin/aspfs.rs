//! `aspfs`: administers the file systems of virtual environments; called as `mount.fuse.vefs`, mount(8)'s helper.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(aspfs_tools::cli::main(std::env::args_os().collect()))
}
