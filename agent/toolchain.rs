//! Finds the compiler and the linker of the kernel side, and drives them.
//!
//! Shared by `build.rs`, which uses what is found, and by `cargo xtask setup`, which installs what is not:
//! both include this file, so that the two never disagree. Only the standard library, and nothing is
//! installed from here.
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the kernel side is compiled for. The kernels that matter are little-endian.
pub const TARGET: &str = "bpfel-unknown-none";
/// The binary that holds the programs.
pub const OBJECT: &str = "trace502-probes";
/// The one command a message may name.
pub const SETUP: &str = "cargo xtask setup";

/// A compiler that can build for [`TARGET`], with the linker to go with it.
#[derive(Debug, Clone)]
pub struct Toolchain {
    pub rustc: PathBuf,
    pub core: Core,
    pub linker: PathBuf,
}

/// Where the compiler's `core` for BPF comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Core {
    /// Built along, from the sources in this toolchain; the cargo of the same toolchain must drive it.
    Source { cargo: PathBuf },
    /// Ready in the compiler's own library folder.
    Ready,
}

/// Why the kernel side cannot be built here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    Compiler,
    Linker,
    /// A bpf-linker is there, but its LLVM cannot read what the compiler writes.
    NewerLinker {
        linker: u32,
        compiler: u32,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler => write!(
                f,
                "no compiler for {TARGET}: neither a rustup nightly with rust-src nor a system rustc with a BPF core"
            )?,
            Self::Linker => write!(f, "no bpf-linker in PATH or in cargo's bin folder")?,
            Self::NewerLinker { linker, compiler } => {
                write!(
                    f,
                    "bpf-linker is built on LLVM {linker} and cannot read what a compiler on LLVM {compiler} writes"
                )?;
            }
        }
        write!(f, "; run `{SETUP}`")
    }
}

impl std::error::Error for Missing {}

/// The first compiler, in order of preference, that has a linker able to read its output.
pub fn find() -> Result<Toolchain, Missing> {
    let linker = linker();
    let linker_llvm = linker.as_deref().and_then(linker_llvm);
    let mut why = Missing::Compiler;
    for (rustc, core) in nightlies().into_iter().chain(system_compilers()) {
        let Some(linker) = linker.clone() else { return Err(Missing::Linker) };
        match (linker_llvm, compiler_llvm(&rustc)) {
            (Some(linker), Some(compiler)) if linker < compiler => why = Missing::NewerLinker { linker, compiler },
            _ => return Ok(Toolchain { rustc, core, linker }),
        }
    }
    Err(why)
}

/// The machine whose registers and system calls the programs read.
pub fn machine(endian: &str, arch: &str) -> Result<&'static str, String> {
    if endian != "little" {
        return Err(
            "trace502 reads the kernel's structures as little-endian and does not run on big-endian machines".into()
        );
    }
    match arch {
        "x86_64" => Ok("x86_64"),
        "aarch64" => Ok("aarch64"),
        _ => Err(format!(
            "trace502 does not know the registers and system calls of {arch}; it runs on x86_64 and aarch64"
        )),
    }
}

/// Compiles the programs for the registers and system calls of `arch`; the object's path.
pub fn compile(root: &Path, target: &Path, arch: &str) -> Result<PathBuf, String> {
    let found = find().map_err(|missing| missing.to_string())?;
    let mut cargo = match &found.core {
        Core::Source { cargo } => Command::new(cargo),
        Core::Ready => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
    };
    clear_inherited(&mut cargo);
    cargo.current_dir(root).arg("build").args(["--package", "trace502-ebpf", "--bin", OBJECT, "--features", "program"]);
    cargo.args(["--release", "--target", TARGET, "--target-dir"]).arg(target);
    // The debug information becomes the object's BTF, and bpf-linker sees the whole program anyway.
    cargo.args(["--config", "profile.release.strip=false", "--config", "profile.release.lto=false"]);
    if matches!(found.core, Core::Source { .. }) {
        cargo.args(["-Z", "build-std=core"]);
    }
    cargo.env("RUSTC", &found.rustc).env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(arch, &found.linker));
    // The standard output of a build script belongs to its directives.
    let status = cargo.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|error| format!("cannot run {}: {error}", cargo.get_program().display()))?;
    if !status.success() {
        return Err(format!("the kernel side did not compile with {}", found.rustc.display()));
    }
    Ok(target.join(TARGET).join("release").join(OBJECT))
}

fn flags(arch: &str, linker: &Path) -> OsString {
    let arch = format!("--cfg=bpf_target_arch=\"{arch}\"");
    let mut flags = OsString::from([&arch, "-Cdebuginfo=2", "-Clink-arg=--btf", "-Clinker="].join("\x1f"));
    flags.push(linker);
    flags
}

