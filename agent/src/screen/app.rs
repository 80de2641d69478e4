//! What the screen knows and what each key does to it. Draws nothing and does no I/O: what must be done outside
//! is returned as an [`Effect`].

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::ledger::{Entry, Ledger, Page};
use super::plain;
use super::query::Query;
use super::source::{Snapshot, Span};
use crate::digest::causes::OTHER;
use crate::digest::{CauseKey, Scale};
use crate::model::Incident;
use crate::when::{Micros, rfc3339};

/// Nothing failed for this long: offer how to see an error on purpose.
pub const OFFER_AFTER: Micros = 5_000_000;
const LONGEST_LINE: usize = 200;
const STEP: usize = 10;

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

    pub fn key(&mut self, key: KeyEvent) -> Effect {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Effect::Quit,
            KeyCode::Char('z') if control => return Effect::Suspend,
            _ => {}
        }
        self.note = None;
        if self.typing.is_some() {
            self.type_key(key.code, control);
            return Effect::None;
        }
        if key.code == KeyCode::Char('q') {
            return Effect::Quit;
        }
        match self.sheet {
            Sheet::Lists => self.list_key(key.code),
            Sheet::Opened { .. } => self.opened_key(key.code),
            Sheet::Help | Sheet::Copy(_) => {
                self.sheet = Sheet::Lists;
                Effect::None
            }
        }
    }

    fn list_key(&mut self, code: KeyCode) -> Effect {
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-(STEP as isize)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.step(STEP as isize),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Tab | KeyCode::BackTab => {
                self.pane = if self.pane == Pane::Causes { Pane::Incidents } else { Pane::Causes };
            }
            KeyCode::Enter if self.pane == Pane::Causes => self.drill(),
            KeyCode::Enter => self.open(self.cursor_row()),
            KeyCode::Esc => self.escape(),
            KeyCode::Char('/') => {
                let text = self.ledger.query().to_string();
                self.typing = Some(Typing { text, error: None });
            }
            KeyCode::Char('s') => self.next_status(),
            KeyCode::Char('p') => self.pause(),
            KeyCode::Char('?') => self.sheet = Sheet::Help,
            KeyCode::Char('e') => return self.export(),
            KeyCode::Char('y') => self.copy(),
            KeyCode::Char('w') => return self.write(),
            _ => {}
        }
        Effect::None
    }

    fn opened_key(&mut self, code: KeyCode) -> Effect {
        let limit = self.scroll_limit;
        let Sheet::Opened { entry, scroll } = &mut self.sheet else { return Effect::None };
        match code {
            KeyCode::Up | KeyCode::Char('k') => *scroll = scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => *scroll = (*scroll + 1).min(limit),
            KeyCode::PageUp => *scroll = scroll.saturating_sub(STEP),
            KeyCode::PageDown | KeyCode::Char(' ') => *scroll = (*scroll + STEP).min(limit),
            KeyCode::Home | KeyCode::Char('g') => *scroll = 0,
            KeyCode::End | KeyCode::Char('G') => *scroll = limit,
            KeyCode::Left | KeyCode::Right => {
                let seq = entry.seq;
                let row = self.page().row_of(seq);
                self.open(if code == KeyCode::Left { row.saturating_sub(1) } else { row + 1 });
            }
            KeyCode::Enter | KeyCode::Esc | KeyCode::Backspace => self.sheet = Sheet::Lists,
            KeyCode::Char('?') => self.sheet = Sheet::Help,
            KeyCode::Char('y') => self.copy(),
            KeyCode::Char('w') => return self.write(),
            _ => {}
        }
        Effect::None
    }

    fn type_key(&mut self, code: KeyCode, control: bool) {
        let Some(typing) = &mut self.typing else { return };
        typing.error = None;
        match code {
            KeyCode::Esc => self.typing = None,
            KeyCode::Enter => match Query::parse(&typing.text) {
                Ok(query) => {
                    self.typing = None;
                    self.ask(query);
                }
                Err(error) => typing.error = Some(error),
            },
            KeyCode::Backspace => {
                typing.text.pop();
            }
            KeyCode::Char('u') if control => typing.text.clear(),
            KeyCode::Char('w') if control => {
                let kept = typing.text.trim_end().rfind(' ').map_or(0, |at| at + 1);
                typing.text.truncate(kept);
            }
            KeyCode::Char(c) if !control && typing.text.len() < LONGEST_LINE => typing.text.push(c),
            _ => {}
        }
    }

    /// Moves the cursor of the pane in use.
    fn step(&mut self, by: isize) {
        let moved = |row: usize, rows: usize| row.saturating_add_signed(by).min(rows.saturating_sub(1));
        match self.pane {
            Pane::Incidents => {
                let row = moved(self.cursor_row(), self.page().entries.len());
                // On the newest the cursor follows; elsewhere it stays with its incident.
                self.cursor = if row == 0 { None } else { self.page().row(row).map(|e| e.seq) };
            }
            Pane::Causes => {
                let row = moved(self.cause_row(), self.page().causes.len());
                self.cause = self.page().causes.ranked(self.now).get(row).map(|r| r.key.clone());
            }
        }
    }

    fn open(&mut self, row: usize) {
        let row = row.min(self.page().entries.len().saturating_sub(1));
        if let Some(entry) = self.page().row(row).cloned() {
            self.cursor = Some(entry.seq);
            self.sheet = Sheet::Opened { entry, scroll: 0 };
        }
    }

    /// From a cause to its incidents.
    fn drill(&mut self) {
        let Some(key) = self.page().causes.ranked(self.now).get(self.cause_row()).map(|r| r.key.clone()) else {
            return;
        };
        // What is counted together cannot be asked for by a name.
        if key.cause == OTHER {
            return;
        }
        let mut query = self.ledger.query().clone();
        query.filter.cause = vec![key.cause];
        query.filter.upstream = key.upstream.iter().filter_map(|addr| addr.parse().ok()).collect();
        self.pane = Pane::Incidents;
        self.ask(query);
    }

    fn escape(&mut self) {
        if !self.ledger.query().is_empty() {
            self.ask(Query::default());
        } else {
            self.pane = Pane::Incidents;
            self.cursor = None;
        }
    }

    fn ask(&mut self, query: Query) {
        let paused = self.frozen.take().is_some();
        self.ledger.ask(query);
        self.cause = None;
        if paused {
            self.pause();
        }
    }

    fn pause(&mut self) {
        self.frozen = match self.frozen {
            Some(_) => None,
            None => Some(self.ledger.page().clone()),
        };
    }

    /// Every status, then each that was seen, and round again.
    fn next_status(&mut self) {
        let mut query = self.ledger.query().clone();
        let seen = &self.ledger.statuses;
        let next = match query.filter.status.first() {
            None => seen.first(),
            Some(word) => seen.iter().find(|w| *w > word),
        };
        query.filter.status = next.cloned().into_iter().filter(|w| super::query::is_status(w)).collect();
        self.note = Some(Note::Done(match query.filter.status.first() {
            Some(word) => format!("only {word}; s for the next"),
            None => "every status".into(),
        }));
        self.ask(query);
    }

    fn chosen(&self) -> Option<&Entry> {
        match &self.sheet {
            Sheet::Opened { entry, .. } => Some(entry),
            _ => self.page().row(self.cursor_row()),
        }
    }

    fn copy(&mut self) {
        if let Some(text) = self.chosen().map(|e| plain::text(&e.incident)) {
            self.sheet = Sheet::Copy(text);
        }
    }

    fn write(&mut self) -> Effect {
        let Some(entry) = self.chosen() else { return Effect::None };
        Effect::Save { name: format!("trace502-{}.txt", stamp(entry.at)), body: plain::text(&entry.incident) }
    }

    /// One JSON object per line, oldest first: what the list shows.
    fn export(&mut self) -> Effect {
        let mut body = String::new();
        for entry in &self.page().entries {
            match serde_json::to_string(&*entry.incident) {
                Ok(line) => body.extend([line.as_str(), "\n"]),
                Err(error) => {
                    self.note = Some(Note::Failed(format!("an incident cannot be written as JSON: {error}")));
                    return Effect::None;
                }
            }
        }
        Effect::Save { name: format!("trace502-{}.jsonl", stamp(self.now)), body }
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

/// `20261121T030000Z`, for a file name.
fn stamp(at: Micros) -> String {
    let second = rfc3339(at);
    let second = second.split('.').next().unwrap_or(&second);
    format!("{}Z", second.replace(['-', ':'], ""))
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
