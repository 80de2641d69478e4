//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use trace502::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().verb.run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("trace502: {error:#}");
            ExitCode::FAILURE
        }
    }
}
