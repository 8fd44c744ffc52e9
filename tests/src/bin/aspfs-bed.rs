//! The program of a test's bed: see `aspfs_tests::mounted::program`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: aspfs_tools::sys::Resident<std::alloc::System> = aspfs_tools::sys::Resident(std::alloc::System);

fn main() -> ExitCode {
    aspfs_tests::mounted::program::main()
}
