//! Processes and listeners of the last minutes: who listened where, who is whose child, who died of what.
//!
//! Filled from kernel facts alone, bounded, and without judgement: which death explains a failure is decided in
//! `causes`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::{Cookie, Dial, Endpoint, ExitStatus, Listening, Nanos, Proc};
use crate::text::SECOND;

/// How long deaths and closed listeners are remembered.
pub const MEMORY: Nanos = 300 * SECOND;
const LIVES: usize = 65_536;
const DEATHS: usize = 8_192;
const LISTENERS: usize = 32_768;
const SIGNALS: usize = 4;
const DIALS: usize = 4;
const EXECS: usize = 4_096;
/// How many that listened are passed over when room is made.
const ROUNDS: usize = 64;
const PORTS: usize = 4;

/// A fatal signal on its way to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalSeen {
    pub at: Nanos,
    pub signal: i32,
    pub sender: Proc,
    pub from_kernel: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomSeen {
    pub at: Nanos,
    pub rss: Option<u64>,
}

/// What was heard of a process while it lived.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub comm: String,
    pub cgroup: u64,
    pub parent: Option<u32>,
    /// When it was forked, as far as that was seen.
    pub born: Option<Nanos>,
    pub oom: Option<OomSeen>,
    pub signals: Vec<SignalSeen>,
    /// Connections that it was refused, the last ones.
    pub dials: Vec<(Nanos, Dial)>,
    /// Where it listened.
    pub listened: Vec<Endpoint>,
}

/// The end of a process.
#[derive(Clone, Debug)]
pub struct Death {
    pub pid: u32,
    pub at: Nanos,
    pub status: ExitStatus,
    pub life: Life,
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub endpoint: Endpoint,
    pub netns: u32,
    pub pid: u32,
    pub comm: String,
    pub cgroup: u64,
    pub is_proxy: bool,
    pub since: Nanos,
    pub closed: Option<Nanos>,
    /// In whose context it was closed.
    pub closed_by: Option<u32>,
    pub queue: u32,
    pub limit: u32,
}

impl Listener {
    /// Whether a connection to this endpoint in this namespace would reach it.
    pub fn takes(&self, endpoint: &Endpoint, netns: Option<u32>) -> bool {
        match (&self.endpoint, endpoint) {
            (Endpoint::Unix(own), Endpoint::Unix(path)) => own == path,
            (Endpoint::Tcp(own), Endpoint::Tcp(target)) => {
                let here = netns.is_none_or(|ns| ns == 0 || self.netns == 0 || ns == self.netns);
                let addr = own.ip() == target.ip()
                    || (own.ip().is_unspecified() && (own.is_ipv6() || own.is_ipv4() == target.is_ipv4()));
                here && addr && own.port() == target.port()
            }
            _ => false,
        }
    }
}

/// What listeners are looked up by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Port(u16),
    Path(String),
}

impl Place {
    fn of(endpoint: &Endpoint) -> Place {
        match endpoint {
            Endpoint::Tcp(addr) => Place::Port(addr.port()),
            Endpoint::Unix(path) => Place::Path(path.clone()),
        }
    }
}

#[derive(Debug, Default)]
pub struct History {
    lives: BTreeMap<u32, Life>,
    lives_order: VecDeque<u32>,
    /// The last death of each pid, and their order.
    deaths: BTreeMap<u32, Death>,
    order: VecDeque<(Nanos, u32)>,
    /// Processes in the order in which they became what they are.
    executed: VecDeque<(Nanos, u32)>,
    listeners: BTreeMap<Cookie, Listener>,
    places: BTreeMap<Place, BTreeSet<Cookie>>,
    closed: VecDeque<(Nanos, Cookie)>,
    /// What was forgotten or not taken in because there was too much.
    pub overflow: u64,
}

impl History {
    pub fn listening(&mut self, at: Nanos, seen: &Listening) {
        if self.listeners.len() >= LISTENERS && !self.listeners.contains_key(&seen.cookie) {
            self.overflow += 1;
            return;
        }
        // Children show the same socket again: it stays with the one that was seen first.
        let known = self.listeners.get(&seen.cookie).filter(|l| l.closed.is_none());
        let since = known.map_or(at, |l| l.since);
        let pid = known.map_or(seen.pid, |l| l.pid);
        self.places.entry(Place::of(&seen.endpoint)).or_default().insert(seen.cookie);
        self.listeners.insert(
            seen.cookie,
            Listener {
                endpoint: seen.endpoint.clone(),
                netns: seen.netns,
                pid,
                comm: seen.comm.clone(),
                cgroup: seen.cgroup,
                is_proxy: seen.is_proxy,
                since,
                closed: None,
                closed_by: None,
                queue: seen.queue,
                limit: seen.limit,
            },
        );
        let life = self.life(seen.pid, &seen.comm, seen.cgroup);
        if life.listened.len() < PORTS && !life.listened.contains(&seen.endpoint) {
            life.listened.push(seen.endpoint.clone());
        }
    }

