//! What is watched, how fast it fails, how much of it is explained, and what is lost or missing.

use std::collections::BTreeMap;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{Theme, fit};
use crate::digest::{Scale, span};
use crate::screen::app::App;
use crate::screen::source::{Snapshot, Span as Time};
use crate::text::safe;
use crate::when::local;

pub fn height(app: &App) -> u16 {
    3 + u16::from(trouble(&app.snapshot).is_some())
}

pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let width = usize::from(area.width);
    let mut lines = vec![watched(app, width, theme), rate(app, width, theme), coverage(app, theme)];
    if let Some(text) = trouble(&app.snapshot) {
        lines.push(Line::styled(fit::left(&format!(" {text}"), width, theme.unicode), theme.warning()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// `nginx pid 7353 +4, haproxy pid 811 and 2 more`: of each name the first process, and how many others.
pub fn proxies(snapshot: &Snapshot, most: usize) -> String {
    let mut names: BTreeMap<&str, (u32, usize)> = BTreeMap::new();
    for proxy in &snapshot.proxies {
        let (first, others) = names.entry(&proxy.name).or_insert((proxy.pid, 0));
        *others += usize::from(*first != proxy.pid);
        *first = (*first).min(proxy.pid);
    }
    let more = names.len().saturating_sub(most);
    let named: Vec<String> = names
        .into_iter()
        .take(most)
        .map(|(name, (pid, others))| match others {
            0 => format!("{} pid {pid}", safe(name)),
            others => format!("{} pid {pid} +{others}", safe(name)),
        })
        .collect();
    match (named.len(), more) {
        (0, _) => "no proxy seen yet".into(),
        (_, 0) => named.join(", "),
        (_, more) => format!("{} and {more} more", named.join(", ")),
    }
}

pub fn upstreams(count: usize) -> String {
    crate::text::count(count as u64, "upstream")
}

fn watched(app: &App, width: usize, theme: &Theme) -> Line<'static> {
    let (name, what) = match app.span {
        Time::Live => {
            let arrow = theme.pick("→", "to");
            let most = if width >= 120 { 5 } else { 2 };
            let seen = upstreams(app.snapshot.upstreams.len());
            (" trace502 live ", format!("{} {arrow} {seen}", proxies(&app.snapshot, most)))
        }
        Time::Past(first, last) => {
            (" trace502 history ", format!("{} to {}", local(first).stamp(), local(last).stamp()))
        }
    };
    let state = match (app.span, app.paused()) {
        (_, true) => (format!(" PAUSED, {} more since ", app.missed()), theme.warning()),
        (Time::Live, _) => (format!("{} ", span(app.now - app.began)), theme.faint()),
        (Time::Past(first, last), _) => (format!("{} ", span(last - first)), theme.faint()),
    };
    let room = width.saturating_sub(name.len() + 2 + fit::width(&state.0));
    Line::from(vec![
        Span::styled(name, theme.selected()),
        Span::styled(format!(" {} ", fit::left(&what, room, theme.unicode)), theme.strong()),
        Span::styled(state.0, state.1),
    ])
}

fn rate(app: &App, width: usize, theme: &Theme) -> Line<'static> {
    let total = app.ledger.total;
    let failing = if total == 0 { theme.good() } else { theme.bad() };
    let (now, label) = match app.span {
        Time::Live => (format!(" errors {:<9}", per_second(app.errors_per_second())), " 5 min ".to_owned()),
        Time::Past(first, last) => {
            (format!(" {:<16}", format!("errors {}", figure(total))), format!(" {} ", span(last - first)))
        }
    };
    let mut after = vec![Span::styled(label, theme.faint())];
    if app.span == Time::Live {
        after.push(Span::styled(format!(" total {}", figure(total)), theme.strong()));
        if let Some(requests) = app.requests_per_second() {
            after.push(Span::raw(format!("   {}", requests_word(requests))));
        }
    }
    // What is left of the line draws all slices, several to a bar.
    let used = fit::width(&now) + after.iter().map(Span::width).sum::<usize>() + 1;
    let each = Scale::FINE.div_ceil(width.saturating_sub(used).clamp(10, 100));
    let bars = spark(&app.ledger.series.columns(app.now, Scale::FINE / each, each), theme);
    let mut spans = vec![Span::styled(now, failing)];
    spans.push(Span::styled(bars, if total == 0 { theme.faint() } else { theme.bad() }));
    spans.extend(after);
    Line::from(spans)
}

pub fn requests_word(rate: f64) -> String {
    match rate {
        r if r > 0.0 && r < 9.95 => format!("{r:.1} requests/s"),
        r => format!("{} requests/s", figure(r.round() as u64)),
    }
}

fn coverage(app: &App, theme: &Theme) -> Line<'static> {
    let (total, explained) = (app.ledger.total, app.ledger.explained());
    if total == 0 {
        let text = match app.span {
            Time::Live => " every gateway error will be shown with its cause",
            Time::Past(..) => "",
        };
        return Line::styled(text, theme.faint());
    }
    let percent = (explained * 1_000 / total) as f64 / 10.0;
    let open = total - explained;
    let mut spans = vec![Span::raw(format!(" explained {} of {} ({percent:.1} %)", figure(explained), figure(total)))];
    spans.push(Span::styled(
        format!("   {} certain, {} likely", figure(app.ledger.certain), figure(app.ledger.likely)),
        theme.faint(),
    ));
    if open > 0 {
        spans.push(Span::styled(format!("   {} not explained", figure(open)), theme.bad()));
    }
    Line::from(spans)
}

/// What was lost and which probes are missing, in one line.
fn trouble(snapshot: &Snapshot) -> Option<String> {
    let mut parts = Vec::new();
    let lost: Vec<String> = snapshot
        .lost
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(at, n)| format!("{} {}", safe(at).replace('_', " "), figure(*n)))
        .collect();
    if !lost.is_empty() {
        parts.push(format!("LOST events: {}", lost.join(", ")));
    }
    if !snapshot.missing.is_empty() {
        let missing: Vec<String> =
            snapshot.missing.iter().map(|m| format!("{} ({})", safe(&m.probe), safe(&m.without))).collect();
        parts.push(format!("MISSING probes: {}", missing.join(", ")));
    }
    (!parts.is_empty()).then(|| parts.join("   "))
}

/// `0.3/s`, `12/s`, `9,812/s`.
fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0/s".into(),
        r if r < 10.0 => format!("{r:.1}/s"),
        r => format!("{}/s", figure(r.round() as u64)),
    }
}

/// `12,345`
pub fn figure(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// One bar a value, the highest one full. Anything above nothing shows.
pub fn spark(values: &[u64], theme: &Theme) -> String {
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let bars = theme.bars();
    values
        .iter()
        .map(|v| match v {
            0 => theme.pick("·", " "),
            v => bars[(v * 8).div_ceil(most).clamp(1, 8) as usize],
        })
        .collect()
}
