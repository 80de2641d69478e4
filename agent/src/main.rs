//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use trace502::cli::Cli;
use trace502::commands::{closed_early, exit_status, tell, told};
use trace502::kernel::leave_hooks;

fn main() -> ExitCode {
    let code = match Cli::parse().verb.run() {
        Ok(status) => ExitCode::from(status),
        // `| head` took what it wanted.
        Err(error) if closed_early(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell(told(&error));
            ExitCode::from(exit_status(&error))
        }
    };
    leave_hooks();
    code
}
