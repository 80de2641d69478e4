//! The thread that writes: behind a bounded channel, so that a slow disk slows nobody, and through a full disk, a lost
//! folder and a damaged file.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::store::{HistoryError, Retention, Store, set_aside};
use crate::model::Incident;
use crate::status::{Board, HistoryStatus};
use crate::when;

/// Incidents between engine and thread.
const CHANNEL: usize = 4096;
/// Incidents in one transaction.
const BATCH: usize = 512;
/// Incidents kept in memory while the disk takes none.
const KEPT: usize = 5000;
/// How often a disk that took none is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How often old incidents are looked for.
const TIDY: Duration = Duration::from_secs(60);
/// Rows after which size is looked at, however short the time.
const TIDY_ROWS: u64 = 2000;

/// The name under which incidents lost here are counted.
const LOST: &str = "history";

enum Message {
    Incident(Box<Incident>),
    Retention(Retention),
}

/// The engine's end of the channel.
#[derive(Clone)]
pub struct Sink {
    channel: SyncSender<Message>,
    board: Board,
}

impl Sink {
    /// Never waits: what does not fit is counted as lost.
    pub fn put(&self, incident: Box<Incident>) {
        match self.channel.try_send(Message::Incident(incident)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.board.lost(LOST, 1),
        }
    }

    pub fn retention(&self, keep: Retention) {
        // A channel so full that this is lost gets it with the next reload; incidents come first.
        let _ = self.channel.try_send(Message::Retention(keep));
    }
}

/// The thread's work; ends when every [`Sink`] is gone and all is written.
pub struct Writer {
    path: PathBuf,
    keep: Retention,
    board: Board,
    channel: Receiver<Message>,
    store: Option<Store>,
    waiting: VecDeque<Box<Incident>>,
    status: HistoryStatus,
    tidied: Instant,
    rows: u64,
    say: fn(&str),
    retry: Duration,
}

impl Writer {
    /// `say` tells the journal what happens to the file.
    pub fn new(path: PathBuf, keep: Retention, board: Board, say: fn(&str)) -> (Sink, Writer) {
        let (sender, channel) = sync_channel(CHANNEL);
        let sink = Sink { channel: sender, board: board.clone() };
        let writer = Writer {
            path,
            keep,
            board,
            channel,
            store: None,
            waiting: VecDeque::new(),
            status: HistoryStatus { on: true, ..HistoryStatus::default() },
            tidied: Instant::now(),
            rows: 0,
            say,
            retry: RETRY,
        };
        (sink, writer)
    }

    /// A file that is not ours to write is a mistake to tell at start, not to live with.
    pub fn check(path: &Path) -> Result<(), HistoryError> {
        match Store::open(path) {
            Err(error @ (HistoryError::Foreign { .. } | HistoryError::Newer { .. })) => Err(error),
            _ => Ok(()),
        }
    }

    pub fn run(mut self) {
        self.flush();
        self.tidy();
        let mut tried = Instant::now();
        loop {
            let patience = if self.waiting.is_empty() { TIDY } else { self.retry };
            match self.channel.recv_timeout(patience) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while self.waiting.len() < BATCH
                && let Ok(message) = self.channel.try_recv()
            {
                self.take(message);
            }
            // While in trouble a try per incident would only be noise.
            if self.status.trouble.is_none() || tried.elapsed() >= self.retry {
                tried = Instant::now();
                self.flush();
            }
            if self.tidied.elapsed() >= TIDY || self.rows >= TIDY_ROWS {
                self.tidy();
            }
            self.report();
        }
        self.flush();
        if !self.waiting.is_empty() {
            (self.say)(&format!("history: {} incidents could not be written before the end", self.waiting.len()));
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Incident(incident) => {
                if self.waiting.len() == KEPT {
                    self.waiting.pop_front();
                    self.board.lost(LOST, 1);
                }
                self.waiting.push_back(incident);
            }
            Message::Retention(keep) => {
                self.keep = keep;
                self.tidy();
            }
        }
    }

    /// Writes what waits, opening the file first if need be. What cannot be written stays in memory.
    fn flush(&mut self) {
        let result = self.write();
        match result {
            Ok(()) => {
                if let Some(trouble) = self.status.trouble.take() {
                    (self.say)(&format!("history: on disk again, after: {trouble}"));
                }
            }
            Err(HistoryError::Damaged { why, .. }) => self.replace(&why),
            Err(error) => self.trouble(&error),
        }
        self.report();
    }

    fn write(&mut self) -> Result<(), HistoryError> {
        let store = match self.store.take() {
            Some(store) => self.store.insert(store),
            None => self.store.insert(Store::open(&self.path)?),
        };
        while !self.waiting.is_empty() {
            let batch = self.waiting.len().min(BATCH);
            store.append(self.waiting.range(..batch).map(|incident| &**incident))?;
            self.waiting.drain(..batch);
            self.status.written += batch as u64;
            self.rows += batch as u64;
        }
        Ok(())
    }

    fn tidy(&mut self) {
        self.tidied = Instant::now();
        self.rows = 0;
        let Some(store) = &mut self.store else { return };
        match store.retain(self.keep, when::now_micros()) {
            Ok(()) => {}
            Err(HistoryError::Damaged { why, .. }) => self.replace(&why),
            Err(error) => self.trouble(&error),
        }
    }

    fn trouble(&mut self, error: &HistoryError) {
        // The next try opens it anew: after an I/O error a connection is good for nothing.
        self.store = None;
        let text = error.to_string();
        if self.status.trouble.as_ref() != Some(&text) {
            (self.say)(&format!("history: kept in memory for now: {text}"));
        }
        self.status.trouble = Some(text);
    }

    /// A damaged file makes room for a new one, and what waits goes there.
    fn replace(&mut self, why: &str) {
        self.store = None;
        match set_aside(&self.path, when::now_micros()) {
            Ok(aside) => {
                (self.say)(&format!("history: damaged ({why}); set aside as {}", aside.display()));
                self.status.set_aside = Some(aside.display().to_string());
                if let Err(error) = self.write() {
                    self.trouble(&error);
                }
            }
            Err(error) => self.trouble(&error),
        }
    }

    fn report(&mut self) {
        if let Some(store) = &self.store {
            self.status.bytes = store.bytes();
        }
        self.board.history(self.status.clone());
    }

    #[cfg(test)]
    pub(super) fn retry_every(mut self, retry: Duration) -> Writer {
        self.retry = retry;
        self
    }
}
