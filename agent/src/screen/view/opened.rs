//! One incident: what failed, why, what to do, its attempts drawn to scale, and the evidence.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{Theme, fit, rule, split};
use crate::digest::{MISSING, Part, Timeline, Track, place, relative, timeline};
use crate::model::{Confidence, Incident};
use crate::screen::app::App;
use crate::screen::ledger::Entry;
use crate::screen::plain;
use crate::text::{duration, safe};
use crate::when::read_here;

/// Draws it from this line on; returns the last line that it can begin with.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, entry: &Entry, scroll: usize, theme: &Theme) -> usize {
    let [head, body] = split(area, 1);
    let page = app.page();
    let place = match page.entries.binary_search_by_key(&entry.seq, |e| e.seq) {
        Ok(at) => format!("  {} of {}, newest first", page.entries.len() - at, page.entries.len()),
        Err(_) => "  no longer in the list".into(),
    };
    let title = vec![Span::styled("Incident", theme.strong()), Span::styled(place, theme.faint())];
    frame.render_widget(rule(title, area.width, theme), head);
    let lines = lines(&entry.incident, usize::from(area.width), theme);
    let limit = lines.len().saturating_sub(usize::from(body.height));
    let shown: Vec<Line<'_>> = lines.into_iter().skip(scroll.min(limit)).collect();
    frame.render_widget(Paragraph::new(shown), body);
    if limit > 0 {
        let more = if scroll < limit { theme.pick(" ↓ more ", " more ") } else { theme.pick(" ↑ ", " top ") };
        let width = fit::width(more) as u16;
        let corner = Rect { x: area.width - width, y: area.y, width, height: 1 };
        frame.render_widget(Span::styled(more, theme.selected()), corner);
    }
    limit
}

fn lines(incident: &Incident, width: usize, theme: &Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let room = width.saturating_sub(2);
    let put = |lines: &mut Vec<Line<'static>>, text: &str, indent: usize, style| {
        let wrapped = fit::wrap(text, room.saturating_sub(indent));
        lines.extend(wrapped.into_iter().map(|l| Line::styled(format!("{:indent$} {l}", ""), style)));
    };
    lines.push(Line::from(vec![
        Span::styled(format!(" {} ", incident.status_word()), theme.bad()),
        Span::styled(
            fit::cut(&plain::request(&incident.request), room.saturating_sub(42), theme.unicode),
            theme.strong(),
        ),
        Span::styled(format!("  {}", safe(&read_here(&incident.time))), theme.faint()),
    ]));
    put(&mut lines, &format!("{}; {}", place(&incident.proxy), plain::outcome(incident)), 0, theme.plain());
    let client = incident.client.as_deref().map_or("client not known".into(), |c| format!("client {}", safe(c)));
    let upstream = incident.upstream.as_ref().map_or("no upstream was tried".into(), |u| {
        let process = u.process.as_ref().map_or(String::new(), |p| format!(", {}", place(p)));
        format!("upstream {}{process}", safe(&u.addr))
    });
    put(&mut lines, &format!("{client}; {upstream}"), 0, theme.plain());
    lines.push(Line::default());

    let confidence = match incident.confidence {
        Confidence::Certain => "certain: the proof was seen",
        Confidence::Likely => "likely: a part of the proof was not seen",
        Confidence::Unknown => "unknown: what was seen does not suffice",
    };
    lines.push(Line::from(vec![
        Span::styled(format!(" {} ", safe(&incident.cause)), theme.bad()),
        Span::styled(format!(" {confidence}"), theme.faint()),
    ]));
    put(&mut lines, &safe(&incident.summary), 0, theme.strong());
    lines.push(Line::default());

    if !incident.fix.is_empty() {
        lines.push(rule(vec![Span::styled("What to do", theme.strong())], width as u16, theme));
        for fix in &incident.fix {
            let wrapped = fit::wrap(&safe(fix), room.saturating_sub(3));
            for (n, line) in wrapped.into_iter().enumerate() {
                let mark = if n == 0 { theme.pick(" • ", " * ") } else { "   " };
                lines.push(Line::from(vec![Span::styled(mark, theme.good()), Span::raw(line)]));
            }
        }
    }
    let line = timeline(incident);
    if line.from < line.to {
        draw_timeline(&mut lines, incident, &line, width, theme);
    }
    evidence(&mut lines, incident, &line, width, theme);
    put(&mut lines, &format!("id {}", safe(&incident.id)), 0, theme.faint());
    lines
}

/// Name of a mark: the evidence's number, as far as one sign reaches.
fn mark(index: usize) -> char {
    char::from_digit(index as u32 + 1, 36).unwrap_or('+')
}

/// Evidence and the steps it is marked at: in order of time, each beside the one before where they fall together.
fn apart(incident: &Incident, line: &Timeline, steps: usize) -> Vec<(usize, usize)> {
    let mut order = line.marks.clone();
    order.sort_by_key(|index| incident.evidence[*index].t_us);
    order.truncate(steps + 1);
    let mut places: Vec<(usize, usize)> =
        order.into_iter().map(|index| (index, line.position(incident.evidence[index].t_us, steps))).collect();
    for n in 1..places.len() {
        places[n].1 = places[n].1.max(places[n - 1].1 + 1);
    }
    let mut most = steps;
    for (_, at) in places.iter_mut().rev() {
        *at = (*at).min(most);
        most = most.saturating_sub(1).min(at.saturating_sub(1));
    }
    places
}

const LABEL: usize = 24;

