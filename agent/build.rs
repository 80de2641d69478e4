//! Compiles the kernel side and leaves the object in `OUT_DIR/trace502-probes`, to be embedded by the loader.
//!
//! Needs nothing but a compiler for BPF; where there is none it says which one command to run.
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

#[path = "toolchain.rs"]
mod toolchain;

use toolchain::{Core, TARGET};

const OBJECT: &str = "trace502-probes";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // The one line that cargo shows without its "caused by" frame.
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let agent = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = agent.parent().ok_or("the agent's folder has no parent")?;
    for watched in ["ebpf", "Cargo.toml", "agent/build.rs", "agent/toolchain.rs"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let arch = bpf_target_arch()?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    let built = compile(root, &out, arch)?;
    let object = out.join(OBJECT);
    fs::copy(&built, &object).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(())
}

/// The machine whose registers and system calls the probes read.
fn bpf_target_arch() -> Result<&'static str, String> {
    if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        return Err(
            "trace502 reads the kernel's structures as little-endian; big-endian machines are not supported".into()
        );
    }
    match variable("CARGO_CFG_TARGET_ARCH")?.to_str() {
        Some("x86_64") => Ok("x86_64"),
        Some("aarch64") => Ok("aarch64"),
        other => Err(format!(
            "the registers and system calls of {} are not known to trace502; it runs on x86_64 and aarch64",
            other.unwrap_or("this machine")
        )),
    }
}

fn compile(root: &Path, out: &Path, arch: &str) -> Result<PathBuf, String> {
    let found = toolchain::find().map_err(|missing| missing.to_string())?;
    let mut cargo = match &found.core {
        Core::Source { cargo } => Command::new(cargo),
        Core::Ready => Command::new(variable("CARGO")?),
    };
    toolchain::clear_inherited(&mut cargo);
    // A folder of its own: the outer cargo holds the lock of the usual one while it waits for this build.
    let target = out.join("ebpf");
    cargo.current_dir(root).arg("build").args(["--package", "trace502-ebpf", "--bin", OBJECT, "--features", "program"]);
    cargo.args(["--release", "--target", TARGET, "--target-dir"]).arg(&target);
    // The debug information becomes the object's BTF, and bpf-linker sees the whole program anyway.
    cargo.args(["--config", "profile.release.strip=false", "--config", "profile.release.lto=false"]);
    if matches!(found.core, Core::Source { .. }) {
        cargo.args(["-Z", "build-std=core"]);
    }
    cargo.env("RUSTC", &found.rustc).env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(arch, &found.linker));
    // Standard output belongs to the outer cargo's directives.
    let status = cargo.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|error| format!("cannot run {}: {error}", cargo.get_program().display()))?;
    if !status.success() {
        return Err(format!("the kernel side did not compile with {} (output below)", found.rustc.display()));
    }
    Ok(target.join(TARGET).join("release").join(OBJECT))
}

fn flags(arch: &str, linker: &Path) -> OsString {
    let mut flags =
        OsString::from(format!("--cfg=bpf_target_arch=\"{arch}\"\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f-Clinker="));
    flags.push(linker);
    flags
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this program is run by cargo"))
}
