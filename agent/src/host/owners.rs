//! Who owns a listening socket: by what the kernel side told, else by a bounded look at open files.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::proc::{Procfs, Stat};
use super::sockets::Listener;
use crate::model::Cookie;

/// Sockets remembered in each table.
const KNOWN: usize = 8192;
/// Open files looked at per process while a question waits. Listeners are opened early: their numbers are low.
const FILES: usize = 512;
const ALL_FILES: usize = 65_536;
/// How long one question may search, and how soon a search that found nothing is tried again.
const SEARCH: Duration = Duration::from_millis(3);
const AGAIN: Duration = Duration::from_secs(1);
/// How long the search at start may take.
const SURVEY: Duration = Duration::from_secs(2);

/// A map that forgets what came first.
#[derive(Default)]
struct Bounded {
    map: HashMap<u64, u32>,
    order: VecDeque<u64>,
}

impl Bounded {
    fn insert(&mut self, key: u64, pid: u32) {
        if self.map.insert(key, pid).is_none() {
            self.order.push_back(key);
            if self.order.len() > KNOWN {
                self.order.pop_front().and_then(|oldest| self.map.remove(&oldest));
            }
        }
    }

    fn get(&self, key: u64) -> Option<u32> {
        self.map.get(&key).copied()
    }
}

#[derive(Default)]
pub struct Owners {
    by_cookie: Bounded,
    /// Processes that are looked at first.
    likely: VecDeque<u32>,
    /// Where the last search stopped for lack of time.
    cursor: u32,
    /// Sockets that no search found an owner of, and when.
    ownerless: HashMap<Cookie, Instant>,
}

impl Owners {
    /// The kernel side saw this process listen on this socket.
    pub fn hint(&mut self, cookie: Cookie, pid: u32) {
        if cookie != 0 && pid != 0 {
            self.by_cookie.insert(cookie, pid);
            self.likely(pid);
        }
    }

    pub fn likely(&mut self, pid: u32) {
        if !self.likely.contains(&pid) {
            self.likely.truncate(255);
            self.likely.push_front(pid);
        }
    }

    /// The living owner of each socket, where one is found in time.
    pub fn of(&mut self, proc: &Procfs, listeners: &[Listener]) -> HashMap<Cookie, (u32, Stat)> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        // One process may have many.
        let mut stats: HashMap<u32, Option<Stat>> = HashMap::new();
        let mut alive = |pid: u32| stats.entry(pid).or_insert_with(|| proc.stat(pid).filter(Stat::alive)).clone();
        self.ownerless.retain(|_, at| at.elapsed() < AGAIN);
        for listener in listeners {
            let owner = self.by_cookie.get(listener.cookie).and_then(|pid| Some((pid, alive(pid)?)));
            match owner {
                Some(owner) => {
                    found.insert(listener.cookie, owner);
                }
                None if self.ownerless.contains_key(&listener.cookie) => {}
                None => missing.push(listener),
            }
        }
        if !missing.is_empty() {
            let owners = self.search(proc, &missing, SEARCH, FILES).into_iter();
            found.extend(owners.filter_map(|(cookie, pid)| Some((cookie, (pid, alive(pid)?)))));
        }
        found
    }

    /// The thorough search, for the start of the agent.
    pub fn survey(&mut self, proc: &Procfs, listeners: &[Listener]) -> HashMap<Cookie, u32> {
        let missing: Vec<&Listener> = listeners.iter().collect();
        self.search(proc, &missing, SURVEY, ALL_FILES)
    }

    fn search(&mut self, proc: &Procfs, missing: &[&Listener], time: Duration, files: usize) -> HashMap<Cookie, u32> {
        let until = Instant::now() + time;
        let wanted: HashMap<u32, Cookie> = missing.iter().map(|listener| (listener.inode, listener.cookie)).collect();
        let mut open_in: HashMap<Cookie, Vec<u32>> = HashMap::new();
        let mut looked = HashSet::new();
        let all = proc.pids();
        // Go on below the pid where the last search ran out of time.
        let start = all.iter().position(|pid| *pid < self.cursor).unwrap_or(0);
        let order = self.likely.iter().chain(&all[start..]).chain(&all[..start]).copied();
        let mut cut = None;
        for pid in order.collect::<Vec<_>>() {
            if Instant::now() > until {
                cut = Some(pid);
                break;
            }
            if looked.insert(pid) {
                let sockets = proc.sockets(pid, files).into_iter().filter_map(|inode| wanted.get(&inode));
                sockets.for_each(|cookie| open_in.entry(*cookie).or_default().push(pid));
            }
        }
        self.cursor = cut.map_or(0, |pid| pid.saturating_add(1));
        let found: HashMap<Cookie, u32> =
            open_in.into_iter().filter_map(|(cookie, pids)| Some((cookie, first(proc, &pids)?))).collect();
        found.iter().for_each(|(cookie, pid)| self.by_cookie.insert(*cookie, *pid));
        if cut.is_none() {
            let now = Instant::now();
            let lost = missing.iter().map(|listener| listener.cookie).filter(|cookie| !found.contains_key(cookie));
            self.ownerless.extend(lost.take(KNOWN).map(|cookie| (cookie, now)));
        }
        found
    }
}

