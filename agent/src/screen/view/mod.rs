//! Draws what [`App`] knows. Changes nothing: what keys need of the picture is returned.

mod fit;
mod lists;
mod opened;
mod quiet;
#[cfg(test)]
mod tests;
mod theme;
mod top;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

pub use theme::Theme;

use super::app::{App, Note, Seen, Sheet};
use crate::text::safe;

/// Smallest terminal that the view is laid out for.
pub const SMALLEST: (u16, u16) = (80, 24);

pub fn draw(frame: &mut Frame<'_>, app: &App, theme: &Theme) -> Seen {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        too_small(frame, app, area);
        return Seen::default();
    }
    let [body, footer] = split(area, area.height - 1);
    let mut seen = Seen::default();
    match &app.sheet {
        Sheet::Help => help(frame, body, theme),
        Sheet::Opened { entry, scroll } => seen.scroll_limit = opened::draw(frame, body, app, entry, *scroll, theme),
        Sheet::Lists | Sheet::Copy(_) => {
            let [head, rest] = split(body, top::height(app));
            top::draw(frame, head, app, theme);
            match app.ledger.total {
                0 => quiet::draw(frame, rest, app, theme),
                _ => lists::draw(frame, rest, app, theme),
            }
        }
    }
    last_line(frame, footer, app, theme);
    seen
}

/// The first `height` rows, and the rest.
fn split(area: Rect, height: u16) -> [Rect; 2] {
    let height = height.min(area.height);
    let rest = Rect { y: area.y + height, height: area.height - height, ..area };
    [Rect { height, ..area }, rest]
}

/// A line that begins a part of the screen: `── Causes ─────────`.
fn rule(title: Vec<Span<'static>>, width: u16, theme: &Theme) -> Line<'static> {
    let dash = theme.pick("─", "-");
    let mut spans = vec![Span::styled(format!("{dash}{dash} "), theme.faint())];
    spans.extend(title);
    let used: usize = spans.iter().map(Span::width).sum();
    let rest = usize::from(width).saturating_sub(used + 1);
    spans.push(Span::styled(format!(" {}", dash.repeat(rest)), theme.faint()));
    Line::from(spans)
}

fn too_small(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let (width, height) = SMALLEST;
    let text = format!(
        "trace502 needs {width}x{height}, this terminal has {}x{}. {} gateway errors so far. q leaves.",
        area.width, area.height, app.ledger.total
    );
    let lines: Vec<Line<'_>> = fit::wrap(&text, usize::from(area.width)).into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn last_line(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let line = if let Some(typing) = &app.typing {
        let mut spans = vec![Span::styled(" / ", theme.strong()), Span::raw(safe(&typing.text).to_string())];
        spans.push(Span::styled(" ", theme.selected()));
        match &typing.error {
            Some(error) => spans.push(Span::styled(format!("  {} ", safe(error)), theme.warning())),
            None if typing.text.is_empty() => {
                let hint = "  status:502 proxy:nginx upstream:10.0.0.7 cause:no_listener path:/api";
                spans.push(Span::styled(hint, theme.faint()));
            }
            None => spans.push(Span::styled("  Enter applies, Esc leaves it", theme.faint())),
        }
        Line::from(spans)
    } else if let Some(note) = &app.note {
        match note {
            Note::Done(text) => Line::styled(format!(" {}", safe(text)), theme.good()),
            Note::Failed(text) => Line::styled(format!(" {} ", safe(text)), theme.warning()),
        }
    } else {
        keys_line(app, usize::from(area.width), theme)
    };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(line), area);
}

fn keys_line(app: &App, width: usize, theme: &Theme) -> Line<'static> {
    let pause = if app.paused() { "go on" } else { "pause" };
    let arrows = theme.pick("↑↓", "jk");
    let keys: &[(&'static str, &'static str)] = match app.sheet {
        Sheet::Help => &[("any key", "back"), ("q", "quit")],
        Sheet::Opened { .. } => &[
            ("Esc", "back"),
            (arrows, "scroll"),
            (theme.pick("←→", "<- ->"), "newer, older"),
            ("y", "text"),
            ("w", "write"),
            ("?", "help"),
            ("q", "quit"),
        ],
        _ if app.ledger.total == 0 => &[("?", "help"), ("q", "quit")],
        _ if width < 100 => &[
            ("Enter", "open"),
            ("Tab", "causes"),
            ("/", "filter"),
            ("s", "status"),
            ("p", pause),
            ("e", "export"),
            ("?", "help"),
            ("q", "quit"),
        ],
        _ => &[
            ("Enter", "open"),
            ("Tab", "causes"),
            ("/", "filter"),
            ("s", "status"),
            ("p", pause),
            ("y", "text"),
            ("w", "write"),
            ("e", "export"),
            ("?", "help"),
            ("q", "quit"),
        ],
    };
    let mut spans = Vec::new();
    let mut used = 0;
    for (key, does) in keys {
        used += fit::width(key) + does.len() + 3;
        if used > width {
            break;
        }
        spans.push(Span::styled(format!(" {key} "), theme.strong()));
        spans.push(Span::styled(format!("{does} "), theme.faint()));
    }
    Line::from(spans)
}

const KEYS: [(&str, &str); 15] = [
    ("Up Down  j k", "move; PgUp PgDn Home End for more"),
    ("Tab", "between causes and incidents"),
    ("Enter", "open the incident; on a cause: only its incidents"),
    ("Left Right", "in an open incident: the newer, the older one"),
    ("Esc", "back; in the list: every incident again"),
    ("/", "filter with the words of the flags:"),
    ("", "status:502,504  proxy:nginx  upstream:10.0.0.7:8000"),
    ("", "cause:no_listener  path:/api   or --cause no_listener"),
    ("", "any other word is looked for everywhere"),
    ("s", "one status after the other"),
    ("p", "hold the lists still; errors go on being counted"),
    ("y", "the incident as plain text, to mark and copy"),
    ("w", "the same into a file here"),
    ("e", "what the list shows as JSON lines into a file here"),
    ("q  Ctrl-C", "leave"),
];

fn help(frame: &mut Frame<'_>, area: Rect, theme: &Theme) {
    let mut lines = vec![rule(vec![Span::styled("Keys", theme.strong())], area.width, theme), Line::default()];
    for (key, does) in KEYS {
        lines.push(Line::from(vec![
            Span::styled(format!("  {key:<14}"), theme.strong()),
            Span::styled(does.to_owned(), theme.plain()),
        ]));
    }
    lines.push(Line::default());
    lines.push(Line::raw("  certain: the proof was seen; likely: a part was not; unknown: too little was"));
    lines.push(Line::raw("  `trace502 causes ID` tells what a cause means, its proof and how to fix it"));
    frame.render_widget(Paragraph::new(lines), area);
}
