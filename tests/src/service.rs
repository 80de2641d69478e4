//! An application behind a proxy: a process, or a family of them, in a unit of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup::Unit;
use crate::guard::{Kid, Launch, signal_pid, until};
use crate::netns::Netns;
use crate::pace;
use crate::world::World;

pub struct Service {
    // Before the unit: what lives in it must end first.
    kid: Kid,
    unit: Option<Unit>,
}

impl Service {
    pub fn pid(&self) -> u32 {
        self.kid.pid()
    }

    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    pub fn signal(&self, signal: i32) {
        self.kid.signal(signal);
    }

    /// Kills and waits until it is gone.
    pub fn kill(&self, signal: i32) {
        self.signal(signal);
        self.gone();
    }

    pub fn gone(&self) {
        self.kid.wait(Duration::from_secs(20));
    }

    /// Every process of its unit.
    pub fn pids(&self) -> Vec<u32> {
        self.unit.as_ref().map_or_else(|| vec![self.pid()], Unit::pids)
    }

    pub fn signal_all(&self, signal: i32) {
        for pid in self.pids() {
            signal_pid(pid, signal);
        }
    }

    /// Waits until somebody listens on this TCP port in its namespace, or the socket file is there.
    pub fn listening(&self, at: &str) -> Result<()> {
        let ready = || match at.strip_prefix('/') {
            Some(_) => std::path::Path::new(at).exists().then_some(()),
            None => listens(self.pid(), at.rsplit(':').next()?.parse().ok()?).then_some(()),
        };
        until(Duration::from_secs(90), ready).with_context(|| match self.kid.ended() {
            Some(status) => format!("the service for {at} ended with {status}"),
            None => format!("nothing listens on {at} after 90 s"),
        })
    }
}

/// Does anybody listen on this port in the network namespace of this process?
pub fn listens(pid: u32, port: u16) -> bool {
    let wanted = format!(":{port:04X} ");
    ["tcp", "tcp6"].iter().any(|table| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            format!("{local} ").ends_with(&wanted) && fields.nth(1) == Some("0A")
        })
    })
}

/// How many connections wait in the accept queue of the listener at this address.
pub fn queue(pid: u32, at: &str) -> Option<u32> {
    let port: u16 = at.rsplit(':').next()?.parse().ok()?;
    let wanted = format!(":{port:04X}");
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listener = fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == "0A";
        let waiting = fields.get(4)?.split(':').nth(1)?;
        listener.then(|| u32::from_str_radix(waiting, 16).ok())?
    })
}

/// A service before it is started.
pub struct Draft {
    pub name: String,
    pub launch: Launch,
    pub memory: Option<u64>,
    pub log: PathBuf,
}

impl Draft {
    /// The lab's own upstream, under a name and an executable of its own.
    pub fn upstream(world: &World, ns: &Netns, name: &str, args: &[&str]) -> Result<Self> {
        let mut draft = Self::program(world, ns, name, world.alias(name)?, args);
        draft.launch.command.env(pace::VARIABLE, pace::factor().to_string());
        Ok(draft)
    }

    pub fn program(world: &World, ns: &Netns, name: &str, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            launch: Launch::new(program).args(args).within(Some(ns.handle())),
            memory: None,
            log: world.dir().join(format!("{name}.log")),
        }
    }

    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    pub fn start(self) -> Result<Service> {
        let unit = match self.memory {
            Some(bytes) => Some(Unit::limited(&self.name, bytes)?),
            None => Unit::new(&self.name)?,
        };
        self.start_in(unit)
    }

    /// Starts, and waits until it listens.
    pub fn start_at(self, address: &str) -> Result<Service> {
        let service = self.start()?;
        service.listening(address)?;
        Ok(service)
    }

    fn start_in(mut self, unit: Option<Unit>) -> Result<Service> {
        if let Some(unit) = &unit {
            self.launch.cgroups.extend(unit.procs());
        }
        let kid = self.launch.log(&self.log)?.start()?;
        Ok(Service { kid, unit })
    }
}
