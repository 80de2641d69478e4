//! Which processes are proxies: the well-known names, what the user named, and their children.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use trace502_ebpf::{
    GROUPS, Group, PROC_CGROUP, PROC_FOUND, PROC_LATE, PROC_LOOSE, PROC_OLDEST, PROC_POOLED, PROC_PROXY, PROC_WHOLE,
};

use crate::host::LiveHost;
use crate::kernel::{Kernel, LoadError};
use crate::model::{GroupPath, ProxyWord};
use crate::proxies::{Birth, Closes, OTHER, PROXIES, Proxy, by_name};

/// Proxies that the user named, besides the well-known ones.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub names: Vec<String>,
    pub pids: Vec<u32>,
    /// Every process in these is one.
    pub groups: Vec<GroupPath>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--proxy: {0}")]
pub struct WordError(String);

impl Wanted {
    /// Each word is a process id, the name of an executable, or the path of a cgroup.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Wanted, WordError> {
        let mut wanted = Wanted::default();
        for word in words {
            match ProxyWord::parse(word).map_err(WordError)? {
                ProxyWord::Pid(pid) => wanted.pids.push(pid),
                ProxyWord::Name(name) => wanted.names.push(name),
                ProxyWord::Group(path) => wanted.groups.push(path),
            }
        }
        wanted.groups.sort();
        wanted.groups.dedup();
        match wanted.groups.len() {
            more if more > GROUPS => Err(WordError(format!("{more} cgroups; at most {GROUPS} can be watched"))),
            _ => Ok(wanted),
        }
    }
}

/// The proxies that are watched now.
#[derive(Debug, Default)]
pub struct Tracked {
    proxies: BTreeMap<u32, String>,
    /// Those that ended, as far as somebody may still ask for them.
    gone: BTreeMap<u32, String>,
}

/// Of those that ended.
const REMEMBERED: usize = 4096;

impl Tracked {
    /// Tells the kernel side which names are proxies, and which processes are proxies already.
    pub fn start(kernel: &mut Kernel, wanted: &Wanted, host: &mut LiveHost) -> Result<Tracked, LoadError> {
        let mut tracked = Tracked::default();
        tracked.want(kernel, wanted, host)?;
        Ok(tracked)
    }

    /// The same while the watch runs: those that are wanted now are watched, too.
    pub fn want(&mut self, kernel: &mut Kernel, wanted: &Wanted, host: &mut LiveHost) -> Result<(), LoadError> {
        let known = PROXIES.iter().flat_map(|proxy| {
            // A pattern is for the names of threads, which are never those of an executable.
            let comms = proxy.comms.iter().filter(|comm| !comm.ends_with('*'));
            comms.map(|comm| (*comm, class(proxy)))
        });
        let own = wanted.names.iter().map(|name| (name.as_str(), class_of(name)));
        let names: Vec<(&str, u32)> = known.chain(own).collect();
        kernel.set_names(&names)?;
        let inside = watch_groups(kernel, &wanted.groups, host)?;
        for (pid, comm) in processes() {
            let named = names.iter().find(|(name, _)| same_name(name, &comm)).map(|(_, class)| *class);
            let asked = wanted.pids.contains(&pid).then(|| class_of(&comm));
            let grouped = inside.contains(&pid).then_some(IN_GROUP);
            if let Some(class) = named.or(asked).or(grouped) {
                kernel.track(pid, class)?;
                kernel.watch_connect(pid);
                kernel.watch_tls(pid);
                host.remember(pid);
                self.came(pid, &comm);
            }
        }
        Ok(())
    }

    pub fn came(&mut self, pid: u32, comm: &str) {
        let name = by_name(comm).map_or(comm, |proxy| proxy.name);
        self.proxies.insert(pid, name.into());
    }

    /// Whether it was a proxy.
    pub fn went(&mut self, pid: u32) -> bool {
        let Some(name) = self.proxies.remove(&pid) else { return false };
        if self.gone.len() >= REMEMBERED {
            self.gone.clear();
        }
        self.gone.insert(pid, name);
        true
    }

    /// What a proxy is, or was, called.
    pub fn name(&self, pid: u32) -> Option<&str> {
        self.proxies.get(&pid).or_else(|| self.gone.get(&pid)).map(String::as_str)
    }