    pub fn listener_closed(&mut self, at: Nanos, seen: &Listening, by: Option<u32>) {
        // One that began before we looked is remembered from its end.
        if !self.listeners.contains_key(&seen.cookie) {
            self.listening(at, seen);
        }
        if let Some(listener) = self.listeners.get_mut(&seen.cookie)
            && listener.closed.is_none()
        {
            listener.closed = Some(at);
            listener.closed_by = by;
            self.closed.push_back((at, seen.cookie));
        }
    }

    pub fn exec(&mut self, at: Nanos, proc: &Proc) {
        let life = self.life(proc.pid, &proc.comm, proc.cgroup);
        life.comm.clone_from(&proc.comm);
        life.cgroup = proc.cgroup;
        if self.executed.len() >= EXECS {
            self.executed.pop_front();
            self.overflow += 1;
        }
        self.executed.push_back((at, proc.pid));
    }

    pub fn fork(&mut self, at: Nanos, parent: u32, child: &Proc) {
        // A pid that comes back is somebody else.
        self.lives.remove(&child.pid);
        let life = self.life(child.pid, &child.comm, child.cgroup);
        life.parent = Some(parent);
        life.born = Some(at);
    }

    pub fn signal(&mut self, at: Nanos, target: &Proc, signal: i32, sender: &Proc, from_kernel: bool) {
        let life = self.life(target.pid, &target.comm, target.cgroup);
        if life.signals.len() == SIGNALS {
            life.signals.remove(0);
        }
        life.signals.push(SignalSeen { at, signal, sender: sender.clone(), from_kernel });
    }

    pub fn dial_failed(&mut self, at: Nanos, pid: u32, dial: Dial) {
        let life = self.life(pid, "", 0);
        if life.dials.len() == DIALS {
            life.dials.remove(0);
        }
        life.dials.push((at, dial));
    }

    pub fn oom(&mut self, at: Nanos, victim: &Proc, rss: Option<u64>) {
        self.life(victim.pid, &victim.comm, victim.cgroup).oom = Some(OomSeen { at, rss });
    }

    /// The death, as it is remembered.
    pub fn exit(&mut self, at: Nanos, proc: &Proc, parent: Option<u32>, status: ExitStatus) -> &Death {
        let mut life = self.lives.remove(&proc.pid).unwrap_or_default();
        // One that was born before we looked.
        life.parent = life.parent.or(parent);
        self.close_unix(at, proc.pid, &life.listened);
        // The thread that goes last may have a name of its own.
        if life.comm.is_empty() {
            life.comm.clone_from(&proc.comm);
        }
        if proc.cgroup != 0 {
            life.cgroup = proc.cgroup;
        }
        while self.order.len() >= DEATHS {
            self.overflow += 1;
            self.forget_death();
        }
        self.order.push_back((at, proc.pid));
        let death = Death { pid: proc.pid, at, status, life };
        self.deaths.insert(proc.pid, death.clone());
        // Just inserted; `entry` gives the reference without a second possibility.
        self.deaths.entry(proc.pid).or_insert(death)
    }

    /// The kernel side has no hook at the end of a unix listener: it goes with its process.
    fn close_unix(&mut self, at: Nanos, pid: u32, endpoints: &[Endpoint]) {
        for endpoint in endpoints.iter().filter(|e| matches!(e, Endpoint::Unix(_))) {
            for cookie in self.places.get(&Place::of(endpoint)).into_iter().flatten() {
                let own = self.listeners.get_mut(cookie).filter(|l| l.pid == pid && l.closed.is_none());
                if let Some(listener) = own {
                    listener.closed = Some(at);
                    listener.closed_by = Some(pid);
                    self.closed.push_back((at, *cookie));
                }
            }
        }
    }

    pub fn life_of(&self, pid: u32) -> Option<&Life> {
        self.lives.get(&pid)
    }

    /// The last death under this pid. The pid may be somebody else's since: whoever asks knows the time that he means.
    pub fn death_of(&self, pid: u32) -> Option<&Death> {
        self.deaths.get(&pid)
    }

    /// Deaths of the last minutes, oldest first.
    pub fn deaths(&self) -> impl DoubleEndedIterator<Item = &Death> {
        self.order.iter().filter_map(|(at, pid)| self.deaths.get(pid).filter(|death| death.at == *at))
    }

    /// Name of a process, alive or dead.
    pub fn comm_of(&self, pid: u32) -> Option<&str> {
        let alive = self.lives.get(&pid).map(|life| life.comm.as_str());
        alive.or_else(|| self.deaths.get(&pid).map(|death| death.life.comm.as_str())).filter(|c| !c.is_empty())
    }

