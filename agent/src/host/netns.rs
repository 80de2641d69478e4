//! Network namespaces of this host: entered by a thread of its own that ends at once, never by the process.
//!
//! Nothing of another namespace is kept open: a descriptor or a socket of it would keep a stopped
//! container's network alive.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::netlink::{Netlink, attributes, bytes_at};
use super::proc::Procfs;
use super::sockets::{self, Listener};

const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Namespaces remembered, and processes remembered of each, to find a way in.
const NAMESPACES: usize = 512;
const WAYS_IN: usize = 8;
const ADDRESSES: usize = 4096;
const FRESH: Duration = Duration::from_secs(1);
const SEARCH: Duration = Duration::from_millis(3);
/// Where tools pin namespaces that need not have a process.
const PINNED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

pub struct Namespaces {
    own: u32,
    /// Device of the filesystem that namespaces live on: only there does an inode name one.
    device: u64,
    diagnosis: Option<Netlink>,
    members: HashMap<u32, VecDeque<u32>>,
    addresses: HashMap<u32, (Instant, Vec<IpAddr>)>,
    searched: HashMap<u32, Instant>,
    /// How long one question may look for a process in a namespace.
    search: Duration,
}

impl Namespaces {
    pub fn new(proc: &Procfs) -> Self {
        let here = fs::metadata(proc.file(std::process::id(), "ns/net")).or_else(|_| fs::metadata("/proc/self/ns/net"));
        let (own, device) = here.map(|meta| (meta.ino() as u32, meta.dev())).unwrap_or_default();
        Self {
            own,
            device,
            diagnosis: None,
            members: HashMap::new(),
            addresses: HashMap::new(),
            searched: HashMap::new(),
            search: SEARCH,
        }
    }

    /// The inode itself; 0 stands for our own.
    pub fn resolve(&self, netns: u32) -> u32 {
        if netns == 0 { self.own } else { netns }
    }

    /// A process that is known to live in a namespace: a way in.
    pub fn note(&mut self, netns: u32, pid: u32) {
        if netns == 0 || netns == self.own {
            return;
        }
        if !self.members.contains_key(&netns) && self.members.len() >= NAMESPACES {
            let emptiest = self.members.iter().min_by_key(|(_, pids)| pids.len()).map(|(netns, _)| *netns);
            emptiest.and_then(|netns| self.members.remove(&netns));
        }
        let pids = self.members.entry(netns).or_default();
        if !pids.contains(&pid) {
            pids.truncate(WAYS_IN - 1);
            pids.push_front(pid);
        }
    }

    pub fn listeners(&mut self, proc: &Procfs, netns: u32) -> io::Result<Vec<Listener>> {
        let netns = self.resolve(netns);
        if netns != self.own {
            let mut socket = self.within(proc, netns, || Netlink::open(libc::NETLINK_SOCK_DIAG))?;
            return sockets::listeners(&mut socket);
        }
        let mut socket = match self.diagnosis.take() {
            Some(socket) => socket,
            None => Netlink::open(libc::NETLINK_SOCK_DIAG)?,
        };
        let found = sockets::listeners(&mut socket)?;
        self.diagnosis = Some(socket);
        Ok(found)
    }

    /// The namespace that has this address, the preferred one first. Loopback is everywhere.
    pub fn having(&mut self, proc: &Procfs, addr: IpAddr, prefer: u32) -> Option<u32> {
        let prefer = self.resolve(prefer);
        let addr = addr.to_canonical();
        if addr.is_loopback() || addr.is_unspecified() {
            return Some(prefer);
        }
        let others: Vec<u32> = self.members.keys().copied().filter(|netns| *netns != prefer).collect();
        let order = [prefer, self.own].into_iter().chain(others);
        let order: Vec<u32> = order.collect();
        order.into_iter().find(|netns| self.addresses(proc, *netns).contains(&addr))
    }

    fn addresses(&mut self, proc: &Procfs, netns: u32) -> &[IpAddr] {
        let fresh = self.addresses.get(&netns).is_some_and(|(at, _)| at.elapsed() < FRESH);
        if !fresh {
            let socket = match netns == self.own {
                true => Netlink::open(libc::NETLINK_ROUTE),
                false => self.within(proc, netns, || Netlink::open(libc::NETLINK_ROUTE)),
            };
            let found = socket.and_then(|mut socket| addresses(&mut socket)).unwrap_or_default();
            self.addresses.retain(|_, (at, _)| at.elapsed() < FRESH);
            self.addresses.insert(netns, (Instant::now(), found));
        }
        self.addresses.get(&netns).map(|(_, found)| found.as_slice()).unwrap_or_default()
    }

    /// Runs something on a thread that has entered the namespace and ends afterwards.
    fn within<T: Send>(
        &mut self,
        proc: &Procfs,
        netns: u32,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let door = self.open(proc, netns)?;
        std::thread::scope(|scope| {
            let visit = move || {
                // SAFETY: setns takes a descriptor that `door` owns; it changes this thread alone, which ends here.
                if unsafe { libc::setns(door.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error());
                }
                work()
            };
            let visitor = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, visit)?;
            visitor.join().map_err(|_| io::Error::other("the visit to a network namespace broke off"))?
        })
    }

    fn open(&mut self, proc: &Procfs, netns: u32) -> io::Result<File> {
        let ways = self.members.get(&netns).into_iter().flatten().map(|pid| proc.file(*pid, "ns/net"));
        let ways: Vec<PathBuf> = ways.chain(pinned()).collect();
        let door = ways.iter().find_map(|path| self.door(path, netns));
        if let Some(door) = door.or_else(|| self.search(proc, netns)) {
            return Ok(door);
        }
        self.members.remove(&netns);
        Err(io::Error::new(io::ErrorKind::NotFound, "no process in this network namespace"))
    }

    /// Opened first, compared then: the path may have come to mean another namespace.
    fn door(&self, path: &PathBuf, netns: u32) -> Option<File> {
        let file = File::open(path).ok()?;
        let meta = file.metadata().ok()?;
        (meta.ino() == u64::from(netns) && meta.dev() == self.device).then_some(file)
    }

    fn search(&mut self, proc: &Procfs, netns: u32) -> Option<File> {
        self.searched.retain(|_, at| at.elapsed() < FRESH);
        if self.searched.len() >= NAMESPACES || self.searched.contains_key(&netns) {
            return None;
        }
        let until = Instant::now() + self.search;
        for pid in proc.pids() {
            if proc.namespace(pid, "net") == Some(netns) {
                self.note(netns, pid);
                return self.door(&proc.file(pid, "ns/net"), netns);
            }
            if Instant::now() > until {
                break;
            }
        }
        self.searched.insert(netns, Instant::now());
        None
    }
}

