//! Causes ranked, and incidents newest first.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::top::{figure, spark};
use super::{Theme, fit, rule, split};
use crate::digest::{CauseRow, Trend, sentence, span};
use crate::model::{Confidence, Incident};
use crate::screen::app::{App, Pane};
use crate::screen::ledger::Entry;
use crate::screen::plain;
use crate::screen::source::Span as Time;
use crate::text::safe;
use crate::when::local;

/// From here on a cause and its sentence share a line.
const WIDE: u16 = 150;

pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let width = usize::from(area.width);
    let here = app.pane == Pane::Causes;
    let ranked = app.page().causes.ranked(app.now);
    // Causes get up to two fifths; the one under the cursor is among them.
    let most = (usize::from(area.height) * 2 / 5).max(9);
    let cursor = app.cause_row();
    let blocks: Vec<Vec<Line<'_>>> = (ranked.iter().enumerate().take(cursor.max(most) + 1))
        .map(|(n, row)| cause(row, app, width, here && n == cursor, theme))
        .collect();
    let mut from = 0;
    let rows = |from: usize, to: usize| blocks[from..to].iter().map(Vec::len).sum::<usize>();
    while here && from < cursor && rows(from, cursor + 1) > most {
        from += 1;
    }
    let fitting = (from..=blocks.len()).take_while(|to| rows(from, *to) <= most).last().unwrap_or(from);
    let height = rows(from, fitting).max(1) as u16;
    let [middle, bottom] = split(area, 1 + height);
    let hidden = ranked.len() - (fitting - from);
    let rest = if hidden > 0 { format!("  {} of {}", fitting - from, ranked.len()) } else { String::new() };
    let mut lines = vec![rule(title("Causes", here, rest, theme), area.width, theme)];
    lines.extend(blocks.into_iter().skip(from).take(fitting - from).flatten());
    if ranked.is_empty() {
        let what = " no incident matches the filter; Esc shows every one again, / changes it";
        lines.push(Line::styled(what, theme.faint()));
    }
    frame.render_widget(Paragraph::new(lines), middle);
    incidents(frame, bottom, app, theme);
}

/// The title of a list: underlined while the keys move in it.
fn title(name: &'static str, here: bool, rest: String, theme: &Theme) -> Vec<Span<'static>> {
    let mark = if here { theme.pick("▸ ", "> ") } else { "" };
    vec![Span::styled(format!("{mark}{name}"), theme.strong()), Span::styled(rest, theme.faint())]
}

/// First row to show so that the cursor is among them.
fn first(cursor: usize, rows: usize, room: usize) -> usize {
    (cursor + 1).saturating_sub(room).min(rows.saturating_sub(room))
}

/// One line where there is room, else a line of figures and up to two of what they mean.
fn cause(row: &CauseRow, app: &App, width: usize, chosen: bool, theme: &Theme) -> Vec<Line<'static>> {
    let style = |style: Style| if chosen { theme.selected() } else { style };
    let fit_left = |text: &str, columns| fit::left(text, columns, theme.unicode);
    let bars = spark(&row.series.columns(app.now, 10, 6), theme);
    let upstream = row.key.upstream.as_deref().map_or("no upstream".into(), safe);
    let mut head = vec![
        Span::styled(format!("{:>7} ", figure(row.count)), style(theme.strong())),
        Span::styled(format!("{bars} "), style(theme.plain())),
        Span::styled(fit_left(&trend(row, app, theme), 12), style(theme.faint())),
        Span::styled(fit_left(&safe(&row.key.cause), 21) + " ", style(theme.bad())),
    ];
    let said = sentence(row);
    let used: usize = head.iter().map(Span::width).sum();
    if width >= usize::from(WIDE) {
        head.push(Span::styled(fit_left(&upstream, 23) + " ", style(theme.name())));
        let room = width - used - 24;
        let fix = row.newest.fix.first().map(|fix| format!("  {} {}", theme.pick("→", "->"), safe(fix)));
        let both = fix.map(|fix| format!("{said}{fix}")).filter(|both| fit::width(both) <= room);
        head.push(Span::styled(fit_left(&both.unwrap_or(said), room), style(theme.plain())));
        return vec![Line::from(head)];
    }
    head.push(Span::styled(fit_left(&upstream, width - used), style(theme.name())));
    let mut lines = vec![Line::from(head)];
    let indent = 8;
    let mut wrapped = fit::wrap(&said, width - indent - 1);
    if wrapped.len() > 2 {
        let rest = wrapped.drain(1..).collect::<Vec<_>>().join(" ");
        wrapped.push(fit::cut(&rest, width - indent - 1, theme.unicode));
    }
    for line in wrapped {
        lines.push(Line::styled(fit_left(&format!("{:indent$}{line}", ""), width), style(theme.plain())));
    }
    lines
}