    pub fn proxies(&self) -> &BTreeMap<u32, String> {
        &self.proxies
    }
}

/// Tells the kernel side which cgroups matter, and returns who is in them already.
fn watch_groups(kernel: &mut Kernel, groups: &[GroupPath], host: &LiveHost) -> Result<BTreeSet<u32>, LoadError> {
    let rows = |ids: &[u64]| -> Vec<(&str, Group)> {
        let row = |(path, id): (&GroupPath, &u64)| Group { id: *id, level: path.level(), class: IN_GROUP };
        groups.iter().zip(ids).map(|pair| (pair.0.as_str(), row(pair))).collect()
    };
    let ids = || groups.iter().map(|path| host.group(path).0).collect::<Vec<u64>>();
    // One that is made between the look and the telling is looked at again.
    let mut told = ids();
    for _ in 0..SETTLING {
        kernel.set_groups(&rows(&told))?;
        let now = ids();
        if now == told {
            break;
        }
        told = now;
    }
    Ok(groups.iter().flat_map(|path| host.group(path).1).collect())
}

/// Looks at cgroups that come and go while they are told.
const SETTLING: usize = 8;
/// What a process is that is nothing else, in a cgroup of proxies.
const IN_GROUP: u32 = class(OTHER) | PROC_CGROUP;
/// What a process is that listens and dials, where such are wanted.
pub const FOUND: u32 = class(OTHER) | PROC_FOUND;

/// How the kernel side binds the attempts of a proxy.
const fn class(proxy: &Proxy) -> u32 {
    let mut class = PROC_PROXY;
    if matches!(proxy.birth, Birth::Hint) {
        class |= PROC_LOOSE;
    }
    if proxy.oldest_first {
        class |= PROC_OLDEST;
    }
    if proxy.whole_first {
        class |= PROC_WHOLE;
    }
    if !matches!(proxy.closes, Closes::BeforeWrite) {
        class |= PROC_LATE;
    }
    if proxy.pool.is_some() {
        class |= PROC_POOLED;
    }
    class
}

fn class_of(name: &str) -> u32 {
    class(by_name(name).unwrap_or(OTHER))
}

/// The kernel keeps 15 bytes of a name.
fn same_name(name: &str, comm: &str) -> bool {
    name == comm || (name.len() > 15 && name.as_bytes().get(..15) == Some(comm.as_bytes()))
}

/// Process id and proxy of each process of a well-known one that runs.
pub fn running() -> Vec<(u32, String)> {
    processes().filter_map(|(pid, comm)| Some((pid, by_name(&comm)?.name.to_owned()))).collect()
}

/// Process id and name of each process that may be read.
fn processes() -> impl Iterator<Item = (u32, String)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some((pid, comm.trim_end_matches('\n').to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_pids_names_or_cgroups() {
        let wanted = Wanted::new(["812", "my-proxy", "cgroup:/system.slice/shop.service"]).unwrap();
        assert_eq!((wanted.pids, wanted.names), (vec![812], vec!["my-proxy".to_owned()]));
        assert_eq!(wanted.groups, [GroupPath::parse("system.slice/shop.service").unwrap()]);
        assert!(Wanted::new(["cgroup:/"]).unwrap_err().to_string().starts_with("--proxy: "));
        let many: Vec<String> = (0..=GROUPS).map(|n| format!("cgroup:{n}")).collect();
        assert!(Wanted::new(many.iter().map(String::as_str)).unwrap_err().to_string().contains("at most 16"));
    }

    #[test]
    fn classes_follow_the_measured_rules() {
        assert_eq!(class_of("nginx"), PROC_PROXY | PROC_WHOLE);
        assert_eq!(class_of("haproxy"), PROC_PROXY | PROC_OLDEST | PROC_LATE);
        assert_eq!(class_of("caddy") & PROC_LOOSE, PROC_LOOSE);
        assert_eq!(class_of("envoy"), PROC_PROXY | PROC_POOLED);
    }

    #[test]
    fn long_names_are_compared_as_the_kernel_keeps_them() {
        assert!(same_name("a-very-long-proxy-name", "a-very-long-pro"));
        assert!(!same_name("nginx", "nginx-exporter"));
    }
}
