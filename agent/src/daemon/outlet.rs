//! Where the engine's notices go: metrics, the page, the history. Nothing here waits.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::config::Settings;
use crate::history::Sink;
use crate::http::Recent;
use crate::kernel::Times;
use crate::metrics::Metrics;
use crate::model::Notice;
use crate::status::{Board, Status};
use crate::when;

pub struct Outlet {
    metrics: Arc<Metrics>,
    recent: Recent,
    history: Option<Sink>,
    board: Board,
    news: watch::Receiver<Settings>,
}

impl Outlet {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        recent: Recent,
        history: Option<Sink>,
        board: Board,
        news: watch::Receiver<Settings>,
    ) -> Outlet {
        Outlet { metrics, recent, history, board, news }
    }

    pub fn notice(&self, notice: Notice) {
        self.metrics.notice(&notice, Instant::now(), when::now_micros());
        if let Notice::Incident(incident) = notice {
            self.recent.push(&incident);
            if let Some(history) = &self.history {
                history.put(incident);
            }
        }
    }

    /// Connects of this proxy that were not told before.
    pub fn connected(&self, proxy: &str, upstream: &str, times: &Times) {
        self.metrics.connected(proxy, upstream, times, Instant::now());
    }

    /// The engine's report of itself; at least every two seconds, or [`Outlet::beat`].
    pub fn status(&self, status: Status) {
        self.board.publish(status, Instant::now());
    }

    pub fn beat(&self) {
        self.board.beat(Instant::now());
    }

    /// New settings since the last call, of which only what changes live differs.
    pub fn reloaded(&mut self) -> Option<Settings> {
        self.news.has_changed().unwrap_or(false).then(|| self.news.borrow_and_update().clone())
    }
}
