//! What each key does to what the screen knows.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{App, Effect, Note, Pane, Sheet, Typing};
use crate::digest::causes::OTHER;
use crate::screen::ledger::Entry;
use crate::screen::plain;
use crate::screen::query::{Query, is_status};
use crate::when::{Micros, rfc3339};

const LONGEST_LINE: usize = 200;
/// Rows of a page up or down.
const STEP: usize = 10;

impl App {
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
        query.filter.status = next.cloned().into_iter().filter(|w| is_status(w)).collect();
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
}

/// `20261121T030000Z`, for a file name.
fn stamp(at: Micros) -> String {
    let second = rfc3339(at);
    let second = second.split('.').next().unwrap_or(&second);
    format!("{}Z", second.replace(['-', ':'], ""))
}
