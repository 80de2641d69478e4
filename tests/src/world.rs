//! The little internet of the lab: the proxies' namespace, an upstream host behind a cable, a host that is not ours
//! behind a tunnel, a name server, and ports that are all free.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};

use crate::certs::Certs;
use crate::guard::{self, TempDir};
use crate::netns::Netns;
use crate::service::{Draft, Service};

/// Address of the proxies' end of the cable, and of the upstream host's.
pub const NEAR: &str = "10.52.0.1";
pub const HOST: &str = "10.52.0.2";
/// On the cable, and nobody has it.
pub const NOBODY: &str = "10.52.0.99";
/// Behind the tunnel, see `upstream/far.rs`.
pub const FAR: &str = "10.54.0.2";
pub const UNREACHABLE: &str = "10.55.0.1";
pub const PROHIBITED: &str = "10.56.0.1";
pub const NO_ROUTE: &str = "192.0.2.1";
/// The lab's name server, in the proxies' namespace.
pub const RESOLVER: &str = "127.0.0.1:53";
/// Local ports of the proxies' namespace: few enough to use up.
pub const FEW_PORTS: u16 = 500;

const APPS: [(&str, &str); 3] = [
    ("server.js", include_str!("apps/server.js")),
    ("wsgi.py", include_str!("apps/wsgi.py")),
    ("lab.php", include_str!("apps/lab.php")),
];

pub struct World {
    // Services end before their namespaces.
    services: Mutex<Vec<Service>>,
    shared: Mutex<BTreeMap<(Place, String), u16>>,
    ports: AtomicU16,
    aliases: AtomicU16,
    copying: Mutex<()>,
    pub proxies: Netns,
    pub host: Netns,
    pub certs: Certs,
    dir: TempDir,
}

/// How many local ports the proxies' namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Few enough to use up, see [`FEW_PORTS`].
    Few,
    Plenty,
}

/// Where an upstream lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// On the loopback of the proxies' namespace.
    Loopback,
    /// On the upstream host.
    Host,
}

