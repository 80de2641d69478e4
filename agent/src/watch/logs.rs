//! The logs that a watch follows: those the user named, and those that running proxies have open.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use crate::correlate::log_writer;
use crate::host::{Host as _, LiveHost, monotonic};
use crate::logs::{self, Follower, Health, LogError, LogsError, Source, Wanted};
use crate::model::Nanos;
use crate::proxies::by_name;
use crate::text::{self, MILLI, SECOND};

/// A proxy opens its logs as it starts; a reload may open others.
const SETTLED: Nanos = SECOND;
const LOOK_AGAIN: Nanos = 30 * SECOND;
/// Logs are read this often at most, however fast they grow.
const REST: Nanos = 5 * MILLI;
/// Turns of one reading: a log that grows faster than it is read must not keep us.
const TURNS: usize = 16;

struct Writer {
    pid: u32,
    name: String,
}

pub struct Logs {
    follower: Follower,
    find: bool,
    /// Logs that proxies have open, and whose each is.
    found: BTreeMap<Source, Writer>,
    /// Proxies whose open files are to be looked at, and when.
    due: BTreeMap<u32, Nanos>,
    /// Process ids as the proxies' own namespaces have them.
    inner: BTreeMap<u32, u32>,
    ready: Nanos,
    known: Nanos,
}

impl Logs {
    pub fn start(wanted: &Wanted) -> Result<Logs, LogsError> {
        let mut follower = Follower::new();
        for source in &wanted.sources {
            follower.add(source.clone())?;
        }
        let (find, found) = (wanted.find, BTreeMap::new());
        Ok(Logs { follower, find, found, due: BTreeMap::new(), inner: BTreeMap::new(), ready: 0, known: 0 })
    }

    /// What is followed and what does not exist yet, in words.
    pub fn told(&self) -> Vec<String> {
        self.follower.followed().map(|(source, exists)| told(source, exists, self.found.get(source))).collect()
    }

    pub fn health(&self) -> Health {
        self.follower.health()
    }

    pub fn came(&mut self, pid: u32, now: Nanos) {
        self.inner.remove(&pid);
        if self.find {
            self.due.insert(pid, now.saturating_add(SETTLED));
        }
    }

    pub fn went(&mut self, pid: u32) {
        self.inner.remove(&pid);
        self.due.remove(&pid);
    }

