//! Healthy traffic, as far as the kernel side counts it: so that silence can be trusted.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use aya::maps::{HashMap as Table, MapData};
use trace502_ebpf::{CONNECT_BUCKETS, ConnectTimes, Dialled, Thread};

use crate::model::unmap;

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct ThreadRow(Thread);

// SAFETY: plain integers, every bit pattern is valid.
unsafe impl aya::Pod for ThreadRow {}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct DialledRow(Dialled);

// SAFETY: plain integers and bytes, every bit pattern is valid.
unsafe impl aya::Pod for DialledRow {}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct TimesRow(ConnectTimes);

// SAFETY: plain integers, every bit pattern is valid.
unsafe impl aya::Pod for TimesRow {}

/// Counts that only grow, and what is new in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Requests that proxies read from clients, and answers they began.
    pub requests: u64,
    pub answers: u64,
    /// Connections to each upstream.
    pub connections: BTreeMap<SocketAddr, u64>,
    /// Connects since the last reading.
    pub connected: Vec<Connected>,
}

/// Connects of a process of a proxy to an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Connected {
    pub pid: u32,
    pub upstream: SocketAddr,
    pub times: Times,
}

/// How long connects took: how many less than 1, 2, 4, 8 ... microseconds, the last one without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    pub counts: [u64; CONNECT_BUCKETS],
    pub micros: u64,
}

impl Times {
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn add(&mut self, more: &Times) {
        self.counts.iter_mut().zip(more.counts).for_each(|(sum, more)| *sum += more);
        self.micros += more.micros;
    }

    /// What came since `before`; counts that fell began again.
    fn since(&self, before: Option<&Times>) -> Times {
        let grew = |before: &&Times| self.counts.iter().zip(before.counts).all(|(now, before)| *now >= before);
        let Some(before) = before.filter(grew) else { return *self };
        let mut new = *self;
        new.counts.iter_mut().zip(before.counts).for_each(|(now, before)| *now -= before);
        new.micros = new.micros.saturating_sub(before.micros);
        new
    }
}

/// Adds up what the threads of the proxies count; threads, processes and upstreams come and go.
#[derive(Default)]
pub(super) struct Counter {
    threads: HashMap<u32, (u64, u64)>,
    total: (u64, u64),
    dialled: HashMap<(u32, SocketAddr), Times>,
    connections: BTreeMap<SocketAddr, u64>,
}

/// Upstreams whose connections are counted. Beyond, they are counted from anew.
const UPSTREAMS: usize = 16_384;

impl Counter {
    pub fn read(
        &mut self,
        threads: &Table<MapData, u32, ThreadRow>,
        connects: &Table<MapData, DialledRow, TimesRow>,
    ) -> Traffic {
        let mut now = HashMap::with_capacity(self.threads.len());
        for (tid, ThreadRow(thread)) in threads.iter().flatten() {
            let (requests, answers) = (thread.requests, thread.answers);
            // A thread id that counts from the start again belongs to another thread.
            let before = self.threads.get(&tid).filter(|(r, a)| *r <= requests && *a <= answers);
            let (r, a) = before.copied().unwrap_or_default();
            self.total.0 += requests - r;
            self.total.1 += answers - a;
            now.insert(tid, (requests, answers));
        }
        self.threads = now;
        let rows = connects.iter().flatten().map(|(DialledRow(dialled), TimesRow(times))| {
            let upstream = SocketAddr::new(unmap(dialled.addr), dialled.port);
            (dialled.tgid, upstream, Times { counts: times.counts, micros: times.micros })
        });
        let connected = self.connected(rows);
        let connections = self.connections.clone();
        Traffic { requests: self.total.0, answers: self.total.1, connections, connected }
    }

    fn connected(&mut self, rows: impl Iterator<Item = (u32, SocketAddr, Times)>) -> Vec<Connected> {
        let mut now = HashMap::with_capacity(self.dialled.len());
        let mut connected = Vec::new();
        for (pid, upstream, times) in rows {
            let new = times.since(self.dialled.get(&(pid, upstream)));
            now.insert((pid, upstream), times);
            if new.count() > 0 {
                if self.connections.len() >= UPSTREAMS {
                    self.connections.clear();
                }
                *self.connections.entry(upstream).or_default() += new.count();
                connected.push(Connected { pid, upstream, times: new });
            }
        }
        self.dialled = now;
        connected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(fast: u64, slow: u64) -> Times {
        let mut times = Times { micros: fast * 10 + slow * 1000, ..Times::default() };
        (times.counts[4], times.counts[10]) = (fast, slow);
        times
    }

    #[test]
    fn only_what_is_new_is_told_and_counts_that_begin_again_are_whole() {
        let mut counter = Counter::default();
        let at: SocketAddr = "127.0.0.1:8000".parse().unwrap();
        let mut read = |pid, fast, slow| {
            let told = counter.connected([(pid, at, times(fast, slow))].into_iter());
            (told.first().map(|new| new.times), counter.connections[&at])
        };
        assert_eq!(read(7, 3, 0), (Some(times(3, 0)), 3));
        assert_eq!(read(7, 3, 0), (None, 3));
        assert_eq!(read(7, 5, 1), (Some(times(2, 1)), 6));
        // The row was evicted from the table in the kernel, and came back.
        assert_eq!(read(7, 1, 1), (Some(times(1, 1)), 8));
        assert_eq!(read(8, 2, 0), (Some(times(2, 0)), 10));
    }
}
