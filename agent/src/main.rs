//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use trace502::cli::Cli;
use trace502::commands::{closed_early, exit_status, tell, told};

fn main() -> ExitCode {
    match Cli::parse().verb.run() {
        Ok(status) => ExitCode::from(status),
        // `| head` took what it wanted.
        Err(error) if closed_early(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell(told(&error));
            ExitCode::from(exit_status(&error))
        }
    }
}