/// Of several processes that share a socket, the one that opened it: the oldest, but not a manager that passed it on.
fn first(proc: &Procfs, pids: &[u32]) -> Option<u32> {
    let started = |pid: &u32| proc.stat(*pid).map(|stat| (*pid == 1, stat.start_ticks, *pid));
    pids.iter().filter_map(started).min().map(|(_, _, pid)| pid)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::host::netlink::Netlink;
    use crate::host::sockets;
    use crate::model::Endpoint;

    fn listening(socket: &TcpListener) -> Listener {
        let endpoint = Endpoint::Tcp(socket.local_addr().unwrap());
        let all = sockets::listeners(&mut Netlink::open(libc::NETLINK_SOCK_DIAG).unwrap()).unwrap();
        all.into_iter().find(|listener| listener.endpoint == endpoint).unwrap()
    }

    #[test]
    fn an_owner_that_nobody_named_is_found_by_its_open_files() {
        let proc = Procfs::new("/proc");
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = listening(&socket);
        let mut owners = Owners::default();
        assert_eq!(owners.survey(&proc, std::slice::from_ref(&listener))[&listener.cookie], std::process::id());
        assert_eq!(owners.of(&proc, std::slice::from_ref(&listener))[&listener.cookie].0, std::process::id());
    }

    #[test]
    fn an_owner_that_died_is_searched_for_again() {
        let proc = Procfs::new("/proc");
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = listening(&socket);
        let mut owners = Owners::default();
        owners.hint(listener.cookie, u32::MAX - 1);
        owners.likely(std::process::id());
        assert_eq!(owners.of(&proc, std::slice::from_ref(&listener))[&listener.cookie].0, std::process::id());
    }

    #[test]
    fn a_socket_without_an_owner_does_not_start_one_search_after_the_other() {
        let proc = Procfs::new("/proc");
        let mut listener = listening(&TcpListener::bind("127.0.0.1:0").unwrap());
        listener.inode = 0;
        let mut owners = Owners::default();
        assert!(owners.survey(&proc, std::slice::from_ref(&listener)).is_empty());
        assert!(owners.ownerless.contains_key(&listener.cookie));
    }

    #[test]
    fn memory_is_bounded() {
        let mut owners = Owners::default();
        for cookie in 1..100_000 {
            owners.hint(cookie, cookie as u32 % 5000 + 1);
        }
        assert!(owners.by_cookie.map.len() <= KNOWN && owners.likely.len() <= 256);
        assert_eq!(owners.by_cookie.get(99_999), Some(99_999 % 5000 + 1));
    }
}