fn draw_timeline(lines: &mut Vec<Line<'static>>, incident: &Incident, line: &Timeline, width: usize, theme: &Theme) {
    let whole = duration(line.to.abs_diff(line.from).saturating_mul(1_000));
    let title = vec![
        Span::styled("Time line", theme.strong()),
        Span::styled(format!("  {whole} from end to end, to scale"), theme.faint()),
    ];
    lines.push(rule(title, width as u16, theme));
    let steps = width.saturating_sub(LABEL + 14).max(10);
    for track in &line.tracks {
        lines.push(track_line(incident, line, track, steps, theme));
    }
    let mut marks = vec![' '; steps + 1];
    for (index, at) in apart(incident, line, steps) {
        marks[at] = mark(index);
    }
    let earlier = match line.earlier.len() {
        0 => String::new(),
        n => format!("{n} earlier {}", theme.pick("←", "<-")),
    };
    lines.push(Line::from(vec![
        Span::styled(fit::right(&format!("{earlier} evidence "), LABEL, theme.unicode), theme.faint()),
        Span::styled(marks.into_iter().collect::<String>(), theme.strong()),
    ]));
    let zero = line.position(0, steps);
    let mut axis: Vec<&str> = vec![theme.pick("─", "-"); steps + 1];
    axis[zero] = theme.pick("┴", "+");
    lines.push(Line::from(vec![
        Span::styled(fit::right(&format!("{} ", relative(line.from)), LABEL, theme.unicode), theme.faint()),
        Span::styled(axis.concat(), theme.faint()),
        Span::styled(if zero == steps { " the error" } else { "" }, theme.bad()),
    ]));
    if zero < steps {
        let text = format!("{}{}^ the error", " ".repeat(LABEL), " ".repeat(zero));
        lines.push(Line::styled(text, theme.bad()));
    }
    let waiting = theme.pick("━", "=");
    let connecting = theme.pick("╌", ".");
    let sent = theme.pick("┃", "|");
    let legend = format!("{:LABEL$}{connecting} connecting  {sent} request sent  {waiting} waiting", "");
    lines.push(Line::styled(legend, theme.faint()));
}

fn track_line(incident: &Incident, line: &Timeline, track: &Track, steps: usize, theme: &Theme) -> Line<'static> {
    let attempt = &incident.attempts[track.attempt];
    let mut cells = vec![" "; steps + 1];
    for (part, from, to) in &track.parts {
        let (first, last) = (line.position(*from, steps), line.position(*to, steps));
        let sign = match part {
            Part::Connect => theme.pick("╌", "."),
            Part::Wait => theme.pick("━", "="),
        };
        cells[first..=last].fill(sign);
        if *part == Part::Wait {
            cells[first] = theme.pick("┃", "|");
        }
    }
    let end = line.position(track.end, steps);
    cells[end] = theme.pick("×", "x");
    cells.truncate(end + 1);
    let upstream = safe(&attempt.upstream);
    let label = fit::cut(&format!("{} {upstream}", track.attempt + 1), LABEL - 2, theme.unicode);
    let reused = if attempt.reused { ", reused" } else { "" };
    let rest = steps + 12 - end;
    Line::from(vec![
        Span::styled(fit::left(&format!(" {label}"), LABEL, theme.unicode), theme.name()),
        Span::styled(cells.concat(), theme.bad()),
        Span::styled(fit::cut(&format!(" {}{reused}", track.ended), rest, theme.unicode), theme.plain()),
    ])
}

fn evidence(lines: &mut Vec<Line<'static>>, incident: &Incident, line: &Timeline, width: usize, theme: &Theme) {
    if !incident.evidence.is_empty() {
        let about = Span::styled("  relative to the moment the proxy wrote the error", theme.faint());
        lines.push(rule(vec![Span::styled("Evidence", theme.strong()), about], width as u16, theme));
    }
    for (index, one) in incident.evidence.iter().enumerate().filter(|(_, one)| one.kind != MISSING) {
        let mark = if line.marks.contains(&index) {
            mark(index)
        } else {
            theme.pick("←", "<").chars().next().unwrap_or('<')
        };
        let kind = fit::cut(&safe(&one.kind), 24, theme.unicode);
        let wrapped = fit::wrap(&safe(&one.text), width.saturating_sub(16 + fit::width(&kind) + 3).max(20));
        for (n, text) in wrapped.into_iter().enumerate() {
            let (time, kind) = match n {
                0 => (format!(" {mark} {:>12} ", relative(one.t_us)), format!("{kind}: ")),
                _ => (" ".repeat(16), " ".repeat(fit::width(&kind) + 2)),
            };
            lines.push(Line::from(vec![
                Span::styled(time, theme.strong()),
                Span::styled(kind, theme.name()),
                Span::raw(text),
            ]));
        }
    }
    for one in incident.evidence.iter().filter(|one| one.kind == MISSING) {
        let wrapped = fit::wrap(&safe(&one.text), width.saturating_sub(14));
        for (n, text) in wrapped.into_iter().enumerate() {
            let head = if n == 0 { " not seen: " } else { "           " };
            lines.push(Line::from(vec![Span::styled(head, theme.bad()), Span::raw(text)]));
        }
    }
    let attempts = incident.attempts.iter().enumerate();
    for (n, one) in attempts.filter(|_| incident.attempts.len() > 1 || line.from == line.to) {
        let (addr, cause) = (safe(&one.upstream), safe(&one.cause));
        let text = format!("attempt {}: {addr}: {cause}; {}", n + 1, plain::attempt(one));
        lines.extend(fit::wrap(&text, width - 2).into_iter().map(|l| Line::raw(format!(" {l}"))));
    }
}
