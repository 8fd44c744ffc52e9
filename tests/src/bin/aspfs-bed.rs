//! The program of a test's bed: see `aspfs_tests::mounted::program`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    aspfs_tests::mounted::program::main()
}
