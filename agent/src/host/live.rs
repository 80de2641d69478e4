//! The host this program runs on, asked directly.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::netns::Namespaces;
use super::owners::Owners;
use super::proc::Procfs;
use super::processes::Processes;
use super::{Activity, DescriptorFacts, Host, ListenerFacts, MemoryFacts, PathFacts, ProcessFacts, files};
use crate::model::{Cookie, Fact, Nanos, Observation};

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
}

impl LiveHost {
    pub fn open(symbols: Symbols) -> Result<Self, HostError> {
        let root = Path::new("/proc");
        let proc = Procfs::new(root);
        if proc.stat(std::process::id()).is_none() {
            return Err(HostError::NoProc(root.display().to_string()));
        }
        let namespaces = Namespaces::new(&proc);
        Ok(Self { processes: Processes::new(root), namespaces, owners: Owners::default(), proc, symbols })
    }

    /// Keeps what an observation names, so that it is still known when it is gone. Call it before the engine asks.
    pub fn observe(&mut self, observation: &Observation) {
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
        self.process(pid);
    }
}

impl Host for LiveHost {
    fn wall_micros(&mut self, at: Nanos) -> i64 {
        self.proc.clock().wall_micros(at)
    }

    fn process(&mut self, pid: u32) -> Option<ProcessFacts> {
        let facts = self.processes.get(&self.proc, pid)?;
        if facts.alive {
            self.namespaces.note(facts.netns, pid);
        }
        Some(facts)
    }

    fn siblings(&mut self, like: &ProcessFacts) -> Vec<ProcessFacts> {
        self.processes.siblings(&self.proc, like)
    }

    fn activity(&mut self, pid: u32) -> Option<Activity> {
        self.processes.activity(&self.proc, pid)
    }

    fn memory(&mut self, pid: u32) -> Option<MemoryFacts> {
        self.processes.memory(&self.proc, pid)
    }

    fn descriptors(&mut self, pid: u32) -> Option<DescriptorFacts> {
        self.proc.descriptors(pid)
    }

    fn listeners(&mut self, netns: u32) -> Vec<ListenerFacts> {
        // A namespace that cannot be entered has no listeners that anybody could tell of.
        let Ok(sockets) = self.namespaces.listeners(&self.proc, netns) else { return Vec::new() };
        let owners = self.owners.of(&self.proc, &sockets);
        let mut facts = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let pid = owners.get(&socket.cookie).copied();
            let name = pid.and_then(|pid| self.proc.stat(pid)).map(|stat| stat.name);
            let (queue, limit, dual) = (socket.queue, socket.limit, socket.dual);
            facts.push(ListenerFacts { endpoint: socket.endpoint, pid, name, queue, limit, dual });
        }
        facts
    }

    fn netns_of(&mut self, addr: IpAddr, prefer: u32) -> Option<u32> {
        self.namespaces.having(&self.proc, addr, prefer)
    }

    fn path(&mut self, pid: u32, path: &str) -> PathFacts {
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

    fn symbol(&mut self, address: u64) -> Option<String> {
        (self.symbols)(address)
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