    /// Looks at what proxies have open, where it is time to.
    pub fn look(&mut self, now: Nanos, proxies: &BTreeMap<u32, String>, host: &mut LiveHost) {
        let due: Vec<u32> = self.due.iter().filter(|(_, at)| **at <= now).map(|(pid, _)| *pid).collect();
        for pid in due {
            self.due.insert(pid, now.saturating_add(LOOK_AGAIN));
            // Workers have open what their master has, and thousands of sockets.
            let led = host.process(pid).is_some_and(|facts| proxies.contains_key(&facts.parent));
            let Some(name) = proxies.get(&pid).filter(|_| !led) else { continue };
            for source in logs::discover(name, &host.appended(pid)) {
                // One that cannot be followed is one that nobody asked for.
                if !self.found.contains_key(&source) && self.follower.add(source.clone()).is_ok() {
                    self.found.insert(source, Writer { pid, name: name.clone() });
                }
            }
        }
        // Logs of a container that is gone: their way led through a process.
        let gone = |source: &Source| {
            let through = source.path.strip_prefix("/proc").ok().and_then(|rest| rest.iter().next());
            through.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists())
        };
        let left: Vec<Source> = self.found.keys().filter(|source| gone(source)).cloned().collect();
        for source in left {
            self.follower.remove(&source);
            self.found.remove(&source);
        }
    }

    /// Readable when a log has changed, once the last turn is a while ago.
    pub fn changes(&self, now: Nanos) -> Option<BorrowedFd<'_>> {
        self.follower.changes().filter(|_| self.rested(now))
    }

    /// When to look at the logs without being told.
    pub fn wake(&self) -> Nanos {
        if self.ready == 0 { Nanos::MAX } else { self.ready }
    }

    /// Whether the last turn is a while ago.
    pub fn rested(&self, now: Nanos) -> bool {
        now >= self.ready
    }

    /// Up to when all that was written is known: no deadline after it has passed yet, as far as a line may answer it.
    pub fn known(&self) -> Nanos {
        if self.follower.is_empty() { Nanos::MAX } else { self.known }
    }

    /// Hands over the errors that were written since the last time, with processes as this host numbers them.
    pub fn read(&mut self, proxies: &BTreeMap<u32, String>, host: &LiveHost, mut each: impl FnMut(Nanos, LogError)) {
        if self.follower.is_empty() {
            return;
        }
        let mut errors = Vec::new();
        let mut now = monotonic();
        let mut more = self.follower.read(|followed| errors.push(followed));
        for _ in 1..TURNS {
            if !more {
                break;
            }
            now = monotonic();
            more = self.follower.read(|followed| errors.push(followed));
        }
        if !more {
            self.known = now;
        }
        // While there is more, and right after something came.
        self.ready = if more || !errors.is_empty() { now.saturating_add(REST) } else { 0 };
        for followed in errors {
            let mut error = followed.error;
            let pid = self.process(&error, proxies, host);
            error.tid = match error.tid {
                main if main == error.pid => pid,
                // Numbers of threads are those of the container, too.
                other => other.filter(|_| pid == error.pid),
            };
            error.pid = pid;
            each(followed.at, error);
        }
    }

    /// The process of this host that wrote the line: in a container it has another number there.
    fn process(&mut self, error: &LogError, proxies: &BTreeMap<u32, String>, host: &LiveHost) -> Option<u32> {
        let writer = log_writer(error.format);
        let kind = |name: &str| by_name(name).map_or(name, |proxy| proxy.name) == writer;
        let mut own = proxies.iter().filter(|(_, name)| kind(name)).map(|(pid, _)| *pid);
        let Some(written) = error.pid else {
            // A log that names no process: the only one there is, if so.
            return own.next().filter(|_| own.next().is_none());
        };
        let mut same = Vec::new();
        for pid in own {
            let inner = *self.inner.entry(pid).or_insert_with(|| host.innermost(pid).unwrap_or(pid));
            if inner == written {
                same.push(pid);
            }
        }
        match same[..] {
            [one] => Some(one),
            // Of another name, as the user told us; or gone already.
            [] => Some(written).filter(|pid| proxies.contains_key(pid) || host.innermost(*pid).is_none()),
            _ => same.contains(&written).then_some(written),
        }
    }
}

/// A log with its proxy, under the name that it has there: ours leads through the process.
fn told(source: &Source, exists: bool, writer: Option<&Writer>) -> String {
    let inside = writer.and_then(|writer| source.path.strip_prefix(format!("/proc/{}/root", writer.pid)).ok());
    let path = match inside {
        Some(path) => format!("/{}", path.display()),
        None => source.path.display().to_string(),
    };
    let path = text::safe(&path);
    match writer {
        Some(Writer { pid, name }) => {
            let there = if inside.is_some() { ", inside its container" } else { "" };
            format!("following the log of {} (pid {pid}): {path}{there}", text::safe(name))
        }
        None if exists => format!("following the log {path}"),
        None => format!("the log {path} does not exist yet; it is read once it does"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_told_with_its_proxy_and_its_own_path() {
        let source = |path: &str| Source { format: logs::Format::Nginx, path: path.into() };
        let writer = Writer { pid: 71, name: "nginx".into() };
        let log = source("/var/log/nginx/error.log");
        assert_eq!(told(&log, true, Some(&writer)), "following the log of nginx (pid 71): /var/log/nginx/error.log");
        assert_eq!(
            told(&source("/proc/71/root/var/log/nginx/error.log"), true, Some(&writer)),
            "following the log of nginx (pid 71): /var/log/nginx/error.log, inside its container"
        );
        assert_eq!(told(&log, true, None), "following the log /var/log/nginx/error.log");
        let hostile = told(&source("/a\u{1b}[31m"), false, None);
        assert!(hostile.ends_with("does not exist yet; it is read once it does") && !hostile.contains('\u{1b}'));
    }
}
