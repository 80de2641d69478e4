//! What this host says of processes, listeners and files when it is asked: behind one trait, so that a
//! recording or a fixture can answer in its place.
//!
//! Questions only. Nothing here judges, and nothing outside this folder reads /proc or asks netlink.

mod cgroup;
mod clock;
mod containers;
mod files;
mod kept;
mod live;
mod netlink;
mod netns;
mod owners;
mod proc;
mod processes;
mod sockets;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, Nanos};

pub use clock::monotonic;
pub use live::{HostError, LiveHost, Symbols};
pub use table::TableHost;

/// The answers are owned plain data: they are written into recordings.
///
/// Every question may be answered with "not known"; none may block for longer than a few milliseconds.
pub trait Host {
    /// Wall clock of a monotonic instant, in microseconds since 1970.
    fn wall_micros(&mut self, at: Nanos) -> i64;
    /// A process, alive or remembered for some minutes after its end. Shared: each error of a flood asks.
    fn process(&mut self, pid: u32) -> Option<Arc<ProcessFacts>>;
    /// Living processes of the same unit, container or executable as this one, itself excluded.
    fn siblings(&mut self, like: &ProcessFacts) -> Vec<ProcessFacts>;
    /// What a process is doing right now: its threads' states.
    fn activity(&mut self, pid: u32) -> Option<Activity>;
    /// Memory cgroup of a process, alive or remembered.
    fn memory(&mut self, pid: u32) -> Option<MemoryFacts>;
    /// Open descriptors of a living process and its soft limit.
    fn descriptors(&mut self, _pid: u32) -> Option<DescriptorFacts> {
        None
    }
    /// Sockets that listen in a network namespace (inode; 0: our own).
    fn listeners(&mut self, netns: u32) -> Listeners;
    /// The namespace of this host that has this address, `prefer` first.
    fn netns_of(&mut self, addr: IpAddr, prefer: u32) -> Option<u32>;
    /// A path as the process sees it (its root and mount namespace).
    fn path(&mut self, pid: u32, path: &str) -> PathFacts;
    /// Name of the kernel function at this address.
    fn symbol(&mut self, address: u64) -> Option<String>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    pub pid: u32,
    pub parent: u32,
    pub name: String,
    pub exe: Option<String>,
    /// First words of the command line, never more than three.
    pub cmdline: Vec<String>,
    /// CLOCK_MONOTONIC nanoseconds of its start.
    pub started: Nanos,
    pub alive: bool,
    pub unit: Option<String>,
    /// First twelve digits of the container id.
    pub container: Option<String>,
    /// What people call it, where its runtime tells.
    pub container_name: Option<String>,
    pub cgroup: Option<String>,
    pub netns: u32,
    pub uid: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// State letters of its threads (R S D T Z ...), main thread first, at most 64.
    pub states: String,
    /// Kernel function the main thread waits in, where it may be read.
    pub waits_in: Option<String>,
    /// It was watched for some milliseconds, and did nothing but compute. One that can run just now may only have been
    /// woken by what is asked about.
    #[serde(default)]
    pub busy: bool,
    /// Its cgroup is frozen: nothing in it runs.
    #[serde(default)]
    pub frozen: bool,
    /// CPU time it used since its start, in milliseconds.
    pub cpu_ms: u64,
    /// Times its CPU cgroup was throttled.
    pub throttled: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFacts {
    pub cgroup: String,
    /// `None`: no limit.
    pub limit: Option<u64>,
    pub usage: Option<u64>,
    /// Times the limit led to a kill.
    pub kills: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorFacts {
    pub open: u64,
    pub limit: u64,
}

/// Shared, since a namespace may have thousands and a flood of errors asks for them all.
pub type Listeners = Arc<[ListenerFacts]>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerFacts {
    pub endpoint: Endpoint,
    pub pid: Option<u32>,
    pub name: Option<String>,
    pub queue: u32,
    pub limit: u32,
    /// An IPv6 wildcard socket that takes IPv4 too.
    pub dual: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathFacts {
    pub exists: bool,
    pub is_socket: bool,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// The first directory on the way that the asking process may not enter.
    pub blocked_at: Option<String>,
}

/// Whether a listener would take a connection to this address.
pub fn takes(listener: &ListenerFacts, target: SocketAddr) -> bool {
    match &listener.endpoint {
        Endpoint::Tcp(at) if at.port() == target.port() => {
            at.ip() == target.ip()
                || (at.ip().is_unspecified()
                    && (at.is_ipv4() == target.is_ipv4() || (listener.dual && target.is_ipv4())))
        }
        _ => false,
    }
}

/// Whether two processes belong to the same service: one container or one unit; without either, one program.
///
/// A login session or a user's manager holds many services: there the program must agree.
pub fn same_service(a: &ProcessFacts, b: &ProcessFacts) -> bool {
    if a.container.is_some() || b.container.is_some() {
        return a.container == b.container;
    }
    match &a.unit {
        Some(unit) if unit.ends_with(".service") && !unit.starts_with("user@") => a.unit == b.unit,
        _ => same_program(a, b),
    }
}

/// Whether both run the same, as far as can be told: one program, or one name that is not just its interpreter's.
pub fn alike(a: &ProcessFacts, b: &ProcessFacts) -> bool {
    // Node calls itself so.
    let own = |name: &str| name != "MainThread" && !interprets(name);
    same_program(a, b) || (a.name == b.name && own(&a.name))
}

/// One executable and, where that is an interpreter, one script.
fn same_program(a: &ProcessFacts, b: &ProcessFacts) -> bool {
    // The kernel marks an executable that was replaced while it ran.
    let plain = |exe: &str| exe.strip_suffix(" (deleted)").unwrap_or(exe).to_owned();
    match (&a.exe, &b.exe) {
        (Some(exe), Some(other)) => plain(exe) == plain(other) && (!interprets(exe) || script(a) == script(b)),
        _ => a.name == b.name,
    }
}

fn interprets(exe: &str) -> bool {
    let name = exe.rsplit('/').next().unwrap_or(exe);
    ["python", "node", "java", "ruby", "perl", "php", "bash", "dash", "sh", "deno", "bun", "dotnet", "beam"]
        .iter()
        .any(|known| name.strip_prefix(known).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic())))
}

/// The words up to the script or module that an interpreter runs.
fn script(facts: &ProcessFacts) -> &[String] {
    let words = facts.cmdline.get(1..).unwrap_or_default();
    let end = words.iter().position(|word| !word.starts_with('-')).map_or(words.len(), |at| at + 1);
    &words[..end]
}
