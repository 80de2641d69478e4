//! The host this program runs on, asked directly.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::cgroup::{self, Mounts};
use super::kept::Kept;
use super::netns::Namespaces;
use super::owners::Owners;
use super::proc::Procfs;
use super::processes::Processes;
use super::{Activity, DescriptorFacts, Host, ListenerFacts, Listeners, MemoryFacts, PathFacts, ProcessFacts, files};
use crate::model::{Cookie, Fact, GroupPath, Nanos, Observation};

/// Names the kernel function at an address.
pub type Symbols = Box<dyn FnMut(u64) -> Option<String> + Send>;

#[derive(Debug, Error)]
pub enum HostError {
    #[error("{0} shows no processes: mount proc there, or run the agent in the host's pid namespace")]
    NoProc(String),
}

pub struct LiveHost {
    proc: Procfs,
    processes: Processes,
    namespaces: Namespaces,
    owners: Owners,
    symbols: Symbols,
    kept: Answers,
    next_gaze: Instant,
}

/// How long what is told of by the kernel side holds, what is not, and what is of the moment. To search through all
/// processes costs milliseconds; who belongs together seldom changes.
const TOLD: Duration = Duration::from_millis(100);
const SEARCHED: Duration = Duration::from_millis(500);
const UNTOLD: Duration = Duration::from_millis(50);
const MOMENT: Duration = Duration::from_millis(20);

/// How long a process is watched to see whether it computes, and how much of that it must: who was only woken to learn
/// that a connection is closed is done in a fraction of it.
const GAZE: Duration = Duration::from_millis(5);
const COMPUTED: Duration = Duration::from_millis(3);
/// Nothing else is done meanwhile.
const BETWEEN_GAZES: Duration = Duration::from_millis(100);

/// The answers of the last moment.
struct Answers {
    processes: Kept<u32, Option<Arc<ProcessFacts>>>,
    siblings: Kept<u32, Vec<ProcessFacts>>,
    activity: Kept<u32, Option<Activity>>,
    memory: Kept<u32, Option<MemoryFacts>>,
    listeners: Kept<u32, Listeners>,
    paths: Kept<(u32, String), PathFacts>,
}

impl Answers {
    fn new() -> Self {
        Self {
            processes: Kept::new(TOLD, 4096),
            siblings: Kept::new(SEARCHED, 256),
            activity: Kept::new(MOMENT, 1024),
            memory: Kept::new(TOLD, 1024),
            listeners: Kept::new(TOLD, 64),
            paths: Kept::new(UNTOLD, 256),
        }
    }

    /// This process is no more what it was.
    fn changed(&mut self, pid: u32) {
        self.processes.forget(&pid);
        self.activity.forget(&pid);
        self.memory.forget(&pid);
    }
}

impl LiveHost {
    pub fn open(symbols: Symbols) -> Result<Self, HostError> {
        let root = Path::new("/proc");
        let proc = Procfs::new(root);
        if proc.stat(std::process::id()).is_none() {
            return Err(HostError::NoProc(root.display().to_string()));
        }
        let namespaces = Namespaces::new(&proc);
        let (processes, owners) = (Processes::new(root), Owners::default());
        Ok(Self { processes, namespaces, owners, proc, symbols, kept: Answers::new(), next_gaze: Instant::now() })
    }

    /// Keeps what an observation names, so that it is still known when it is gone. Call it before the engine asks.
    pub fn observe(&mut self, observation: &Observation) {
        self.outdate(&observation.fact);
        match &observation.fact {
            Fact::Exec(proc) => self.read(proc.pid),
            Fact::Fork { parent, child } => {
                self.processes.inherit(*parent, child.pid, &child.comm, observation.at);
            }
            Fact::Listening(listening) => {
                self.read(listening.pid);
                self.namespaces.note(listening.netns, listening.pid);
                self.owners.hint(listening.cookie, listening.pid);
                self.processes.memory(&self.proc, listening.pid);
            }
            Fact::Signal { target, sender, .. } => {
                self.remember(sender.pid);
                self.remember(target.pid);
            }
            // The counters of its group as they are now; the group may go with it.
            Fact::OomKill { victim, .. } => {
                self.processes.memory(&self.proc, victim.pid);
            }
            Fact::Client(error) => self.remember(error.conn.owner.pid),
            Fact::Attempt(attempt) => self.remember(attempt.conn.owner.pid),
            _ => {}
        }
    }

