//! Compiles the kernel side and leaves the object in `OUT_DIR/trace502-probes`, to be embedded by the loader.
//!
//! Needs nothing but a compiler for BPF; where there is none it says which one command to run.
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

#[path = "toolchain.rs"]
mod toolchain;

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
    let (endian, arch) = (variable("CARGO_CFG_TARGET_ENDIAN")?, variable("CARGO_CFG_TARGET_ARCH")?);
    let arch = toolchain::machine(&endian.to_string_lossy(), &arch.to_string_lossy())?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    // A folder of its own: the outer cargo holds the lock of the usual one while it waits for this build.
    let built = toolchain::compile(root, &out.join("ebpf"), arch)?;
    let object = out.join(toolchain::OBJECT);
    fs::copy(&built, &object).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(())
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this program is run by cargo"))
}
