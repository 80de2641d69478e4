//! Which proxy a process is, remembered by pid.

use std::collections::BTreeMap;

use crate::host::Host;
use crate::model::Connection;
use crate::proxies::{self, Proxy};
use crate::text;

const PROCESSES: usize = 8_192;

/// A process that proxies.
#[derive(Clone, Debug)]
pub struct Owner {
    pub pid: u32,
    pub kind: &'static Proxy,
    /// As the record calls it.
    pub name: String,
    /// The process that its workers have in common: their master, or itself.
    pub group: u32,
}

impl Owner {
    /// Of a process that nobody called a proxy less is assumed.
    pub fn as_seen(self, conn: &Connection) -> Owner {
        let unnamed = conn.found && std::ptr::eq(self.kind, proxies::OTHER);
        Owner { kind: if unnamed { proxies::FOUND } else { self.kind }, ..self }
    }
}

#[derive(Debug, Default)]
pub struct Owners {
    known: BTreeMap<u32, Owner>,
}

impl Owners {
    pub fn of(&mut self, pid: u32, comm: &str, host: &mut dyn Host) -> Owner {
        if let Some(owner) = self.known.get(&pid) {
            return owner.clone();
        }
        let facts = if pid == 0 { None } else { host.process(pid) };
        let exe = facts.as_ref().and_then(|f| f.exe.as_deref()).map(|exe| exe.rsplit('/').next().unwrap_or(exe));
        let name = facts.as_ref().map_or(comm, |f| f.name.as_str());
        let kind = exe.and_then(proxies::by_name).or_else(|| proxies::by_name(name)).or_else(|| proxies::by_name(comm));
        let group = match &facts {
            Some(own) if own.parent > 1 => match host.process(own.parent) {
                Some(parent) if parent.exe.is_some() && parent.exe == own.exe => own.parent,
                _ => pid,
            },
            _ => pid,
        };
        let name = kind.map_or_else(|| text::clipped(name, 32), |kind| kind.name.to_owned());
        let owner = Owner { pid, kind: kind.unwrap_or(proxies::OTHER), name, group };
        if pid == 0 {
            // Nobody in particular: a log that names no process.
            return owner;
        }
        if self.known.len() >= PROCESSES {
            self.known.pop_first();
        }
        self.known.insert(pid, owner.clone());
        owner
    }

    /// The pid is another process now, or none.
    pub fn forget(&mut self, pid: u32) {
        self.known.remove(&pid);
    }
}
