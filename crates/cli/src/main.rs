//! The program `eulalia`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::program::main(std::env::args_os())
}
