//! `cargo xtask build` and `cargo xtask live`.
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::tools::Group;
use crate::{setup, shell};

/// Builds the program and says where it is.
pub fn trace502(release: bool) -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo.args(["build", "--package", "trace502"]);
    if release {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)?;
    Ok(shell::target()?.join(if release { "release" } else { "debug" }).join("trace502"))
}

/// From a fresh clone to the first incident: sets up, builds, and becomes `trace502 live`.
pub fn live(args: &[String]) -> Result<()> {
    setup::quietly(&[Group::Build])?;
    let program = trace502(true)?;
    let mut command = shell::as_root(&program, "reading the kernel's events")?;
    Err(command.arg("live").args(args).exec()).with_context(|| format!("cannot run {}", program.display()))
}
