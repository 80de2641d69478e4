//! `cargo xtask lab` and `cargo xtask demo`: run these programs of the tests crate as root. What they do stands there.
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::tools::Group;
use crate::{build, setup, shell, vm};

/// On these kernels in turn, or on this host. `agent` is a build of the program with the lab next to it.
pub fn run(kernels: &[String], agent: Option<&Path>, args: &[String]) -> Result<ExitCode> {
    if kernels.is_empty() {
        lab(args)?;
    }
    let agent = match agent {
        _ if kernels.is_empty() => return Ok(ExitCode::SUCCESS),
        Some(agent) => std::path::absolute(agent)?,
        None => {
            setup::quietly(&[Group::Build, Group::Tests, Group::Vm])?;
            shell::run(shell::cargo().args(["build", "--release", "--package", "trace502-tests", "--bins"]))?;
            build::trace502(true)?
        }
    };
    let built = agent.parent().context("the program is in no folder")?;
    let mut good = true;
    for series in kernels {
        let kernel = vm::Kernel::newest(series)?;
        println!("== kernel {}: lab", kernel.release);
        let mut guest = guest(&kernel, &agent, built, args)?;
        guest.timeout = Duration::from_secs(900);
        good &= guest.run(&mut |line| println!("{line}"))?.status == 0;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the program and the lab, and becomes the lab.
fn lab(args: &[String]) -> Result<()> {
    become_binary("lab", args, "making network namespaces and reading the kernel's events")
}

/// The same for the demo, which is a small lab with a view.
pub fn demo(args: &[String]) -> Result<()> {
    become_binary("demo", args, "making network namespaces and reading the kernel's events")
}

/// Builds the program and a binary of the tests crate, and becomes that as root.
pub(crate) fn become_binary(name: &str, args: &[String], why: &str) -> Result<()> {
    setup::quietly(&[Group::Build, Group::Tests])?;
    build::trace502(true)?;
    shell::run(shell::cargo().args(["build", "--release", "--package", "trace502-tests", "--bins"]))?;
    let binary = shell::target()?.join("release").join(name);
    // The lab finds the program next to itself, where it was just built: sudo keeps no environment to tell it.
    let mut command = shell::as_root(&binary, why)?;
    Err(command.args(args).exec()).with_context(|| format!("cannot run {}", binary.display()))
}

/// Programs that the lab's nginx cells use.
const PROGRAMS: [&str; 9] = ["nginx", "openssl", "ip", "nft", "iptables", "prlimit", "node", "gunicorn", "curl"];
/// Files that those read or load as they run.
const FILES: [&str; 6] = [
    "/usr/bin/python3",
    "/etc/resolv.conf",
    "/usr/lib/ssl/openssl.cnf",
    "/etc/nginx/fastcgi_params",
    "/usr/lib/x86_64-linux-gnu/xtables",
    "/usr/lib/python3/dist-packages",
];

/// The library of the system's Python, whose folder carries its version.
fn python_library() -> Result<PathBuf> {
    let python = fs::canonicalize("/usr/bin/python3").context("python3 is not installed")?;
    Ok(Path::new("/usr/lib").join(python.file_name().context("python3 has no name")?))
}

/// The cells of nginx on another kernel; the exit status is the lab's. `built` is the folder of its programs.
pub(crate) fn guest(kernel: &vm::Kernel, agent: &Path, built: &Path, args: &[String]) -> Result<vm::Guest> {
    let command =
        ["/lab/lab", "--measure", "cells", "--proxy", "nginx", "--workers", "6", "--slow", "4"].map(String::from);
    let mut guest = vm::Guest::new(kernel, &[&command[..], args].concat());
    guest.file(agent, "/lab/trace502");
    for name in ["lab", "upstream"] {
        guest.file(built.join(name), format!("/lab/{name}"));
    }
    for name in PROGRAMS {
        guest.program(name)?;
    }
    for path in FILES {
        guest.file(path, path);
    }
    let python = python_library()?;
    guest.file(python.clone(), python);
    guest.modules.push("tun".into());
    guest.memory_mib = 2048;
    Ok(guest)
}