/// rustup's nightlies that have the sources of `core`.
fn nightlies() -> Vec<(PathBuf, Core)> {
    let Some(list) = output(Command::new("rustup").args(["toolchain", "list"])) else { return Vec::new() };
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| name.starts_with("nightly"))
        .filter_map(|name| {
            let sysroot = output(Command::new("rustup").args(["run", name, "rustc", "--print", "sysroot"]))?;
            let sysroot = PathBuf::from(sysroot.trim());
            let source = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
            let cargo = sysroot.join("bin/cargo");
            (source.is_file() && cargo.is_file()).then(|| (sysroot.join("bin/rustc"), Core::Source { cargo }))
        })
        .collect()
}

/// Compilers outside rustup that come with a `core` for BPF.
fn system_compilers() -> Vec<(PathBuf, Core)> {
    let mut seen = Vec::new();
    let folders = [PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")].into_iter().chain(path());
    for rustc in folders.map(|folder| folder.join("rustc")) {
        let Ok(real) = fs::canonicalize(&rustc) else { continue };
        // A proxy of rustup stands for toolchains that were looked at above, and answers slowly.
        if real.file_name().is_some_and(|name| name == "rustup") || seen.iter().any(|(path, _)| *path == real) {
            continue;
        }
        if has_ready_core(&real) {
            seen.push((real, Core::Ready));
        }
    }
    seen
}

fn has_ready_core(rustc: &Path) -> bool {
    let Some(folder) = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET])) else {
        return false;
    };
    let Ok(files) = fs::read_dir(folder.trim()) else { return false };
    files.flatten().any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// `bpf-linker`, where a user's PATH or cargo has it.
fn linker() -> Option<PathBuf> {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or(home).map(|folder| folder.join("bin"));
    path().chain(cargo).map(|folder| folder.join("bpf-linker")).find(|file| file.is_file())
}

/// The LLVM that a linker loads, `None` where it is linked in and cannot be told.
fn linker_llvm(linker: &Path) -> Option<u32> {
    let bytes = fs::read(linker).ok()?;
    ["libLLVM.so.", "libLLVM-"].into_iter().find_map(|name| {
        let name = name.as_bytes();
        let at = bytes.windows(name.len()).position(|window| window == name)? + name.len();
        number(&bytes[at..])
    })
}

/// The LLVM inside a compiler, from `LLVM version: 22.1.8`.
pub fn compiler_llvm(rustc: &Path) -> Option<u32> {
    let version = output(Command::new(rustc).arg("-vV"))?;
    number(version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.as_bytes())
}

fn number(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()
}

fn path() -> impl Iterator<Item = PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default().into_iter()
}

/// Standard output of a command that worked.
fn output(command: &mut Command) -> Option<String> {
    clear_inherited(command);
    // rustup would otherwise answer a question by a download.
    let output = command.env("RUSTUP_AUTO_INSTALL", "0").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Takes away what an outer cargo, clippy or editor set for its own compiler.
pub fn clear_inherited(command: &mut Command) {
    // Where cargo keeps and fetches things stays the user's choice.
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let cargo = text.starts_with("CARGO_") && !KEPT.iter().any(|kept| text.starts_with(kept));
        let rustc = ["RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CLIPPY_"];
        if cargo || text == "CARGO" || rustc.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_known_or_refused_with_a_sentence() {
        assert_eq!(machine("little", "x86_64"), Ok("x86_64"));
        assert_eq!(machine("little", "aarch64"), Ok("aarch64"));
        assert!(machine("big", "aarch64").unwrap_err().contains("big-endian"));
        assert!(machine("little", "riscv64").unwrap_err().contains("registers and system calls of riscv64"));
    }

    #[test]
    fn everything_that_can_be_missing_names_the_command_that_helps() {
        for missing in [Missing::Compiler, Missing::Linker, Missing::NewerLinker { linker: 21, compiler: 22 }] {
            assert!(missing.to_string().ends_with("; run `cargo xtask setup`"), "{missing}");
        }
    }

    #[test]
    fn versions_are_the_leading_number() {
        assert_eq!(number(b"22.1.8"), Some(22));
        assert_eq!(number(b"22\0junk"), Some(22));
        assert_eq!(number(b"so"), None);
    }

    #[test]
    fn an_outer_cargo_leaves_no_trace_but_its_home() {
        let mut command = Command::new("true");
        clear_inherited(&mut command);
        let removed: Vec<_> = command.get_envs().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        // cargo sets these for every test that it runs.
        assert!(removed.iter().any(|name| name == "CARGO_MANIFEST_DIR") && removed.iter().any(|name| name == "CARGO"));
        assert!(!removed.iter().any(|name| name == "PATH" || name == "CARGO_HOME"));
    }
}