fn pinned() -> impl Iterator<Item = PathBuf> {
    let dirs = PINNED.into_iter().filter_map(|dir| fs::read_dir(dir).ok());
    dirs.flat_map(|entries| entries.flatten().take(NAMESPACES).map(|entry| entry.path()))
}

fn addresses(route: &mut Netlink) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    // struct ifaddrmsg: any family, any interface.
    route.dump(RTM_GETADDR, &[0; 8], |body| {
        if found.len() < ADDRESSES {
            found.extend(address(body));
        }
    })?;
    Ok(found)
}

fn address(body: &[u8]) -> Option<IpAddr> {
    let family = i32::from(*body.first()?);
    let mut chosen = None;
    for (kind, value) in attributes(body.get(8..)?) {
        // On a point-to-point link only the local one is ours.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && chosen.is_none()) {
            chosen = Some(value);
        }
    }
    match family {
        libc::AF_INET => Some(IpAddr::V4(Ipv4Addr::from(bytes_at::<4>(chosen?, 0)?))),
        libc::AF_INET6 => Some(crate::model::unmap(bytes_at::<16>(chosen?, 0)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::model::Endpoint;

    /// A process in a network namespace of its own that has an address, and listens there.
    struct Elsewhere {
        child: Child,
        netns: u32,
    }

    impl Elsewhere {
        fn start(address: &str) -> Option<Self> {
            let script = "ip link set lo up && ip addr add $0/32 dev lo && exec socat TCP-LISTEN:7001,bind=$0 STDIO";
            let mut child = Command::new("unshare")
                .args(["-n", "sh", "-c", script, address])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .ok()?;
            let proc = Procfs::new("/proc");
            let listens = |pid| proc.read(pid, "net/tcp").is_some_and(|table| table.windows(4).any(|w| w == b" 0A "));
            let ready = (0..12_000).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                proc.stat(child.id()).is_some_and(|stat| stat.name == "socat") && listens(child.id())
            });
            let netns = proc.namespace(child.id(), "net");
            if !ready {
                child.kill().ok();
                child.wait().ok();
                return None;
            }
            Some(Self { child, netns: netns? })
        }
    }

    impl Drop for Elsewhere {
        fn drop(&mut self) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }

    #[test]
    fn another_namespace_is_read_without_going_there() {
        // SAFETY: geteuid takes nothing and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return;
        }
        let there = Elsewhere::start("192.0.2.77").expect("unshare, ip and socat");
        let proc = Procfs::new("/proc");
        let mut namespaces = Namespaces::new(&proc);
        let addr: IpAddr = "192.0.2.77".parse().unwrap();
        assert_eq!(namespaces.having(&proc, addr, 0), None, "a namespace nobody spoke of is not searched");
        namespaces.note(there.netns, there.child.id());
        assert_eq!(namespaces.having(&proc, addr, 0), Some(there.netns));
        let endpoint = Endpoint::Tcp("192.0.2.77:7001".parse().unwrap());
        let listens = |found: &[Listener]| found.iter().any(|listener| listener.endpoint == endpoint);
        assert!(listens(&namespaces.listeners(&proc, there.netns).unwrap()));
        assert!(!listens(&namespaces.listeners(&proc, 0).unwrap()), "we have not moved");
        assert_eq!(proc.namespace(std::process::id(), "net"), Some(namespaces.resolve(0)));
        // Without a hint a process there is searched for.
        let mut stranger = Namespaces::new(&proc);
        // However busy this host is.
        stranger.search = Duration::from_secs(3600);
        assert!(listens(&stranger.listeners(&proc, there.netns).unwrap()));
        let netns = there.netns;
        drop(there);
        assert!(namespaces.listeners(&proc, netns).is_err(), "a namespace that is gone is not known");
    }

    #[test]
    fn loopback_is_in_the_namespace_that_asks() {
        let proc = Procfs::new("/proc");
        let mut namespaces = Namespaces::new(&proc);
        let own = namespaces.resolve(0);
        assert_eq!(namespaces.having(&proc, "127.0.0.9".parse().unwrap(), 0), Some(own));
        assert_eq!(namespaces.having(&proc, "::1".parse().unwrap(), 77), Some(77));
        assert_eq!(namespaces.having(&proc, "198.51.100.1".parse().unwrap(), 0), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let proc = Procfs::new("/proc");
        let mut namespaces = Namespaces::new(&proc);
        for netns in 1..2000 {
            (0..20).for_each(|pid| namespaces.note(netns, pid));
        }
        assert!(namespaces.members.len() <= NAMESPACES);
        assert!(namespaces.members.values().all(|pids| pids.len() <= WAYS_IN));
        assert_eq!(address(&[2, 0, 0, 0, 0, 0, 0, 0, 6, 0, 2, 0, 1, 2]), None);
    }
}