    /// What was answered about this holds no longer.
    fn outdate(&mut self, fact: &Fact) {
        match fact {
            Fact::Exec(proc) => {
                self.kept.changed(proc.pid);
                self.kept.siblings.forget_if(|_, _| true);
            }
            Fact::Fork { child, .. } => self.kept.changed(child.pid),
            Fact::Exit { proc, .. } => {
                self.kept.changed(proc.pid);
                self.kept.siblings.amend(|found| found.retain(|sibling| sibling.pid != proc.pid));
                self.kept.listeners.forget_if(|_, listeners| listeners.iter().any(|l| l.pid == Some(proc.pid)));
            }
            Fact::Listening(listening) | Fact::ListenerClosed(listening) => {
                self.kept.listeners.forget(&self.namespaces.resolve(listening.netns));
            }
            Fact::OomKill { victim, .. } => self.kept.memory.forget(&victim.pid),
            _ => {}
        }
    }

    /// Reads a process unless it is known already.
    pub fn remember(&mut self, pid: u32) {
        if pid != 0 && !self.processes.knows(pid) {
            self.read(pid);
        }
    }

    /// This process owns the socket with this cookie.
    pub fn hint_owner(&mut self, cookie: Cookie, pid: u32) {
        self.owners.hint(cookie, pid);
        self.remember(pid);
    }

    /// The number of the cgroup with this path (of version 2), 0 where there is none, and every process in it.
    pub fn group(&self, path: &GroupPath) -> (u64, Vec<u32>) {
        let mounts = Mounts::read(Path::new("/proc"));
        let Some(mount) = mounts.unified() else { return (0, Vec::new()) };
        let dir = mount.join(path.as_str().trim_start_matches('/'));
        match std::fs::metadata(&dir) {
            Ok(about) => (about.ino(), cgroup::everybody(&dir)),
            Err(_) => (0, Vec::new()),
        }
    }

    /// Files that a process appends to: its logs are among them. See [`crate::logs::discover`].
    pub fn appended(&self, pid: u32) -> Vec<PathBuf> {
        self.proc.appended(pid)
    }

    /// The number of a process in its own namespace, where it is not ours.
    pub fn innermost(&self, pid: u32) -> Option<u32> {
        self.proc.innermost(pid)
    }

    /// The thorough look at who listens in our own namespace, for the start. May take a second on a large host.
    pub fn survey(&mut self) {
        let Ok(listeners) = self.namespaces.listeners(&self.proc, 0) else { return };
        let owners = self.owners.survey(&self.proc, &listeners);
        for pid in owners.into_values() {
            self.owners.likely(pid);
            self.remember(pid);
        }
    }

    fn read(&mut self, pid: u32) {
        self.processes.read(&self.proc, pid);
        self.kept.processes.forget(&pid);
        self.process(pid);
    }
}

impl Host for LiveHost {
    fn wall_micros(&mut self, at: Nanos) -> i64 {
        self.proc.clock().wall_micros(at)
    }

    fn process(&mut self, pid: u32) -> Option<Arc<ProcessFacts>> {
        if let Some(known) = self.kept.processes.get(&pid) {
            return known;
        }
        let facts = self.processes.get(&self.proc, pid);
        if let Some(facts) = facts.as_ref().filter(|facts| facts.alive) {
            self.namespaces.note(facts.netns, pid);
        }
        self.kept.processes.keep(pid, facts.map(Arc::new))
    }

    fn siblings(&mut self, like: &ProcessFacts) -> Vec<ProcessFacts> {
        match self.kept.siblings.get(&like.pid) {
            Some(known) => known,
            None => self.kept.siblings.keep(like.pid, self.processes.siblings(&self.proc, like)),
        }
    }