fn trend(row: &CauseRow, app: &App, theme: &Theme) -> String {
    if let Time::Past(..) = app.span {
        let (from, to) = (local(row.first), local(row.last));
        return format!("{:02}:{:02}-{:02}:{:02}", from.hour, from.minute, to.hour, to.minute);
    }
    match row.trend(app.now) {
        Trend::New => "new".into(),
        Trend::Rising => format!("{}rising", theme.pick("↑ ", "")),
        Trend::Steady => "steady".into(),
        Trend::Falling => format!("{}falling", theme.pick("↓ ", "")),
        Trend::Quiet(for_) => format!("quiet {}", span(for_)),
    }
}

fn incidents(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let page = app.page();
    let here = app.pane == Pane::Incidents;
    let mut rest = String::from("  newest first");
    if !app.ledger.query().is_empty() {
        rest = format!(
            "  {} of {} match  {}",
            figure(page.count),
            figure(app.ledger.total),
            safe(&app.ledger.query().to_string())
        );
        rest = fit::cut(&rest, usize::from(area.width).saturating_sub(20), theme.unicode);
    } else if page.count > page.entries.len() as u64 {
        rest += &format!(", the last {}", figure(page.entries.len() as u64));
    }
    let [head, body] = split(area, 1);
    frame.render_widget(rule(title("Incidents", here, rest, theme), area.width, theme), head);
    let room = usize::from(body.height);
    let cursor = app.cursor_row();
    let from = first(cursor, page.entries.len(), room);
    let columns = Columns::of(usize::from(area.width));
    let mut lines = Vec::new();
    for row in from..(from + room).min(page.entries.len()) {
        if let Some(entry) = page.row(row) {
            lines.push(columns.line(entry, here && row == cursor, theme));
        }
    }
    frame.render_widget(Paragraph::new(lines), body);
}

/// Widths of an incident's fields; 0 leaves one out.
struct Columns {
    time: usize,
    request: usize,
    cause: usize,
    upstream: usize,
    proxy: usize,
    summary: usize,
}

impl Columns {
    fn of(width: usize) -> Columns {
        // Each field ends with a space; status takes 8.
        let (time, cause, upstream, proxy) = match width {
            0..100 => (9, 22, 18, 0),
            100..150 => (13, 22, 22, 0),
            _ => (13, 22, 24, 14),
        };
        let rest = width - time - 8 - cause - upstream - proxy - 1;
        let summary = if width >= 150 { rest * 3 / 5 } else { 0 };
        Columns { time, request: rest - summary, cause, upstream, proxy, summary }
    }

    fn line(&self, entry: &Entry, chosen: bool, theme: &Theme) -> Line<'static> {
        let incident = &entry.incident;
        let field = |text: &str, columns: usize, style: Style| {
            let text = match columns {
                0 => String::new(),
                columns => fit::left(text, columns - 1, theme.unicode) + " ",
            };
            Span::styled(text, if chosen { theme.selected() } else { style })
        };
        let at = local(entry.at);
        let millis = entry.at.rem_euclid(1_000_000) / 1_000;
        let clock = format!("{:02}:{:02}:{:02}.{millis:03}", at.hour, at.minute, at.second);
        let upstream = incident.upstream.as_ref().map_or("-".into(), |u| safe(&u.addr));
        Line::from(vec![
            Span::styled(" ", if chosen { theme.selected() } else { theme.plain() }),
            field(&clock[..clock.len().min(self.time - 1)], self.time, theme.faint()),
            field(&incident.status_word(), 8, theme.bad()),
            field(&request(incident), self.request, theme.plain()),
            field(&named_cause(incident), self.cause, theme.strong()),
            field(&upstream, self.upstream, theme.name()),
            field(&format!("{} {}", safe(&incident.proxy.name), incident.proxy.pid), self.proxy, theme.faint()),
            field(&safe(&incident.summary), self.summary, theme.plain()),
        ])
    }
}

/// A cause that is not certain says so.
fn named_cause(incident: &Incident) -> String {
    match incident.confidence {
        Confidence::Likely => format!("{}?", safe(&incident.cause)),
        _ => safe(&incident.cause).to_string(),
    }
}

fn request(incident: &Incident) -> String {
    let tries = match incident.attempts.len() {
        0 | 1 => String::new(),
        n => format!("{n} attempts: "),
    };
    let mut short = incident.request.clone();
    short.host = None;
    tries + &plain::request(&short)
}
