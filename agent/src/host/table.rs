//! A host that answers from tables that a test filled in. What was not filled in is not known.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Activity, DescriptorFacts, Host, ListenerFacts, Listeners, MemoryFacts, PathFacts, ProcessFacts};
use crate::model::Nanos;

#[derive(Clone, Debug, Default)]
pub struct TableHost {
    /// Wall clock at monotonic zero, microseconds since 1970.
    pub boot_micros: i64,
    pub processes: HashMap<u32, ProcessFacts>,
    pub activities: HashMap<u32, Activity>,
    pub memories: HashMap<u32, MemoryFacts>,
    pub descriptors: HashMap<u32, DescriptorFacts>,
    pub listeners: HashMap<u32, Vec<ListenerFacts>>,
    pub addresses: HashMap<IpAddr, Vec<u32>>,
    pub paths: HashMap<String, PathFacts>,
    pub symbols: HashMap<u64, String>,
}

impl TableHost {
    pub fn with_process(mut self, facts: ProcessFacts) -> Self {
        self.processes.insert(facts.pid, facts);
        self
    }

    pub fn with_activity(mut self, pid: u32, activity: Activity) -> Self {
        self.activities.insert(pid, activity);
        self
    }

    pub fn with_memory(mut self, pid: u32, memory: MemoryFacts) -> Self {
        self.memories.insert(pid, memory);
        self
    }

    pub fn with_descriptors(mut self, pid: u32, descriptors: DescriptorFacts) -> Self {
        self.descriptors.insert(pid, descriptors);
        self
    }

    pub fn with_listener(mut self, netns: u32, listener: ListenerFacts) -> Self {
        self.listeners.entry(netns).or_default().push(listener);
        self
    }

    pub fn with_address(mut self, addr: IpAddr, netns: u32) -> Self {
        self.addresses.entry(addr).or_default().push(netns);
        self
    }

    pub fn with_path(mut self, path: &str, facts: PathFacts) -> Self {
        self.paths.insert(path.to_owned(), facts);
        self
    }

    pub fn with_symbol(mut self, address: u64, name: &str) -> Self {
        self.symbols.insert(address, name.to_owned());
        self
    }
}

impl Host for TableHost {
    fn wall_micros(&mut self, at: Nanos) -> i64 {
        self.boot_micros.saturating_add((at / 1000) as i64)
    }

    fn process(&mut self, pid: u32) -> Option<Arc<ProcessFacts>> {
        self.processes.get(&pid).cloned().map(Arc::new)
    }

    fn siblings(&mut self, like: &ProcessFacts) -> Vec<ProcessFacts> {
        let mut found: Vec<_> = self
            .processes
            .values()
            .filter(|other| other.alive && other.pid != like.pid && super::same_service(like, other))
            .cloned()
            .collect();
        found.sort_by_key(|facts| facts.pid);
        found
    }

    fn activity(&mut self, pid: u32) -> Option<Activity> {
        self.activities.get(&pid).cloned()
    }

    fn memory(&mut self, pid: u32) -> Option<MemoryFacts> {
        self.memories.get(&pid).cloned()
    }

    fn descriptors(&mut self, pid: u32) -> Option<DescriptorFacts> {
        self.descriptors.get(&pid).copied()
    }

    fn listeners(&mut self, netns: u32) -> Listeners {
        self.listeners.get(&netns).cloned().unwrap_or_default().into()
    }

    fn netns_of(&mut self, addr: IpAddr, prefer: u32) -> Option<u32> {
        let found = self.addresses.get(&addr)?;
        found.iter().copied().find(|netns| *netns == prefer).or_else(|| found.first().copied())
    }

    fn path(&mut self, _pid: u32, path: &str) -> PathFacts {
        self.paths.get(path).cloned().unwrap_or_default()
    }

    fn symbol(&mut self, address: u64) -> Option<String> {
        self.symbols.get(&address).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pid: u32, unit: Option<&str>, exe: &str) -> ProcessFacts {
        ProcessFacts {
            pid,
            alive: true,
            unit: unit.map(str::to_owned),
            exe: Some(exe.to_owned()),
            ..ProcessFacts::default()
        }
    }

    #[test]
    fn siblings_share_the_unit_and_only_without_one_the_program() {
        let mut host = TableHost::default()
            .with_process(named(1, Some("shop.service"), "/usr/sbin/shopd"))
            .with_process(named(2, Some("shop.service"), "/usr/bin/node"))
            .with_process(named(3, Some("other.service"), "/usr/sbin/shopd"))
            .with_process(named(4, None, "/usr/sbin/shopd (deleted)"));
        let shop = host.process(1).unwrap();
        let pids = |facts: Vec<ProcessFacts>| facts.iter().map(|f| f.pid).collect::<Vec<_>>();
        assert_eq!(pids(host.siblings(&shop)), [2]);
        let loose = named(9, None, "/usr/sbin/shopd");
        assert_eq!(pids(host.siblings(&loose)), [1, 3, 4]);
    }

    #[test]
    fn two_scripts_of_one_interpreter_are_two_services() {
        let running = |pid, words: &[&str]| ProcessFacts {
            cmdline: words.iter().map(|word| (*word).to_owned()).collect(),
            ..named(pid, None, "/usr/bin/python3.11")
        };
        let shop = running(1, &["python3", "-u", "shop.py"]);
        assert!(crate::host::same_service(&shop, &running(2, &["python3", "-u", "shop.py"])));
        assert!(!crate::host::same_service(&shop, &running(3, &["python3", "-u", "mail.py"])));
        assert!(crate::host::same_service(
            &running(4, &["python3", "a.py", "80"]),
            &running(5, &["python3", "a.py", "81"])
        ));
        let other_shell = |pid| ProcessFacts { name: "sh".into(), exe: None, ..running(pid, &[]) };
        assert!(crate::host::same_service(&other_shell(6), &other_shell(7)));
    }

    #[test]
    fn what_was_not_filled_in_is_not_known() {
        let mut host = TableHost::default();
        assert_eq!(host.process(1), None);
        assert_eq!(host.path(1, "/run/x.sock"), PathFacts::default());
        assert_eq!(host.netns_of("127.0.0.1".parse().unwrap(), 0), None);
    }
}
