//! Where the screen gets what it shows: the running engine behind a bounded channel, or a past that is over.
//!
//! Data only. Whoever feeds must never wait for a terminal: what does not fit is counted as lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Incident;
use crate::when::{Micros, now_micros, parse_rfc3339};

/// What is watched and what is missing, at one moment. Counts only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub proxies: Vec<WatchedProxy>,
    pub upstreams: Vec<UpstreamSeen>,
    /// Requests that proxies sent to upstreams; `None` where nobody counts them.
    pub requests: Option<u64>,
    /// What was lost, by where.
    pub lost: BTreeMap<String, u64>,
    pub missing: Vec<MissingProbe>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedProxy {
    pub name: String,
    pub pid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSeen {
    pub addr: String,
    /// Made to it; with keepalive, many requests share one.
    pub connections: u64,
}

/// A probe that is not attached, and what is not seen without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingProbe {
    pub probe: String,
    pub without: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// There may be more to take at once.
    More,
    /// Nothing waits.
    Idle,
    /// Nothing will come any more and there is nothing to stay for.
    Stop,
}

/// Whether time goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Live,
    /// From the first to the last moment of a past.
    Past(Micros, Micros),
}

pub trait Source {
    fn span(&self) -> Span;
    fn now(&self) -> Micros;
    /// Cheap: asked a few times a second.
    fn snapshot(&mut self) -> Snapshot;
    /// Moves at most `most` incidents that wait, oldest first.
    fn take(&mut self, most: usize, into: &mut Vec<Arc<Incident>>) -> Flow;
}

/// Name of the loss when the screen does not keep up.
const SCREEN: &str = "screen";

#[derive(Debug, Default)]
struct Shared {
    snapshot: Mutex<Snapshot>,
    lost: AtomicU64,
    stop: AtomicBool,
}

/// The engine's end.
#[derive(Clone, Debug)]
pub struct Feed {
    incidents: SyncSender<Arc<Incident>>,
    shared: Arc<Shared>,
}

impl Feed {
    /// Never waits; an incident that finds no room is counted.
    pub fn offer(&self, incident: Arc<Incident>) {
        if self.incidents.try_send(incident).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn publish(&self, snapshot: Snapshot) {
        *self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    /// Asks the screen to leave, once it has shown what waits.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Incidents that found no room.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

/// The screen's end of a running engine.
#[derive(Debug)]
pub struct Live {
    incidents: Receiver<Arc<Incident>>,
    shared: Arc<Shared>,
}

/// Both ends, with room for this many incidents between them.
pub fn channel(room: usize) -> (Feed, Live) {
    let (sender, receiver) = sync_channel(room);
    let shared = Arc::new(Shared::default());
    (Feed { incidents: sender, shared: Arc::clone(&shared) }, Live { incidents: receiver, shared })
}

impl Source for Live {
    fn span(&self) -> Span {
        Span::Live
    }

    fn now(&self) -> Micros {
        now_micros()
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut snapshot = self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > 0 {
            *snapshot.lost.entry(SCREEN.into()).or_default() += lost;
        }
        snapshot
    }

    fn take(&mut self, most: usize, into: &mut Vec<Arc<Incident>>) -> Flow {
        // Read before the channel: what was offered before the stop is still taken.
        let stop = self.shared.stop.load(Ordering::Acquire);
        for _ in 0..most {
            match self.incidents.try_recv() {
                Ok(incident) => into.push(incident),
                Err(TryRecvError::Empty) if stop => return Flow::Stop,
                Err(TryRecvError::Empty) => return Flow::Idle,
                Err(TryRecvError::Disconnected) => return Flow::Stop,
            }
        }
        Flow::More
    }
}

/// What is over: it comes at once, and time stands still at its end.
#[derive(Debug)]
pub struct Past {
    incidents: VecDeque<Arc<Incident>>,
    first: Micros,
    last: Micros,
    left_out: u64,
}

impl Past {
    /// In any order; shown in the order of their times.
    pub fn new(incidents: Vec<Incident>) -> Past {
        let mut timed: Vec<(Micros, Arc<Incident>)> =
            incidents.into_iter().map(|i| (parse_rfc3339(&i.time).unwrap_or(0), Arc::new(i))).collect();
        timed.sort_by_key(|(at, _)| *at);
        let first = timed.first().map_or_else(now_micros, |(at, _)| *at);
        let last = timed.last().map_or(first, |(at, _)| *at);
        Past { incidents: timed.into_iter().map(|(_, incident)| incident).collect(), first, last, left_out: 0 }
    }

    /// Older ones that were not taken along, or records that could not be read.
    pub fn without(self, left_out: u64) -> Past {
        Past { left_out, ..self }
    }
}

impl Source for Past {
    fn span(&self) -> Span {
        Span::Past(self.first, self.last)
    }

    fn now(&self) -> Micros {
        self.last
    }

    fn snapshot(&mut self) -> Snapshot {
        let left_out = (self.left_out > 0).then(|| ("left_out".to_owned(), self.left_out));
        Snapshot { lost: left_out.into_iter().collect(), ..Snapshot::default() }
    }

    fn take(&mut self, most: usize, into: &mut Vec<Arc<Incident>>) -> Flow {
        into.extend(self.incidents.drain(..most.min(self.incidents.len())));
        if self.incidents.is_empty() { Flow::Idle } else { Flow::More }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tests::incident;

    #[test]
    fn a_full_channel_counts_and_does_not_wait() {
        let (feed, mut live) = channel(3);
        for n in 0..10 {
            feed.offer(incident("x", "y", n));
        }
        assert_eq!(live.snapshot().lost[SCREEN], 7);
        let mut taken = Vec::new();
        assert_eq!(live.take(2, &mut taken), Flow::More);
        feed.stop();
        assert_eq!(live.take(100, &mut taken), Flow::Stop);
        assert_eq!(taken.len(), 3, "what waited is still shown");
    }

    #[test]
    fn a_past_comes_in_order_and_stays() {
        let mut early = (*incident("x", "y", 1)).clone();
        early.time = "2026-11-21T02:00:00.000000Z".into();
        let mut past = Past::new(vec![(*incident("x", "y", 2)).clone(), early]);
        let mut taken = Vec::new();
        assert_eq!(past.take(1, &mut taken), Flow::More);
        assert_eq!(past.take(1, &mut taken), Flow::Idle);
        assert_eq!(taken[0].time, "2026-11-21T02:00:00.000000Z");
        assert_eq!(past.now(), parse_rfc3339("2026-11-21T03:00:00.123456Z").unwrap());
    }
}
