//! What the agent gives up once its probes are attached, and what remains and why.
//!
//! [`give_up`] is for the whole process and must come before any thread is started: capabilities belong to threads.
//! [`hermit`] is for a thread that needs nothing of the host, like the one that faces the network.
//!
//! Landlock is for hermits only. A thread under it may no longer look into other processes, whatever its rules are
//! (`/proc/PID/exe`, `fd`, `root` are refused like ptrace), and looking into processes is what the engine does.

mod calls;
mod caps;
mod hermit;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

pub use caps::{KEPT, Kept};
pub use hermit::{Shelter, Walls, hermit};

#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    #[error("privileges must be given up before threads start, and {0} run")]
    Threads(usize),
    #[error("{what}: {source}; `--keep-privileges` runs without giving any up")]
    Call { what: &'static str, source: io::Error },
}

/// What the process may still do.
#[derive(Clone, Debug)]
pub struct Remaining {
    pub capabilities: Vec<&'static Kept>,
    /// Why system calls are not confined, if they are not.
    pub open_calls: Option<String>,
}

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.capabilities.is_empty() {
            f.write_str("no capabilities")?;
        }
        for (i, kept) in self.capabilities.iter().enumerate() {
            write!(f, "{}{} (to {})", if i > 0 { ", " } else { "" }, kept.name, kept.why)?;
        }
        f.write_str("; no new privileges; ")?;
        match &self.open_calls {
            None => f.write_str("system calls confined (seccomp)"),
            Some(why) => write!(f, "system calls not confined: {why}"),
        }
    }
}

/// Gives up everything that attaching needed and running does not. Cannot be undone.
pub fn give_up() -> Result<Remaining, PrivilegeError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(PrivilegeError::Threads(threads));
    }
    caps::no_new_privileges()?;
    let capabilities = caps::keep(&caps::wanted(kernel_version()))?;
    let open_calls = calls::confine().err();
    Ok(Remaining { capabilities, open_calls })
}

/// Major and minor version of the running kernel; (0, 0) if it does not say.
fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