impl World {
    pub fn new(ports: Ports) -> Result<Arc<Self>> {
        raise_file_limit();
        let dir = TempDir::new()?;
        std::fs::create_dir_all(dir.path().join("bin"))?;
        let certs = Certs::make(dir.path())?;
        let (proxies, host) = (Netns::new("px")?, Netns::new("up")?);
        cable(&proxies, &host)?;
        roads(&proxies, ports)?;
        for (name, text) in APPS {
            std::fs::write(dir.path().join(name), text)?;
        }
        let world = Arc::new(Self {
            services: Mutex::default(),
            shared: Mutex::default(),
            ports: AtomicU16::new(20000),
            aliases: AtomicU16::new(0),
            copying: Mutex::default(),
            proxies,
            host,
            certs,
            dir,
        });
        world.neighbours()?;
        Ok(world)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A port that nobody has or will get.
    pub fn port(&self) -> u16 {
        self.ports.fetch_add(1, Ordering::Relaxed)
    }

    pub fn unix(&self, name: &str) -> String {
        self.dir().join(format!("{name}.sock")).display().to_string()
    }

    pub fn ns(&self, place: Place) -> &Netns {
        match place {
            Place::Loopback => &self.proxies,
            Place::Host => &self.host,
        }
    }

    /// The lab's upstream binary under another name: programs are told apart by their file, as real ones are.
    pub fn alias(&self, name: &str) -> Result<PathBuf> {
        let number = self.aliases.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir().join("bin").join(number.to_string());
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(name);
        let original = sibling("upstream")?;
        if std::fs::hard_link(&original, &path).is_err() {
            // On another file system: one copy is there for all names.
            let copied = || format!("cannot copy {}", original.display());
            let _once = lock(&self.copying);
            let own = self.dir().join("bin/upstream");
            if !own.is_file() {
                std::fs::copy(&original, &own).with_context(copied)?;
            }
            std::fs::hard_link(&own, &path).with_context(copied)?;
        }
        Ok(path)
    }

    /// Port of a listener with this conduct that all faults share; it exists after [`World::start_shared`].
    pub fn shared(&self, place: Place, conduct: &str) -> u16 {
        let mut shared = lock(&self.shared);
        *shared.entry((place, conduct.to_owned())).or_insert_with(|| self.port())
    }

    /// The same as the address to dial.
    pub fn shared_at(&self, place: Place, conduct: &str) -> String {
        let port = self.shared(place, conduct);
        match place {
            Place::Loopback => format!("127.0.0.1:{port}"),
            Place::Host => format!("{HOST}:{port}"),
        }
    }

    /// A well-behaved listener for one fault of all proxies; `once` is called with its port when it is new.
    pub fn own_listener(&self, place: Place, fault: &str, once: impl FnOnce(u16) -> Result<()>) -> Result<u16> {
        let conduct = format!("ok#{fault}");
        let known = lock(&self.shared).contains_key(&(place, conduct.clone()));
        let port = self.shared(place, &conduct);
        if !known {
            once(port)?;
        }
        Ok(port)
    }

    pub fn start_shared(&self) -> Result<()> {
        self.start_node()?;
        for (place, name, address) in [(Place::Loopback, "shop", "127.0.0.1"), (Place::Host, "store", "0.0.0.0")] {
            let specs: Vec<String> = lock(&self.shared)
                .iter()
                .filter(|((at, conduct), _)| *at == place && !conduct.starts_with("node:"))
                .map(|((_, conduct), port)| {
                    format!("{address}:{port}={}", conduct.split('#').next().unwrap_or_default())
                })
                .collect();
            if let Some((_, last)) = specs.last().and_then(|spec| spec.split('=').next()?.rsplit_once(':')) {
                let args: Vec<&str> = specs.iter().map(String::as_str).collect();
                let service =
                    Draft::upstream(self, self.ns(place), name, &args)?.start_at(&format!("{address}:{last}"))?;
                lock(&self.services).push(service);
            }
        }
        Ok(())
    }

    /// Conducts named `node:…` are those of `apps/server.js`.
    fn start_node(&self) -> Result<()> {
        let specs: Vec<String> = lock(&self.shared)
            .iter()
            .filter_map(|((_, conduct), port)| Some(format!("{port}={}", conduct.strip_prefix("node:")?)))
            .collect();
        let Some(last) = specs.last().and_then(|spec| spec.split('=').next()) else { return Ok(()) };
        let script = self.dir().join("server.js").display().to_string();
        let certs = self.dir().join("certs").display().to_string();
        let mut args = vec![script.as_str(), &certs];
        args.extend(specs.iter().map(String::as_str));
        let service = Draft::program(self, &self.proxies, "node-apps", "/usr/bin/node", &args).start_at(last)?;
        lock(&self.services).push(service);
        Ok(())
    }

    fn neighbours(&self) -> Result<()> {
        let far = Draft::upstream(self, &self.proxies, "far-host", &["far", "far"])?.start()?;
        let names = ["dns", RESOLVER, "shop.test=127.0.0.1", "secure.test=127.0.0.1"];
        let dns = Draft::upstream(self, &self.proxies, "name-server", &names)?.start()?;
        lock(&self.services).extend([far, dns]);
        std::fs::write(self.dir().join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
        std::fs::write(self.dir().join("hosts"), "127.0.0.1 localhost lab.test\n")?;
        Ok(())
    }

    /// What a proxy sees instead of the host's name resolution.
    pub fn binds(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("/etc/resolv.conf", self.dir().join("resolv.conf")), ("/etc/hosts", self.dir().join("hosts"))]
    }
}

fn cable(near: &Netns, host: &Netns) -> Result<()> {
    let peer = host.name();
    near.run("ip", &["link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", peer])?;
    near.run("ip", &["addr", "add", &format!("{NEAR}/24"), "dev", "v0"])?;
    near.run("ip", &["link", "set", "v0", "up"])?;
    host.run("ip", &["addr", "add", &format!("{HOST}/24"), "dev", "v1"])?;
    host.run("ip", &["link", "set", "v1", "up"])?;
    // Of the errors that filters answer with, the kernel sends six to each host and then one a second: too few for all.
    for ns in [near, host] {
        ns.sysctl("net.ipv4.icmp_ratelimit", "0")?;
    }
    // A neighbour that does not answer is given up after 0.3 s, within the proxies' patience.
    near.sysctl("net.ipv4.neigh.v0.retrans_time_ms", "100")
}

fn roads(near: &Netns, ports: Ports) -> Result<()> {
    near.run("ip", &["tuntap", "add", "dev", "far", "mode", "tun"])?;
    near.run("ip", &["addr", "add", "10.54.0.1/24", "dev", "far"])?;
    near.run("ip", &["link", "set", "far", "up"])?;
    near.run("ip", &["route", "add", "unreachable", "10.55.0.0/24"])?;
    near.run("ip", &["route", "add", "prohibit", "10.56.0.0/24"])?;
    let last = if ports == Ports::Few { 32768 + FEW_PORTS - 1 } else { 65535 };
    near.sysctl("net.ipv4.ip_local_port_range", &format!("32768 {last}"))?;
    Ok(())
}

/// A program built with this one.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let dirs = me.ancestors().skip(1).take(2);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `cargo build -p trace502-tests` first"))
}

fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain limits. Where they cannot be raised, the measures say which descriptor failed.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether this process may load programs and make namespaces; says so where it may not.
pub fn root() -> bool {
    // SAFETY: geteuid cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("skipped: probes and network namespaces need root");
    }
    root
}

/// The right to a world: one at a time in a process, where there can be one, after what a killed run left is gone.
pub fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    root().then(|| {
        guard::sweep();
        lock(&ALONE)
    })
}
