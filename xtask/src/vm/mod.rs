//! Guests: a command run on another kernel, with its output and its exit status.
//!
//! A guest is one of Debian's cloud kernels, an initramfs made for one command, and an emulated machine. Emulation
//! needs neither hardware support nor privileges, and boots in seconds. [`Guest`] is what tests use.
mod emulator;
mod image;
mod kernel;
mod libraries;
mod modules;
mod serial;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use kernel::Kernel;

use crate::shell;

/// The kernel series that the project promises, and boots in its tests.
pub const SERIES: [&str; 2] = ["6.1", "6.12"];
/// Where the program under test stands in a guest.
pub const AGENT: &str = "/usr/bin/trace502";

/// What the tests use of the kernel that Debian builds as modules.
const MODULES: [&str; 12] = [
    "veth",
    "unix_diag",
    "tcp_diag",
    "nf_tables",
    "nft_ct",
    "nft_reject_inet",
    "nft_limit",
    "nft_compat",
    "ip_tables",
    "iptable_filter",
    "ipt_REJECT",
    "sch_netem",
];

/// One command on one kernel.
#[derive(Debug, Clone)]
pub struct Guest {
    pub kernel: Kernel,
    pub command: Vec<String>,
    /// Set for the command, besides PATH and HOME.
    pub env: Vec<(String, String)>,
    /// Loaded in order before the command; those that the kernel has built in are skipped.
    pub modules: Vec<String>,
    pub memory_mib: u32,
    pub timeout: Duration,
    /// More words for the kernel's command line.
    pub kernel_args: String,
    files: Vec<(PathBuf, PathBuf)>,
}

/// What became of the command.
#[derive(Debug)]
pub struct Report {
    /// Standard output and standard error, as they came.
    pub output: String,
    pub status: i32,
    pub took: Duration,
}

impl Guest {
    pub fn new<S: AsRef<str>>(kernel: &Kernel, command: &[S]) -> Self {
        Self {
            kernel: kernel.clone(),
            command: command.iter().map(|word| word.as_ref().to_owned()).collect(),
            env: Vec::new(),
            modules: MODULES.map(String::from).to_vec(),
            memory_mib: 1024,
            timeout: Duration::from_secs(120),
            kernel_args: String::new(),
            files: Vec::new(),
        }
    }

    /// Puts a file or a folder of the host into the guest, with the shared libraries that it needs.
    pub fn file(&mut self, host: impl Into<PathBuf>, guest: impl Into<PathBuf>) -> &mut Self {
        self.files.push((host.into(), guest.into()));
        self
    }

    /// Puts a program of the host into the guest, at the same place, found as a shell would.
    pub fn program(&mut self, name: &str) -> Result<&mut Self> {
        let path = shell::which(name).with_context(|| format!("{name} is not installed"))?;
        Ok(self.file(path.clone(), path))
    }

    /// Boots, runs the command and hands over each line of output as it comes.
    pub fn run(&self, on_line: &mut dyn FnMut(&str)) -> Result<Report> {
        let folder = Scratch::new()?;
        let marker = serial::Marker::new();
        let mut image = image::Image::new();
        for (host, guest) in &self.files {
            image.add(host, guest)?;
        }
        self.add_program(&mut image)?;
        image.add_libraries()?;
        let modules = modules::load_order(&self.kernel.modules, &self.modules)?;
        image.add_system(&modules, &self.script(), &marker)?;
        let initramfs = folder.0.join("initramfs");
        image.write(&initramfs)?;
        emulator::run(self, &initramfs, &folder.0, &marker, on_line)
    }

    /// The command's own program, unless it was given as a file or the guest's busybox has it.
    fn add_program(&self, image: &mut image::Image) -> Result<()> {
        let Some(name) = self.command.first() else { return Ok(()) };
        let path = Path::new(name);
        if path.is_absolute() && path.is_file() && !image.has(path) {
            return image.add(path, path);
        }
        if !name.contains('/') && !image.provides(name) {
            let found =
                shell::which(name).with_context(|| format!("there is no program {name} to put into the guest"))?;
            return image.add(&found, &found);
        }
        Ok(())
    }

    /// The command as a shell script, run by the guest's first process.
    fn script(&self) -> String {
        let mut script = String::new();
        for (name, value) in &self.env {
            script.push_str(&format!("export {name}={}\n", shell::quote(value)));
        }
        let words: Vec<String> = self.command.iter().map(|word| shell::quote(word)).collect();
        script.push_str(&format!("exec {}\n", words.join(" ")));
        script
    }
}

/// A folder for one run, gone after it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("run-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = shell::target()?.join("vm").join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on it, and `cargo clean` takes what stays.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
