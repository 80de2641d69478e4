//! Writes man pages and shell completions, made from the command line's own definition, for packages:
//! `cargo run --example manual -- FOLDER`.
//!
//! An example and no verb of the program: nobody on call needs them, and the binary stays smaller.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use trace502::cli::Cli;

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("name the folder to write to"));
    };
    let folder = Path::new(&folder);
    let man = folder.join("man1");
    fs::create_dir_all(&man)?;
    // One page for the program and one for each verb, named trace502-VERB.1.
    clap_mangen::generate_to(Cli::command(), &man)?;
    for (shell, place) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let place = folder.join(place);
        fs::create_dir_all(&place)?;
        clap_complete::generate_to(shell, &mut Cli::command(), "trace502", place)?;
    }
    Ok(())
}
