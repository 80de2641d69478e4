//! The memory of processes: what they were stays known for some minutes after they are gone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cgroup::{self, Groups, Mounts};
use super::containers::Containers;
use super::proc::{Procfs, Stat};
use super::{Activity, MemoryFacts, ProcessFacts, same_service};
use crate::model::Nanos;

const KNOWN: usize = 4096;
/// How long the dead are remembered.
const MEMORY: Duration = Duration::from_secs(600);
/// How long what seldom changes (command line, control group, user) is taken for granted.
const FRESH: Duration = Duration::from_millis(500);
const SIBLINGS: usize = 64;
const SEARCH: Duration = Duration::from_millis(4);

struct Entry {
    facts: ProcessFacts,
    groups: Groups,
    memory: Option<MemoryFacts>,
    /// Tells it from a later process with its pid; 0 when /proc was not asked yet.
    start_ticks: u64,
    read: Option<Instant>,
    used: Instant,
}

pub struct Processes {
    known: HashMap<u32, Entry>,
    mounts: Mounts,
    containers: Containers,
    /// How long one question may look for siblings.
    search: Duration,
}

impl Processes {
    pub fn new(procfs: &Path) -> Self {
        let (mounts, containers) = (Mounts::read(procfs), Containers::default());
        Self { known: HashMap::new(), mounts, containers, search: SEARCH }
    }

    /// Reads a process now, whatever is remembered: it was executed, or is seen for the first time.
    pub fn read(&mut self, proc: &Procfs, pid: u32) {
        if let Some(entry) = self.known.get_mut(&pid) {
            entry.read = None;
        }
        self.get(proc, pid);
    }

    pub fn knows(&self, pid: u32) -> bool {
        self.known.contains_key(&pid)
    }

    /// A child is what its parent was until it says otherwise, which it may not live to do.
    pub fn inherit(&mut self, parent: u32, child: u32, name: &str, at: Nanos) {
        let Some(origin) = self.known.get(&parent) else { return };
        let facts = ProcessFacts {
            pid: child,
            parent,
            name: name.to_owned(),
            started: at,
            alive: true,
            ..origin.facts.clone()
        };
        let entry = Entry {
            facts,
            groups: origin.groups.clone(),
            memory: origin.memory.clone(),
            start_ticks: 0,
            read: None,
            used: Instant::now(),
        };
        self.make_room();
        self.known.insert(child, entry);
    }

    pub fn get(&mut self, proc: &Procfs, pid: u32) -> Option<ProcessFacts> {
        let stat = proc.stat(pid).filter(|_| pid != 0);
        let now = Instant::now();
        // What is read of a process on its way out is wrong: who was known stays what it was.
        let known = self.known.get(&pid).map(|entry| entry.start_ticks);
        let leaves = |stat: &Stat| stat.exiting && known.is_some_and(|start| start == 0 || start == stat.start_ticks);
        let Some(stat) = stat.filter(|stat| stat.alive() && !leaves(stat)) else {
            let entry = self.known.get_mut(&pid)?;
            entry.facts.alive = false;
            entry.used = now;
            return Some(entry.facts.clone());
        };
        let same = |entry: &&mut Entry| entry.start_ticks == stat.start_ticks;
        if let Some(entry) = self.known.get_mut(&pid).filter(same)
            && entry.read.is_some_and(|read| read.elapsed() < FRESH)
        {
            (entry.facts.name, entry.facts.parent, entry.facts.alive) = (stat.name, stat.parent, true);
            entry.used = now;
            return Some(entry.facts.clone());
        }
        let old = self.known.get(&pid);
        let started = proc.clock().at_tick(stat.start_ticks);
        // A start that was seen is exact; a tick is ten milliseconds.
        let seen = old.map(|entry| entry.facts.started).filter(|seen| seen.abs_diff(started) < 20_000_000);
        let memory = old.filter(|entry| entry.start_ticks == stat.start_ticks).and_then(|entry| entry.memory.clone());
        let groups = proc.read(pid, "cgroup").map(|bytes| Groups::parse(&bytes)).unwrap_or_default();
        let path = groups.path().map(str::to_owned);
        let container = path.as_deref().and_then(cgroup::container);
        let id = container.as_ref().and(path.as_deref()).and_then(cgroup::container_id);
        let container_name = id.and_then(|id| self.containers.name(proc, pid, id));
        let facts = ProcessFacts {
            pid,
            parent: stat.parent,
            name: stat.name,
            exe: proc.exe(pid),
            cmdline: proc.cmdline(pid),
            started: seen.unwrap_or(started),
            alive: true,
            unit: path.as_deref().and_then(cgroup::unit),
            container,
            container_name,
            cgroup: path,
            netns: proc.namespace(pid, "net").unwrap_or_default(),
            uid: proc.identity(pid).map(|identity| identity.uid).unwrap_or_default(),
        };
        self.make_room();
        let entry =
            Entry { facts: facts.clone(), groups, memory, start_ticks: stat.start_ticks, read: Some(now), used: now };
        self.known.insert(pid, entry);
        Some(facts)
    }

