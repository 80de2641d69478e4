//! How the agent itself is doing: written by engine and sinks, read by /metrics and the pages.
//!
//! Plain data behind one lock, and times handed in; nobody waits here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the kernel side and the engine say of themselves. Counts only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub probes: Vec<Probe>,
    /// Events by kind.
    pub events: BTreeMap<String, u64>,
    /// What was lost, by where it was lost: a kernel-side counter, `decode`, a cap ...
    pub lost: BTreeMap<String, u64>,
    pub proxies: Vec<Watched>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub name: String,
    /// The kind of hook in use, as doctor names it.
    pub provider: String,
    pub attached: bool,
    /// Without it there is nothing to say: the agent is not ready.
    pub required: bool,
}

/// A proxy that is being watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub name: String,
    pub pid: u32,
}

/// The history as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryStatus {
    pub on: bool,
    pub written: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Why incidents wait in memory, if they do.
    pub trouble: Option<String>,
    /// A damaged file was set aside under this name since the start.
    pub set_aside: Option<String>,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub status: Status,
    pub history: HistoryStatus,
    /// What was lost behind the engine, by sink.
    pub sink_lost: BTreeMap<&'static str, u64>,
    /// Since when the engine has reported; `None` before its first report.
    pub last_beat: Option<Instant>,
    /// The probes are attached and the engine runs.
    pub running: bool,
    pub stopping: bool,
    /// One line of what the agent may still do.
    pub privileges: String,
}

/// An engine that is silent for longer than this hangs: it beats at least every two seconds.
pub const SILENCE: Duration = Duration::from_secs(10);

impl Snapshot {
    /// The engine reported lately.
    pub fn alive(&self, now: Instant) -> bool {
        self.last_beat.is_none_or(|beat| now.saturating_duration_since(beat) < SILENCE)
    }

    /// Why the agent is not ready, if it is not.
    pub fn not_ready(&self, now: Instant) -> Option<String> {
        if self.stopping {
            return Some("stopping".to_owned());
        }
        if !self.running {
            return Some("probes are not attached yet".to_owned());
        }
        if !self.alive(now) {
            return Some("the engine does not report".to_owned());
        }
        let missing = self.status.probes.iter().filter(|p| p.required && !p.attached);
        let names: Vec<&str> = missing.map(|p| p.name.as_str()).collect();
        (!names.is_empty()).then(|| format!("required probes are not attached: {}", names.join(", ")))
    }

    /// All losses under one roof.
    pub fn lost(&self) -> BTreeMap<String, u64> {
        let mut lost = self.status.lost.clone();
        for (sink, count) in &self.sink_lost {
            *lost.entry((*sink).to_owned()).or_default() += count;
        }
        lost
    }
}

/// The one board that everybody writes on. Clones show the same board.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Snapshot>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        // A writer that panicked left whole values behind: each is replaced in one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// The engine's report; also the sign that it is alive.
    pub fn publish(&self, status: Status, now: Instant) {
        let mut board = self.lock();
        board.status = status;
        board.last_beat = Some(now);
    }

    /// A sign of life with nothing new to say.
    pub fn beat(&self, now: Instant) {
        self.lock().last_beat = Some(now);
    }

    pub fn running(&self, privileges: String) {
        let mut board = self.lock();
        board.running = true;
        board.privileges = privileges;
    }

    pub fn stopping(&self) {
        self.lock().stopping = true;
    }

    pub fn history(&self, status: HistoryStatus) {
        self.lock().history = status;
    }

    pub fn lost(&self, sink: &'static str, count: u64) {
        *self.lock().sink_lost.entry(sink).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_attached_and_reporting() {
        let board = Board::default();
        let now = Instant::now();
        assert!(board.snapshot().not_ready(now).unwrap().contains("not attached yet"));
        board.running(String::new());
        let mut status = Status::default();
        status.probes.push(Probe {
            name: "tcp_reset".into(),
            provider: "tp_btf".into(),
            attached: false,
            required: true,
        });
        board.publish(status.clone(), now);
        assert!(board.snapshot().not_ready(now).unwrap().contains("tcp_reset"));
        status.probes[0].required = false;
        board.publish(status, now);
        assert_eq!(board.snapshot().not_ready(now), None);
        assert!(board.snapshot().not_ready(now + SILENCE).unwrap().contains("does not report"));
        assert!(!board.snapshot().alive(now + SILENCE));
        board.stopping();
        assert_eq!(board.snapshot().not_ready(now).as_deref(), Some("stopping"));
    }
}
