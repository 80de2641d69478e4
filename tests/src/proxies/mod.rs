//! The proxies, each from its own package, with configurations written from the routes.

mod apache;
mod caddy;
mod envoy;
mod haproxy;
mod nginx;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup::Unit;
use crate::guard::{Kid, Launch, signal_pid, until};
use crate::route::Route;
use crate::service::listens;
use crate::world::{World, lock};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Nginx,
    Haproxy,
    Apache,
    Caddy,
    Envoy,
    /// nginx in front of PHP-FPM.
    Fpm,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Nginx, Self::Haproxy, Self::Apache, Self::Caddy, Self::Envoy, Self::Fpm];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Apache => "apache",
            Self::Caddy => "caddy",
            Self::Envoy => "envoy",
            Self::Fpm => "php-fpm",
        }
    }

    /// Its column in the tables of [`crate::faults`].
    pub fn column(self) -> usize {
        self as usize
    }

    pub fn parse(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .with_context(|| format!("{name:?} is none of {}", known()))
    }
}

/// What a proxy's configuration is written from.
pub struct Site<'a> {
    pub world: &'a World,
    pub dir: PathBuf,
    pub port: u16,
    /// The same behind TLS, with HTTP/2 for those who ask for it.
    pub secure: u16,
    /// The same for HTTP/2 without TLS, for a proxy that needs a port of its own for that.
    pub plain_h2: u16,
    pub routes: &'a [Route],
    /// Processes or threads that serve.
    pub workers: usize,
}

impl Site<'_> {
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    pub fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.file(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {path}"))?;
        Ok(path)
    }
}

/// The user that unprivileged proxies run as.
pub const NOBODY: u32 = 65534;

/// A running proxy.
pub struct Proxy {
    pub kind: Kind,
    pub addr: SocketAddr,
    /// Port of the same routes behind TLS.
    pub secure: u16,
    /// Port of the same routes for HTTP/2 without TLS.
    pub plain_h2: u16,
    kid: Kid,
    unit: Option<Unit>,
    dir: PathBuf,
    /// Every process it had when somebody looked: workers go when it reloads.
    had: Mutex<BTreeSet<u32>>,
}

impl Proxy {
    pub fn start(kind: Kind, world: &World, routes: &[Route]) -> Result<Self> {
        Self::start_with(kind, world, routes, 1, kind.name())
    }

    pub fn start_with(kind: Kind, world: &World, routes: &[Route], workers: usize, name: &str) -> Result<Self> {
        let dir = world.dir().join(name);
        std::fs::create_dir_all(&dir)?;
        let (port, secure) = (world.port(), world.port());
        let own = matches!(kind, Kind::Nginx | Kind::Apache | Kind::Caddy);
        let plain_h2 = if own { world.port() } else { port };
        let site = Site { world, dir: dir.clone(), port, secure, plain_h2, routes, workers };
        let mut launch = match kind {
            Kind::Nginx | Kind::Fpm => nginx::launch(&site),
            Kind::Haproxy => haproxy::launch(&site),
            Kind::Apache => apache::launch(&site),
            Kind::Caddy => caddy::launch(&site),
            Kind::Envoy => envoy::launch(&site),
        }
        .with_context(|| format!("cannot prepare {name}"))?;
        let unit = Unit::new(name)?;
        launch.cgroups = unit.as_ref().map(Unit::procs).unwrap_or_default();
        launch.binds = world.binds();
        let kid = launch.within(Some(world.proxies.handle())).log(&dir.join("output.log"))?.start()?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let proxy = Self { kind, addr, secure, plain_h2, kid, unit, dir, had: Mutex::default() };
        proxy.wait_ready()?;
        Ok(proxy)
    }

    fn wait_ready(&self) -> Result<()> {
        let up = || match self.kid.ended() {
            Some(status) => Some(Err(anyhow::anyhow!("{} ended with {status}:\n{}", self.kind.name(), self.logs()))),
            None => listens(self.kid.pid(), self.addr.port()).then_some(Ok(())),
        };
        until(Duration::from_secs(90), up)
            .with_context(|| format!("{} does not listen after 90 s:\n{}", self.kind.name(), self.logs()))?
    }

    /// Everything it said so far.
    pub fn logs(&self) -> String {
        ["output.log", "error.log"]
            .iter()
            .filter_map(|name| std::fs::read(self.dir.join(name)).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// Whether it runs, and what it said last.
    pub fn state(&self) -> String {
        let end = self.kid.ended().map_or_else(|| "runs".to_owned(), |status| format!("ended with {status}"));
        let logs = self.logs();
        let last: Vec<&str> = logs.lines().rev().take(3).collect();
        format!("{} {end}; it said last: {}", self.kind.name(), last.join(" / "))
    }

    pub fn pid(&self) -> u32 {
        self.kid.pid()
    }

    /// The processes that do the work: of a proxy with a master, the others.
    pub fn workers(&self) -> Vec<u32> {
        let all = self.unit.as_ref().map(Unit::pids).unwrap_or_default();
        let workers: Vec<u32> = all.iter().copied().filter(|pid| *pid != self.pid()).collect();
        if workers.is_empty() { vec![self.pid()] } else { workers }
    }

    /// Is or was this process the proxy or one of its own?
    pub fn has(&self, pid: u32) -> bool {
        if lock(&self.had).contains(&pid) {
            return true;
        }
        self.note_processes();
        lock(&self.had).contains(&pid)
    }

    fn note_processes(&self) {
        let now = self.workers();
        lock(&self.had).extend(now.into_iter().chain([self.pid()]));
    }

    pub fn signal_workers(&self, signal: i32) {
        for pid in self.workers() {
            signal_pid(pid, signal);
        }
    }

    /// A graceful reload, as its packages do it; false where the lab has none.
    pub fn reload(&self) -> bool {
        self.note_processes();
        match self.kind {
            Kind::Nginx | Kind::Fpm => self.kid.signal(libc::SIGHUP),
            Kind::Apache => self.kid.signal(libc::SIGUSR1),
            // Its master's signal.
            Kind::Haproxy => self.kid.signal(libc::SIGUSR2),
            Kind::Caddy | Kind::Envoy => return false,
        }
        true
    }
}

/// A program from a package, or what to do to get it.
fn program(name: &str) -> Result<Launch> {
    let path = ["/usr/sbin", "/usr/bin", "/usr/local/bin"].iter().map(|dir| PathBuf::from(dir).join(name));
    let found = path.into_iter().find(|path| path.is_file());
    Ok(Launch::new(found.with_context(|| format!("{name} is not installed: apt-get install {name}"))?))
}
