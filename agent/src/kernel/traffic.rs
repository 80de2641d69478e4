//! Healthy traffic, as far as the kernel side counts it: so that silence can be trusted.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use aya::maps::{HashMap as Table, MapData};
use trace502_ebpf::{CONNECT_BUCKETS, Target, Thread};

use crate::model::unmap;

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct ThreadRow(Thread);

// SAFETY: plain integers, every bit pattern is valid.
unsafe impl aya::Pod for ThreadRow {}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct TargetRow(Target);

// SAFETY: plain integers and bytes, every bit pattern is valid.
unsafe impl aya::Pod for TargetRow {}

/// Counts that only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that proxies read from clients, and answers they began.
    pub requests: u64,
    pub answers: u64,
    /// Connects to each upstream, by the power of two of microseconds they took.
    pub connects: BTreeMap<SocketAddr, [u64; CONNECT_BUCKETS]>,
}

/// Adds up what the threads of the proxies count; threads come and go.
#[derive(Default)]
pub(super) struct Counter {
    threads: HashMap<u32, (u64, u64)>,
    total: (u64, u64),
}

impl Counter {
    pub fn read(
        &mut self,
        threads: &Table<MapData, u32, ThreadRow>,
        connects: &Table<MapData, TargetRow, [u64; CONNECT_BUCKETS]>,
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
        let connects = connects
            .iter()
            .flatten()
            .map(|(TargetRow(target), counts)| (SocketAddr::new(unmap(target.addr), target.port), counts));
        Traffic { requests: self.total.0, answers: self.total.1, connects: connects.collect() }
    }
}
