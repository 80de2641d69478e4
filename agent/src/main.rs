//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use trace502::cli::Cli;
use trace502::commands::exit_status;
use trace502::kernel::leave_hooks;

fn main() -> ExitCode {
    let code = match Cli::parse().verb.run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("trace502: {error:#}");
            ExitCode::from(exit_status(&error))
        }
    };
    leave_hooks();
    code
}
