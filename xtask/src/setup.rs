//! `cargo xtask setup`: installs what is missing on the system it stands on, and says what it does.
use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::toolchain::{self, Missing};
use crate::tools::{self, Group};
use crate::{packages, shell};

/// Builds with every LLVM from 21 to 23, and with the Rust that this project needs.
const BPF_LINKER: &str = "0.13.0";

/// Installs, and says so when there is nothing to do.
pub fn run(groups: &[Group]) -> Result<()> {
    if !ensure(groups)? {
        println!("Nothing to do: everything is here.");
    }
    Ok(())
}

/// Installs, and says something only when there is something to do.
pub fn quietly(groups: &[Group]) -> Result<()> {
    ensure(groups).map(|_| ())
}

/// Whether something had to be installed.
fn ensure(groups: &[Group]) -> Result<bool> {
    let compiler = if groups.contains(&Group::Build) { toolchain::find().err() } else { None };
    let missing = tools::missing(groups);
    if compiler.is_none() && missing.is_empty() {
        return Ok(false);
    }
    if !missing.is_empty() {
        let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
        if !packages::here() {
            bail!("these programs are needed and not found: {}; install them and try again", programs.join(", "));
        }
        println!("Missing: {}. Installing from Debian packages.", programs.join(", "));
        install(missing.iter().map(|tool| tool.package.into()).collect())?;
    }
    if let Some(why) = compiler {
        println!("The kernel side cannot be built yet: {}.", reason(&why));
        if packages::here() {
            compiler_from_debian()?
        } else {
            compiler_from_rustup(&why)?
        }
        toolchain::find().context("set up, and still")?;
    }
    let left: Vec<&str> = tools::missing(groups).iter().map(|tool| tool.program).collect();
    if !left.is_empty() {
        bail!("installed, and still not found in PATH: {}", left.join(", "));
    }
    println!("Set up.");
    Ok(true)
}

/// The reason without the advice to run this very command.
fn reason(why: &Missing) -> String {
    let text = why.to_string();
    text.split("; run ").next().unwrap_or(&text).to_owned()
}

/// Installs packages as root, through sudo where needed.
fn install(mut names: Vec<String>) -> Result<()> {
    names.dedup();
    if shell::is_root() {
        return packages::install(&names);
    }
    let this = env::current_exe().context("cannot find this program's own file")?;
    let mut command = shell::as_root(this, "installing packages")?;
    // sudo may have to ask for a password, so standard input stays.
    let status = command.arg("packages").args(&names).status().context("cannot run sudo")?;
    if !status.success() {
        bail!("installing {} failed ({status})", names.join(" "));
    }
    Ok(())
}

/// Debian: a rustc that brings a ready `core`, and bpf-linker built against the packaged LLVM of that rustc.
fn compiler_from_debian() -> Result<()> {
    if let Err(Missing::Compiler) = toolchain::find() {
        if !packages::has_lists() {
            packages::update()?;
        }
        install(vec!["rustc-web".into(), "libstd-rust-web-dev-bpf".into()])?;
    }
    let Err(Missing::Linker | Missing::NewerLinker { .. }) = toolchain::find() else { return Ok(()) };
    let rustc = Path::new("/usr/bin/rustc");
    let llvm = toolchain::compiler_llvm(rustc).context("cannot tell the LLVM version of /usr/bin/rustc")?;
    let libraries = ["zlib1g-dev".into(), "libzstd-dev".into(), "libxml2-dev".into()];
    let llvm_packages = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
    install(libraries.into_iter().chain(llvm_packages).filter(|name| !installed(name)).collect())?;
    println!("Building bpf-linker {BPF_LINKER} against LLVM {llvm}, about a minute.");
    bpf_linker(llvm, Some(Path::new(&format!("/usr/lib/llvm-{llvm}"))))
}

fn installed(package: &str) -> bool {
    let status = shell::capture(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]));
    status.is_ok_and(|status| status == "installed")
}

/// Elsewhere: rustup's nightly with the sources of `core`, and a bpf-linker from where it can be had.
fn compiler_from_rustup(why: &Missing) -> Result<()> {
    if *why == Missing::Compiler {
        if shell::which("rustup").is_none() {
            bail!("install rustup, or on Debian and its kin rustc-web and libstd-rust-web-dev-bpf, and try again");
        }
        let toolchain = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
        shell::run(Command::new("rustup").args(toolchain))?;
    }
    match toolchain::find() {
        Ok(_) => return Ok(()),
        Err(Missing::Compiler) => bail!("rustup's nightly is installed and has no rust-src"),
        Err(Missing::Linker | Missing::NewerLinker { .. }) => {}
    }
    if shell::which("cargo-binstall").is_some() {
        return shell::run(shell::cargo().args(["binstall", "--no-confirm", "--force", "bpf-linker"]));
    }
    let Some(llvm) = packaged_llvm() else {
        bail!(
            "bpf-linker is missing: unpack the release archive for this machine from \
             https://github.com/aya-rs/bpf-linker/releases into a folder of PATH, or install cargo-binstall, and try again"
        );
    };
    println!("Building bpf-linker {BPF_LINKER} against LLVM {llvm}.");
    bpf_linker(llvm, None)
}

/// The LLVM whose development files this system has.
fn packaged_llvm() -> Option<u32> {
    let version = shell::capture(Command::new("llvm-config").arg("--version")).ok()?;
    version.split('.').next()?.trim().parse().ok()
}

fn bpf_linker(llvm: u32, prefix: Option<&Path>) -> Result<()> {
    if !(21..=23).contains(&llvm) {
        bail!("bpf-linker {BPF_LINKER} builds with LLVM 21 to 23, this system has LLVM {llvm}");
    }
    let mut cargo = shell::cargo();
    if let Some(prefix) = prefix {
        cargo.env("LLVM_PREFIX", prefix);
    }
    cargo.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force", "--no-default-features"]);
    shell::run(cargo.args(["--features", &format!("llvm-{llvm}")]))
}
