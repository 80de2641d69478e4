//! Colours and signs. Only the sixteen colours that every terminal lets its user choose, never as the only sign of
//! something, and never a light one on an unknown ground.

use std::env;

use ratatui::style::{Color, Modifier, Style};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    pub colour: bool,
    /// The terminal shows more than ASCII.
    pub unicode: bool,
}

impl Theme {
    pub fn from_environment() -> Theme {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        // A locale that is set and names another character set; none set says nothing about the terminal.
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
        let unicode = locale.is_none_or(|l| l.to_ascii_lowercase().contains("utf"));
        Theme { colour: set("NO_COLOR").is_none(), unicode }
    }

    fn tinted(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    pub fn plain(&self) -> Style {
        Style::new()
    }

    pub fn strong(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub fn faint(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Errors and what caused them.
    pub fn bad(&self) -> Style {
        self.tinted(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub fn good(&self) -> Style {
        self.tinted(Color::Green)
    }

    /// Addresses and the like.
    pub fn name(&self) -> Style {
        self.tinted(Color::Cyan)
    }

    /// Something is lost or missing: both colours given, so that it stands out on any ground.
    pub fn warning(&self) -> Style {
        if self.colour {
            Style::new().fg(Color::Black).bg(Color::Yellow)
        } else {
            Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
        }
    }

    pub fn selected(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub fn pick(&self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }

    /// Bars from nothing to full.
    pub fn bars(&self) -> [&'static str; 9] {
        if self.unicode {
            [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]
        } else {
            [" ", ".", ".", ":", ":", "=", "=", "#", "#"]
        }
    }
}
