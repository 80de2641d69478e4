//! `cargo xtask lint`: what is checked without running anything.
use anyhow::{Error, Result, bail};

use crate::tools::Group;
use crate::{licences, setup, shell, toolchain};

/// Runs every check, and fails after the last.
pub fn run() -> Result<()> {
    setup::quietly(&[Group::Build])?;
    let checks = [format(), user_side(), kernel_side(), other_machine(), licences::check()];
    let failed: Vec<String> = checks.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("\n       "));
    }
    Ok(())
}

fn format() -> Result<()> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
}

fn user_side() -> Result<()> {
    shell::run(shell::cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}

/// The probes, looked at for this host: clippy knows its own `core` only, and they compile for a host as well.
fn kernel_side() -> Result<()> {
    let mut cargo = shell::cargo();
    // Without the standard library there is nothing to unwind with.
    cargo.env("CARGO_PROFILE_DEV_PANIC", "abort");
    cargo.args(["clippy", "--package", "trace502-ebpf", "--lib", "--bins", "--features", "program", "--quiet"]);
    // Apart from the other build, so that the two do not push each other out of the cache.
    cargo.arg("--target-dir").arg(shell::target()?.join("lint"));
    // A key passed by value is a copy on a stack of 512 bytes.
    shell::run(cargo.args(["--", "-D", "warnings", "-A", "clippy::needless_borrows_for_generic_args"]))
}

/// The kernel side for the machines that this one is not.
fn other_machine() -> Result<()> {
    let arch = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
    eprintln!("the kernel side for {arch}");
    toolchain::compile(shell::root(), &shell::target()?.join("lint").join(arch), arch).map(drop).map_err(Error::msg)
}