    fn activity(&mut self, pid: u32) -> Option<Activity> {
        if let Some(known) = self.kept.activity.get(&pid) {
            return known;
        }
        let mut activity = self.processes.activity(&self.proc, pid);
        if let Some(activity) = activity.as_mut().filter(|activity| activity.states.contains('R'))
            && self.next_gaze <= Instant::now()
        {
            let busy = computes(&self.proc, pid);
            self.next_gaze = Instant::now() + BETWEEN_GAZES;
            // Who was only woken may be back where it waits.
            if let Some(later) = self.processes.activity(&self.proc, pid) {
                *activity = Activity { busy, ..later };
            }
        }
        self.kept.activity.keep(pid, activity)
    }

    fn memory(&mut self, pid: u32) -> Option<MemoryFacts> {
        match self.kept.memory.get(&pid) {
            Some(known) => known,
            None => self.kept.memory.keep(pid, self.processes.memory(&self.proc, pid)),
        }
    }

    fn descriptors(&mut self, pid: u32) -> Option<DescriptorFacts> {
        self.proc.descriptors(pid)
    }

    fn listeners(&mut self, netns: u32) -> Listeners {
        let netns = self.namespaces.resolve(netns);
        if let Some(known) = self.kept.listeners.get(&netns) {
            return known;
        }
        // A namespace that cannot be entered has no listeners that anybody could tell of.
        let sockets = self.namespaces.listeners(&self.proc, netns).unwrap_or_default();
        let owners = self.owners.of(&self.proc, &sockets);
        let facts = sockets.into_iter().map(|socket| {
            let owner = owners.get(&socket.cookie);
            let (pid, name) = (owner.map(|(pid, _)| *pid), owner.map(|(_, stat)| stat.name.clone()));
            let (queue, limit, dual) = (socket.queue, socket.limit, socket.dual);
            ListenerFacts { endpoint: socket.endpoint, pid, name, queue, limit, dual }
        });
        let facts = facts.collect();
        self.kept.listeners.keep(netns, facts)
    }

    fn netns_of(&mut self, addr: IpAddr, prefer: u32) -> Option<u32> {
        self.namespaces.having(&self.proc, addr, prefer)
    }

    fn path(&mut self, pid: u32, path: &str) -> PathFacts {
        let key = (pid, path.to_owned());
        match self.kept.paths.get(&key) {
            Some(known) => known,
            None => {
                let facts = self.look(pid, path);
                self.kept.paths.keep(key, facts)
            }
        }
    }

    fn symbol(&mut self, address: u64) -> Option<String> {
        (self.symbols)(address)
    }
}

impl LiveHost {
    fn look(&mut self, pid: u32, path: &str) -> PathFacts {
        let (root, cwd) = (self.proc.file(pid, "root"), self.proc.file(pid, "cwd"));
        if let Some(identity) = self.proc.identity(pid).filter(|_| files::readable(&root)) {
            return files::look(&root, &cwd, path, &identity);
        }
        // It is gone. Outside a container its files were ours.
        match self.processes.get(&self.proc, pid) {
            Some(facts) if facts.container.is_none() && path.starts_with('/') => {
                let identity = super::proc::Identity { uid: facts.uid, ..Default::default() };
                files::look(Path::new("/"), Path::new("/"), path, &identity)
            }
            _ => PathFacts::default(),
        }
    }
}

/// Whether a thread of it is on a CPU for most of a while.
fn computes(proc: &Procfs, pid: u32) -> bool {
    let before = proc.running(pid);
    std::thread::sleep(GAZE);
    let after = proc.running(pid);
    let used = |(tid, then): &(u32, u64)| {
        after.iter().find(|(other, _)| other == tid).map_or(0, |(_, now)| now.saturating_sub(*then))
    };
    before.iter().map(used).max().is_some_and(|used| u128::from(used) >= COMPUTED.as_nanos())
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