    /// Its memory group as it is, or as it was when it was last looked at.
    pub fn memory(&mut self, proc: &Procfs, pid: u32) -> Option<MemoryFacts> {
        self.get(proc, pid);
        let entry = self.known.get_mut(&pid)?;
        if let Some(facts) = cgroup::memory(&entry.groups, &self.mounts) {
            entry.memory = Some(facts);
        }
        entry.memory.clone()
    }

    pub fn activity(&mut self, proc: &Procfs, pid: u32) -> Option<Activity> {
        let stat = proc.stat(pid).filter(|stat| stat.alive())?;
        self.get(proc, pid);
        Some(Activity {
            states: proc.thread_states(pid),
            waits_in: proc.waits_in(pid),
            busy: false,
            frozen: self.known.get(&pid).is_some_and(|entry| cgroup::frozen(&entry.groups, &self.mounts)),
            cpu_ms: proc.clock().millis(stat.cpu_ticks),
            throttled: self.known.get(&pid).and_then(|entry| cgroup::throttled(&entry.groups, &self.mounts)),
        })
    }

    /// Living processes of the same service, the newest first: those of its control group, else every process's turn.
    pub fn siblings(&mut self, proc: &Procfs, like: &ProcessFacts) -> Vec<ProcessFacts> {
        let until = Instant::now() + self.search;
        let grouped = like.unit.is_some() || like.container.is_some();
        let dirs = match self.known.get(&like.pid).filter(|_| grouped) {
            Some(entry) => entry.groups.directories(&self.mounts),
            None => Vec::new(),
        };
        let mut candidates = match dirs.is_empty() {
            true => proc.pids(),
            false => members(&dirs),
        };
        candidates.retain(|pid| *pid != like.pid);
        let mut found = Vec::new();
        for pid in candidates {
            if found.len() >= SIBLINGS || Instant::now() > until {
                break;
            }
            // Without a group most processes are strangers: one link tells, the rest need not be read.
            if !grouped && !self.knows(pid) && !same_exe(like, proc.exe(pid)) {
                continue;
            }
            found.extend(self.get(proc, pid).filter(|facts| facts.alive && same_service(like, facts)));
        }
        found
    }

    fn make_room(&mut self) {
        if self.known.len() < KNOWN {
            return;
        }
        self.known.retain(|_, entry| entry.facts.alive || entry.used.elapsed() < MEMORY);
        if self.known.len() >= KNOWN {
            let mut used: Vec<Instant> = self.known.values().map(|entry| entry.used).collect();
            used.sort_unstable();
            // An eighth at once, so that the next ones are cheap.
            let bound = used[KNOWN / 8];
            self.known.retain(|_, entry| entry.used > bound);
        }
    }
}

fn same_exe(like: &ProcessFacts, exe: Option<String>) -> bool {
    let plain = |exe: &str| exe.trim_end_matches(" (deleted)").to_owned();
    match (&like.exe, exe) {
        (Some(like), Some(exe)) => plain(like) == plain(&exe),
        _ => true,
    }
}