    pub fn parent_of(&self, pid: u32) -> Option<u32> {
        match self.lives.get(&pid) {
            Some(life) => life.parent,
            None => self.deaths.get(&pid).and_then(|death| death.life.parent),
        }
    }

    /// Whether `pid` is `ancestor` or descends from it, a few generations up.
    pub fn descends(&self, pid: u32, ancestor: u32) -> bool {
        let mut at = pid;
        for _ in 0..6 {
            if at == ancestor {
                return true;
            }
            match self.parent_of(at) {
                Some(parent) => at = parent,
                None => return false,
            }
        }
        false
    }

    /// The first child of this parent with this name that was born in this time and lives.
    pub fn child_born(&self, parent: u32, comm: &str, from: Nanos, to: Nanos) -> Option<(u32, Nanos)> {
        let born = self.lives.iter().filter(|(_, life)| life.parent == Some(parent) && life.comm == comm);
        let born = born.filter_map(|(pid, life)| Some((*pid, life.born?)));
        born.filter(|(_, at)| (from..=to).contains(at)).min_by_key(|(pid, at)| (*at, *pid))
    }

    /// Processes that live and became a program of this name in this time, the first one first.
    pub fn executed(&self, comm: &str, from: Nanos, to: Nanos) -> Vec<(u32, Nanos)> {
        let lately = self.executed.iter().rev().take_while(|(at, _)| *at >= from).filter(|(at, _)| *at <= to);
        let named = lately.filter(|(_, pid)| self.lives.get(pid).is_some_and(|life| life.comm == comm));
        let mut found: Vec<_> = named.map(|(at, pid)| (*pid, *at)).collect();
        found.reverse();
        found
    }

    /// Listeners that take this endpoint, newest first.
    fn taking<'a>(&'a self, endpoint: &Endpoint, netns: Option<u32>) -> impl Iterator<Item = &'a Listener> {
        let cookies = self.places.get(&Place::of(endpoint)).into_iter().flatten().rev();
        cookies.filter_map(|cookie| self.listeners.get(cookie)).filter(move |l| l.takes(endpoint, netns))
    }

    /// One that is open.
    pub fn open(&self, endpoint: &Endpoint, netns: Option<u32>) -> Option<&Listener> {
        self.taking(endpoint, netns).filter(|l| l.closed.is_none()).max_by_key(|l| l.since)
    }

    /// The last one that closed before this moment.
    pub fn lost(&self, endpoint: &Endpoint, netns: Option<u32>, before: Nanos) -> Option<&Listener> {
        let gone = self.taking(endpoint, netns).filter(|l| l.closed.is_some_and(|at| at <= before));
        gone.max_by_key(|l| l.closed)
    }

    pub fn expire(&mut self, now: Nanos) {
        let before = now.saturating_sub(MEMORY);
        while self.order.front().is_some_and(|(at, _)| *at < before) {
            self.forget_death();
        }
        while self.executed.front().is_some_and(|(at, _)| *at < before) {
            self.executed.pop_front();
        }
        while self.closed.front().is_some_and(|(at, _)| *at < before) || self.closed.len() > LISTENERS / 2 {
            let Some((_, cookie)) = self.closed.pop_front() else { break };
            if let Some(listener) = self.listeners.remove(&cookie) {
                let place = Place::of(&listener.endpoint);
                if let Some(cookies) = self.places.get_mut(&place) {
                    cookies.remove(&cookie);
                    if cookies.is_empty() {
                        self.places.remove(&place);
                    }
                }
            }
        }
    }

    fn life(&mut self, pid: u32, comm: &str, cgroup: u64) -> &mut Life {
        if !self.lives.contains_key(&pid) {
            self.make_room();
            self.lives_order.push_back(pid);
        }
        let life = self.lives.entry(pid).or_default();
        if life.comm.is_empty() {
            life.comm = comm.to_owned();
            life.cgroup = cgroup;
        }
        life
    }

    /// Processes whose end is never told (they became something else) must not fill the memory. Those that
    /// listened are kept before others.
    fn make_room(&mut self) {
        for _ in 0..ROUNDS {
            if self.lives_order.len() < LIVES {
                return;
            }
            let Some(oldest) = self.lives_order.pop_front() else { return };
            match self.lives.get(&oldest) {
                Some(life) if !life.listened.is_empty() => self.lives_order.push_back(oldest),
                Some(_) => {
                    self.lives.remove(&oldest);
                    self.overflow += 1;
                }
                None => {}
            }
        }
        if let Some(oldest) = self.lives_order.pop_front() {
            self.overflow += u64::from(self.lives.remove(&oldest).is_some());
        }
    }

    fn forget_death(&mut self) {
        if let Some((at, pid)) = self.order.pop_front()
            && self.deaths.get(&pid).is_some_and(|death| death.at == at)
        {
            self.deaths.remove(&pid);
        }
    }
}
