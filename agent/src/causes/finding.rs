//! What a cause says of a case.

use crate::model::{Confidence, Nanos};

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    No,
    /// Not enough is known yet; ask again when it came, or at the latest then.
    NotYet(Wait),
    Yes(Box<Finding>),
}

/// What is waited for, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    pub until: Nanos,
    /// The process whose exit would settle it.
    pub exit_of: Option<u32>,
}

/// A moment that speaks for the finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub at: Nanos,
    pub kind: &'static str,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub summary: String,
    pub notes: Vec<Note>,
    pub fix: Vec<String>,
    /// What would have been the proof and was not seen: with any, it is `likely`.
    pub missing: Vec<String>,
    /// The upstream's process, where the finding knows it better than its listener does.
    pub process: Option<u32>,
}

impl Finding {
    pub fn new(summary: impl Into<String>) -> Self {
        Finding { summary: summary.into(), notes: Vec::new(), fix: Vec::new(), missing: Vec::new(), process: None }
    }

    pub fn confidence(&self) -> Confidence {
        if self.missing.is_empty() { Confidence::Certain } else { Confidence::Likely }
    }

    pub fn note(mut self, at: Nanos, kind: &'static str, text: impl Into<String>) -> Self {
        self.notes.push(Note { at, kind, text: text.into() });
        self
    }

    pub fn notes(mut self, notes: impl IntoIterator<Item = Note>) -> Self {
        self.notes.extend(notes);
        self
    }

    pub fn fix(mut self, text: impl Into<String>) -> Self {
        self.fix.push(text.into());
        self
    }

    pub fn fixes(mut self, texts: impl IntoIterator<Item = String>) -> Self {
        self.fix.extend(texts);
        self
    }

    pub fn missing(mut self, text: impl Into<String>) -> Self {
        self.missing.push(text.into());
        self
    }

    /// Proven only if this holds; otherwise `text` is what is missing.
    pub fn proven_if(self, holds: bool, text: &str) -> Self {
        if holds { self } else { self.missing(text) }
    }

    pub fn of_process(mut self, pid: Option<u32>) -> Self {
        self.process = pid;
        self
    }

    pub fn yes(self) -> Verdict {
        Verdict::Yes(Box::new(self))
    }
}