fn members(dirs: &[PathBuf]) -> Vec<u32> {
    let mut pids: Vec<u32> = dirs.iter().flat_map(|dir| cgroup::members(dir, 4096)).collect();
    pids.sort_unstable_by(|a, b| b.cmp(a));
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Child;

    use super::*;
    use crate::host::proc::sleeper;

    fn live() -> (Procfs, Processes) {
        (Procfs::new("/proc"), Processes::new(Path::new("/proc")))
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_a_process_was_is_known_after_its_end() {
        let (proc, mut processes) = live();
        let child = sleeper("sleep".as_ref(), "61");
        let pid = child.id();
        processes.read(&proc, pid);
        let before = processes.get(&proc, pid).unwrap();
        assert!(before.alive);
        assert!(before.exe.as_deref().is_some_and(|exe| exe.starts_with('/')));
        assert_eq!(before.cmdline, ["sleep", "61"]);
        assert_eq!(before.parent, std::process::id());
        assert!(processes.activity(&proc, pid).unwrap().states.starts_with(['S', 'R']));
        end(child);
        let after = processes.get(&proc, pid).unwrap();
        assert_eq!(after, ProcessFacts { alive: false, ..before });
        assert_eq!(processes.activity(&proc, pid), None);
        assert_eq!(processes.get(&proc, 0), None);
    }

    #[test]
    fn a_zombie_is_dead_and_still_known() {
        let (proc, mut processes) = live();
        let mut child = sleeper("sleep".as_ref(), "62");
        processes.read(&proc, child.id());
        child.kill().unwrap();
        while proc.stat(child.id()).unwrap().alive() {
            std::thread::yield_now();
        }
        let facts = processes.get(&proc, child.id()).unwrap();
        assert!(!facts.alive);
        assert_eq!(facts.cmdline, ["sleep", "62"]);
        child.wait().unwrap();
    }

    #[test]
    fn siblings_run_the_same_program() {
        let (proc, mut processes) = live();
        // However busy this host is.
        processes.search = Duration::from_secs(3600);
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("trace502-sibling");
        fs::copy(fs::canonicalize("/bin/sleep").unwrap(), &own).unwrap();
        let children: Vec<Child> = (0..2).map(|_| sleeper(own.as_os_str(), "63")).collect();
        let first = processes.get(&proc, children[0].id()).unwrap();
        let found = processes.siblings(&proc, &ProcessFacts { unit: None, container: None, ..first });
        let pids: Vec<u32> = found.iter().map(|facts| facts.pid).collect();
        let expected = [children[1].id()];
        children.into_iter().for_each(end);
        assert_eq!(pids, expected);
    }

    #[test]
    fn a_later_process_with_the_same_pid_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, start: u64| {
            fs::create_dir_all(dir.path().join("70")).unwrap();
            let stat = format!("70 ({name}) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 1 0 {start} 0 0");
            fs::write(dir.path().join("70/stat"), stat).unwrap();
            fs::write(dir.path().join("70/cmdline"), name).unwrap();
        };
        let (proc, mut processes) = (Procfs::new(dir.path()), Processes::new(dir.path()));
        write("old", 100);
        assert_eq!(processes.get(&proc, 70).unwrap().cmdline, ["old"]);
        write("new", 900);
        let facts = processes.get(&proc, 70).unwrap();
        assert_eq!((facts.name.as_str(), facts.cmdline[0].as_str()), ("new", "new"));
        fs::remove_dir_all(dir.path().join("70")).unwrap();
        assert_eq!(processes.get(&proc, 70).unwrap(), ProcessFacts { alive: false, ..facts });
    }

    #[test]
    fn a_process_on_its_way_out_stays_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let write = |flags: u32, start: u64, group: &str| {
            fs::create_dir_all(dir.path().join("71")).unwrap();
            let stat = format!("71 (init) S 1 1 1 0 -1 {flags} 0 0 0 0 5 5 0 0 20 0 1 0 {start} 0 0");
            fs::write(dir.path().join("71/stat"), stat).unwrap();
            fs::write(dir.path().join("71/cgroup"), format!("0::{group}\n")).unwrap();
        };
        let (proc, mut processes) = (Procfs::new(dir.path()), Processes::new(dir.path()));
        write(0, 100, "/shop.service");
        processes.get(&proc, 71).unwrap();
        // The first process of a container waits there for the others to end, in the top group.
        write(4, 100, "/");
        processes.known.get_mut(&71).unwrap().read = None;
        let facts = processes.get(&proc, 71).unwrap();
        assert_eq!((facts.unit.as_deref(), facts.alive), (Some("shop.service"), false));
        // Of a stranger the little that is left is better than nothing.
        write(4, 900, "/late.service");
        assert_eq!(processes.get(&proc, 71).unwrap().unit.as_deref(), Some("late.service"));
    }

    #[test]
    fn a_child_that_died_at_once_is_what_its_parent_was() {
        let (proc, mut processes) = live();
        let parent = processes.get(&proc, std::process::id()).unwrap();
        processes.inherit(parent.pid, 4_194_305, "worker", 77);
        let child = processes.get(&proc, 4_194_305).unwrap();
        assert_eq!((child.exe, child.cgroup), (parent.exe, parent.cgroup));
        assert_eq!((child.name.as_str(), child.started, child.parent), ("worker", 77, parent.pid));
        processes.inherit(4_194_306, 4_194_307, "orphan", 1);
        assert_eq!(processes.get(&proc, 4_194_307), None);
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_last_ones() {
        let (proc, mut processes) = live();
        let parent = std::process::id();
        processes.get(&proc, parent);
        for child in 0..3 * KNOWN as u32 {
            processes.inherit(parent, 5_000_000 + child, "w", 1);
            processes.get(&proc, parent);
        }
        assert!(processes.known.len() <= KNOWN);
        assert!(processes.knows(5_000_000 + 3 * KNOWN as u32 - 1));
    }
}
