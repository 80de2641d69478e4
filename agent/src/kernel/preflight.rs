//! What this kernel is and what this process may do, read from files below a root before anything is loaded.
//!
//! Facts only: what they mean, and the way out, is in `findings`. Whether a program loads is never guessed here; the
//! loader tries and tells.

use super::btf;
use super::capabilities::{self, Held};
use super::symbols::Symbols;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};

/// The newest helper that the programs call, and the kernel that brought it. Asked of BTF, since distributions carry
/// helpers back to older versions.
pub const HELPER: &str = "BPF_FUNC_task_pt_regs";
pub const OLDEST: (u32, u32) = (5, 15);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lockdown {
    None,
    Integrity,
    Confidentiality,
    /// securityfs is not mounted, or this kernel has no lockdown.
    Unknown,
}

/// Whether fentry and fexit work. Only a try can tell, so the loader fills it in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "why")]
pub enum Trampolines {
    NotTried,
    Available,
    Refused(String),
}

#[derive(Clone, Debug, Serialize)]
pub struct Preflight {
    pub release: String,
    #[serde(skip)]
    pub version: Option<(u32, u32)>,
    /// Bytes of BTF, or why there is none.
    #[serde(serialize_with = "either")]
    pub btf: Result<usize, String>,
    /// Whether BTF lists the newest helper that the programs need.
    pub helpers: Option<bool>,
    pub lockdown: Lockdown,
    pub tracefs: Option<PathBuf>,
    pub jit: Option<bool>,
    pub trampolines: Trampolines,
    pub unprivileged_bpf: Option<bool>,
    pub kernel_symbols: bool,
    /// The effective one.
    pub uid: Option<u32>,
    pub capabilities: Vec<Held>,
    /// Capabilities count on the host only in its first user namespace.
    pub host_users: bool,
    /// Process ids of the kernel are ours only in the first pid namespace.
    pub host_pids: bool,
    /// Bytes that may be locked; `None` is no limit.
    pub memlock: Option<u64>,
    /// This program, as `setcap` would be told.
    #[serde(skip)]
    pub exe: String,
    /// What it was told to do, to be told again with `sudo`.
    #[serde(skip)]
    pub again: String,
}

impl Preflight {
    /// Everything below `root`, which is `/` but in tests. A file that cannot be read is an unknown fact, not an error.
    pub fn read(root: &Path) -> Preflight {
        let line = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default().trim().to_string();
        let link = |path: &str| std::fs::read_link(root.join(path)).ok().map(|to| to.to_string_lossy().into_owned());
        let release = line("proc/sys/kernel/osrelease");
        let version = version(&release);
        let status = line("proc/self/status");
        let last = line("proc/sys/kernel/cap_last_cap").parse().unwrap_or(63);
        let effective = field(&status, "CapEff:", 0).and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0);
        let (btf, helpers) = match blob(root) {
            Ok((size, helpers)) => (Ok(size), helpers),
            Err(why) => (Err(why), None),
        };
        let number = |path: &str| line(path).parse::<u32>().ok();
        let mut preflight = Preflight {
            version,
            btf,
            helpers,
            lockdown: lockdown(&line("sys/kernel/security/lockdown")),
            tracefs: tracefs(root),
            jit: number("proc/sys/net/core/bpf_jit_enable").map(|value| value != 0),
            trampolines: Trampolines::NotTried,
            unprivileged_bpf: number("proc/sys/kernel/unprivileged_bpf_disabled").map(|value| value == 0),
            kernel_symbols: Symbols::readable(root),
            uid: field(&status, "Uid:", 1).and_then(|word| word.parse().ok()),
            capabilities: Vec::new(),
            host_users: first_user_namespace(&line("proc/self/uid_map")),
            host_pids: link("proc/self/ns/pid").is_none_or(|name| name == "pid:[4026531836]"),
            memlock: memlock(&line("proc/self/limits")),
            exe: link("proc/self/exe").unwrap_or_else(|| "trace502".into()),
            again: again(&std::fs::read(root.join("proc/self/cmdline")).unwrap_or_default()),
            release,
        };
        preflight.capabilities = capabilities::held(effective, last, preflight.counts_memlock());
        preflight
    }

    /// Before 5.11 maps count against RLIMIT_MEMLOCK; since then, against the memory cgroup.
    pub fn counts_memlock(&self) -> bool {
        self.version.is_some_and(|version| version < (5, 11))
    }

    /// Whether everything is known to the kernel that the programs ask of it.
    pub fn new_enough(&self) -> bool {
        // A release that cannot be read is not held against the kernel: loading will tell.
        self.helpers.unwrap_or_else(|| self.version.is_none_or(|version| version >= OLDEST))
    }

    pub fn holds(&self, name: &str) -> bool {
        self.capabilities.iter().any(|capability| capability.name == name && capability.held)
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot raise RLIMIT_MEMLOCK, which kernels before 5.11 count maps against: {0}; \
     run with CAP_SYS_RESOURCE, or set LimitMEMLOCK=infinity in the unit"
)]
pub struct MemlockError(std::io::Error);

/// Lifts the limit on locked memory where this kernel counts maps against it; elsewhere leaves it alone.
pub fn raise_memlock(preflight: &Preflight) -> Result<(), MemlockError> {
    if !preflight.counts_memlock() {
        return Ok(());
    }
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a live, initialised rlimit that the call only reads.
    match unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) } {
        0 => Ok(()),
        _ => Err(MemlockError(std::io::Error::last_os_error())),
    }
}

/// `{"bytes": …}` or `{"error": …}`.
fn either<S: Serializer>(btf: &Result<usize, String>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    match btf {
        Ok(bytes) => map.serialize_entry("bytes", bytes)?,
        Err(error) => map.serialize_entry("error", error)?,
    }
    map.end()
}

fn blob(root: &Path) -> Result<(usize, Option<bool>), String> {
    let blob = btf::read(root).map_err(|error| error.to_string())?;
    let helpers = btf::lists(&blob, "bpf_func_id", HELPER).map_err(|error| error.to_string())?;
    Ok((blob.len(), helpers))
}

/// The words after the program's name, as a shell takes them.
fn again(cmdline: &[u8]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    let cmdline = String::from_utf8_lossy(cmdline);
    let words = cmdline.trim_end_matches('\0').split('\0').skip(1).map(|word| match word {
        word if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { "doctor".into() } else { words.join(" ") }
}

/// `6.12.41+deb13-cloud-amd64` is 6.12.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Word number `nth` after `name` in /proc/self/status.
fn field<'a>(status: &'a str, name: &str, nth: usize) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().nth(nth)
}

/// `none [integrity] confidentiality`: the one in brackets holds.
fn lockdown(line: &str) -> Lockdown {
    match line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word) {
        Some("none") => Lockdown::None,
        Some("integrity") => Lockdown::Integrity,
        Some("confidentiality") => Lockdown::Confidentiality,
        _ => Lockdown::Unknown,
    }
}

fn tracefs(root: &Path) -> Option<PathBuf> {
    // Without the privilege to look inside, the directory is there and `events` is not seen to be.
    ["sys/kernel/tracing", "sys/kernel/debug/tracing"]
        .into_iter()
        .find(|path| root.join(path).join("events").is_dir())
        .map(|path| Path::new("/").join(path))
}

/// The first user namespace maps every id to itself; a file that is absent says nothing against it.
fn first_user_namespace(map: &str) -> bool {
    map.is_empty() || map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

fn memlock(limits: &str) -> Option<u64> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
