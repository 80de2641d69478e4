//! What the screen knows. Draws nothing and does no I/O: what a key asks of the outside is returned as an [`Effect`].

mod keys;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::ledger::{Entry, Ledger, Page};
use super::query::Query;
use super::source::{Snapshot, Span};
use crate::digest::{CauseKey, Scale};
use crate::model::Incident;
use crate::when::Micros;

/// Nothing failed for this long: offer how to see an error on purpose.
pub const OFFER_AFTER: Micros = 5_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    Causes,
    Incidents,
}

#[derive(Clone, Debug)]
pub enum Sheet {
    /// Causes and incidents.
    Lists,
    Opened {
        entry: Entry,
        scroll: usize,
    },
    /// Plain text on the ordinary screen, outside this one.
    Copy(String),
    Help,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    None,
    Quit,
    /// Stop as Ctrl-Z does, and come back.
    Suspend,
    Save {
        name: String,
        body: String,
    },
}

/// What a key did, in the last line until the next key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Done(String),
    Failed(String),
}

/// The line after `/`.
#[derive(Clone, Debug, Default)]
pub struct Typing {
    pub text: String,
    pub error: Option<String>,
}

/// What the view found while drawing, which keys need.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// How far the opened incident can be scrolled.
    pub scroll_limit: usize,
}

#[derive(Debug)]
pub struct App {
    pub span: Span,
    pub now: Micros,
    pub began: Micros,
    pub ledger: Ledger,
    /// The page as it was when `p` was pressed.
    frozen: Option<Page>,
    pub pane: Pane,
    /// The incident under the cursor; `None` follows the newest.
    cursor: Option<u64>,
    cause: Option<CauseKey>,
    pub sheet: Sheet,
    pub typing: Option<Typing>,
    pub note: Option<Note>,
    pub snapshot: Snapshot,
    requests: Meter,
    scroll_limit: usize,
}

impl App {
    pub fn new(span: Span, now: Micros, query: Query) -> App {
        let scale = match span {
            Span::Live => Scale::LIVE,
            Span::Past(first, last) => Scale::over(first, last),
        };
        let mut ledger = Ledger::new(scale);
        ledger.ask(query);
        App {
            span,
            now,
            began: now,
            ledger,
            frozen: None,
            pane: Pane::Incidents,
            cursor: None,
            cause: None,
            sheet: Sheet::Lists,
            typing: None,
            note: None,
            snapshot: Snapshot::default(),
            requests: Meter::default(),
            scroll_limit: 0,
        }
    }

    pub fn add(&mut self, incident: Arc<Incident>) {
        self.ledger.add(incident, self.now);
    }

    pub fn tick(&mut self, now: Micros, snapshot: Snapshot) {
        self.now = now;
        if let Some(requests) = snapshot.requests {
            self.requests.add(now, requests);
        }
        self.snapshot = snapshot;
    }

    pub fn seen(&mut self, seen: Seen) {
        self.scroll_limit = seen.scroll_limit;
        if let Sheet::Opened { scroll, .. } = &mut self.sheet {
            *scroll = (*scroll).min(seen.scroll_limit);
        }
    }

    /// What the lists show.
    pub fn page(&self) -> &Page {
        self.frozen.as_ref().unwrap_or(self.ledger.page())
    }

    pub fn paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Matching incidents that came since the pause.
    pub fn missed(&self) -> u64 {
        self.frozen.as_ref().map_or(0, |page| self.ledger.page().count.saturating_sub(page.count))
    }

    pub fn requests_per_second(&self) -> Option<f64> {
        self.requests.per_second()
    }

    /// Errors per second over the last ten seconds.
    pub fn errors_per_second(&self) -> f64 {
        let watched = (self.now - self.began).clamp(1_000_000, 10_000_000);
        self.ledger.series.recent(self.now, 9_000_000) as f64 / (watched as f64 / 1e6)
    }

    /// The row under the cursor, counted from the newest.
    pub fn cursor_row(&self) -> usize {
        self.cursor.map_or(0, |seq| self.page().row_of(seq))
    }

    pub fn cause_row(&self) -> usize {
        let Some(key) = &self.cause else { return 0 };
        self.page().causes.ranked(self.now).iter().position(|row| row.key == *key).unwrap_or(0)
    }

    pub fn told(&mut self, result: Result<&Path, String>, what: &str) {
        self.note = Some(match result {
            Ok(path) => Note::Done(format!("{what} written to {}", path.display())),
            Err(error) => Note::Failed(error),
        });
    }

    /// What stays on the terminal after the screen is gone.
    pub fn farewell(&self) -> String {
        let Ledger { total, .. } = self.ledger;
        let lost: u64 = self.snapshot.lost.values().sum();
        let mut text = match (total, self.span) {
            (0, _) => "no gateway error".to_owned(),
            (1, _) => "1 gateway error".to_owned(),
            (n, _) => format!("{n} gateway errors"),
        };
        if self.span == Span::Live {
            text += &format!(" in {}", crate::digest::span(self.now - self.began));
        }
        let unexplained = total - self.ledger.explained();
        if unexplained > 0 {
            text += &format!(", {unexplained} of them unexplained");
        }
        if lost > 0 {
            text += &format!("; {lost} events lost");
        }
        text
    }
}

/// Turns a count that only grows into a rate over the last seconds.
#[derive(Clone, Debug, Default)]
struct Meter(VecDeque<(Micros, u64)>);

impl Meter {
    const OVER: Micros = 5_000_000;

    fn add(&mut self, at: Micros, count: u64) {
        // A count that shrank began anew.
        if self.0.back().is_some_and(|(_, before)| *before > count) {
            self.0.clear();
        }
        self.0.push_back((at, count));
        while self.0.len() > 2 && self.0.get(1).is_some_and(|(first, _)| at - first >= Self::OVER) {
            self.0.pop_front();
        }
    }

    fn per_second(&self) -> Option<f64> {
        let ((from, before), (to, after)) = (self.0.front()?, self.0.back()?);
        (to - from >= 500_000).then(|| (after - before) as f64 / ((to - from) as f64 / 1e6))
    }
}
