//! Pictures of recorded incidents, without a terminal.

use std::sync::Arc;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::*;
use crate::model::Incident;
use crate::screen::app::{Effect, Pane};
use crate::screen::query::Query;
use crate::screen::source::{MissingProbe, Snapshot, Span as Time, UpstreamSeen, WatchedProxy};
use crate::when::parse_rfc3339;

const THEME: Theme = Theme { colour: true, unicode: true };
const SIZES: [(u16, u16); 4] = [(80, 24), (100, 30), (150, 40), (200, 50)];
const S: i64 = 1_000_000;

fn recorded() -> Vec<Arc<Incident>> {
    let lines = include_str!("../../../tests/fixtures/incidents.jsonl");
    lines.lines().map(|line| Arc::new(serde_json::from_str(line).unwrap())).collect()
}

fn snapshot(requests: u64) -> Snapshot {
    let upstream = |port: u16| UpstreamSeen { addr: format!("127.0.0.1:{port}"), connections: requests / 3 };
    Snapshot {
        proxies: vec![WatchedProxy { name: "nginx".into(), pid: 7353 }],
        upstreams: vec![upstream(8000), upstream(8001), upstream(8002)],
        requests: Some(requests),
        ..Snapshot::default()
    }
}

/// A session that began three minutes before the last recorded incident, and has seen them all.
fn watched() -> App {
    let start = parse_rfc3339("2026-11-21T03:00:00Z").unwrap();
    let mut app = App::new(Time::Live, start, Query::default());
    app.tick(start + 179 * S, snapshot(179 * 412));
    app.tick(start + 180 * S, snapshot(180 * 412));
    recorded().into_iter().for_each(|incident| app.add(incident));
    app
}

fn picture(app: &mut App, theme: &Theme, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut seen = Seen::default();
    terminal.draw(|frame| seen = draw(frame, app, theme)).unwrap();
    app.seen(seen);
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let rows = buffer.content.chunks(width).map(|row| {
        let mut line = String::new();
        let mut covered = 0;
        for cell in row {
            // The second column of a wide character holds nothing of its own.
            if covered > 0 {
                covered -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            covered = fit::width(cell.symbol()).saturating_sub(1);
        }
        line.trim_end().to_owned() + "\n"
    });
    rows.collect()
}

fn shown(app: &mut App, size: (u16, u16)) -> String {
    text(&picture(app, &THEME, size))
}

fn press(app: &mut App, code: KeyCode) -> Effect {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_line(app: &mut App, line: &str) {
    press(app, KeyCode::Char('/'));
    app.key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
    line.chars().for_each(|c| {
        press(app, KeyCode::Char(c));
    });
    press(app, KeyCode::Enter);
}

fn assert_has(screen: &str, parts: &[&str]) {
    for part in parts {
        assert!(screen.contains(part), "{part:?} is missing in\n{screen}");
    }
}

#[test]
fn while_nothing_fails_it_says_what_it_sees() {
    let mut app = App::new(Time::Live, 0, Query::default());
    app.tick(S, snapshot(412));
    app.tick(2 * S, snapshot(824));
    let screen = shown(&mut app, (80, 24));
    assert_has(&screen, &["412 requests/s through nginx pid 7353 to 3 upstreams, all answered."]);
    assert!(!screen.contains("on purpose"));
    app.tick(6 * S, snapshot(412 * 6));
    assert_has(&shown(&mut app, (80, 24)), &["To see one on purpose", "curl -i 127.0.0.1:8502", "are not touched"]);
    let mut more = snapshot(412 * 7);
    for (name, pid) in [("nginx", 7354), ("nginx", 7355), ("haproxy", 811)] {
        more.proxies.push(WatchedProxy { name: name.into(), pid });
    }
    app.tick(7 * S, more);
    assert_has(&shown(&mut app, (80, 24)), &["through haproxy pid 811, nginx pid 7353 +2 to 3 upstreams"]);
    app.tick(8 * S, Snapshot::default());
    assert_has(&shown(&mut app, (80, 24)), &["No proxy is running"]);
}

#[test]
fn causes_say_the_answer_and_incidents_come_newest_first() {
    let mut app = watched();
    let screen = shown(&mut app, (80, 24));
    assert_has(
        &screen,
        &[
            "trace502 live  nginx pid 7353 → 3 upstreams",
            "412 requests/s",
            "explained 17 of 18 (94.4 %)",
            "1 not explained",
            "no_listener           127.0.0.1:9000",
            "nothing listens on 127.0.0.1:9000; search.service (pid 640) listens on",
            "shop.service on 127.0.0.1:8000 was OOM-killed 3 times in 2 min; last:",
            "memory cgroup limit 512 MiB",
            "q quit",
        ],
    );
    assert!(screen.find("keepalive_race").unwrap() < screen.find("POST /api/pay").unwrap());
    let wide = shown(&mut app, (200, 50));
    assert_has(&wide, &["syn_timeout?", "GET /img/東京の店/看板.png", "unix:/run/php/php8.2-f", "haproxy 811"]);
    assert_has(&wide, &["crashed 2 ms before: SIGSEGV, core dumped  → coredumpctl info 1201"]);
}

#[test]
fn losses_and_missing_probes_stand_out() {
    let mut app = watched();
    let quiet = shown(&mut app, (80, 24));
    assert!(!quiet.contains("LOST") && !quiet.contains("MISSING"));
    let mut worse = snapshot(180 * 412);
    worse.lost.insert("ring_buffer".into(), 1_234);
    worse.missing.push(MissingProbe { probe: "ssl_write".into(), without: "TLS".into() });
    app.tick(app.now, worse);
    let buffer = picture(&mut app, &THEME, (80, 24));
    assert_has(&text(&buffer), &["LOST events: ring buffer 1,234   MISSING probes: ssl_write (TLS)"]);
    assert_eq!(buffer[(1, 3)].bg, Color::Yellow);
    assert!(app.farewell().contains("1234 events lost"));
}

#[test]
fn an_opened_incident_has_everything() {
    let mut app = watched();
    type_line(&mut app, "cause:upstream_oom_killed path:/checkout");
    press(&mut app, KeyCode::Enter);
    let screen = shown(&mut app, (80, 40));
    assert_has(
        &screen,
        &[
            "502 GET shop.example/checkout  2026-11-21 ",
            ":01:20.370 ",
            "nginx (pid 7353, nginx.service); the client got 502",
            "upstream 127.0.0.1:8000, uvicorn (pid 901,",
            "certain: the proof was seen",
            "What to do",
            "• raise the memory limit of shop.service",
            "52 ms from end to end, to scale",
            "-41.21 ms oom_kill: the kernel's OOM killer chose uvicorn (pid 901)",
            "-80 us rst_received",
        ],
    );
    // 41.2 of 52.17 ms before the error: the kill is marked a fifth of the way, the reset at its end.
    let marks = screen.lines().find(|l| l.contains("evidence 1") || l.contains(" evidence ")).unwrap();
    let axis = screen.lines().find(|l| l.contains("┴ the error")).unwrap();
    let column = |line: &str, sign: char| line.chars().position(|c| c == sign).unwrap() as f64;
    let (begin, end) = (24.0, column(axis, '┴'));
    let at = (column(marks, '1') - begin) / (end - begin);
    assert!((at - 10.96 / 52.17).abs() < 0.04, "{at}\n{screen}");
    assert_eq!(column(marks, '4'), end);
    press(&mut app, KeyCode::Esc);
    assert_has(&shown(&mut app, (80, 24)), &["1 of 18 match  cause:upstream_oom_killed path:/checkout"]);
}

#[test]
fn what_was_not_seen_is_told_apart() {
    let mut app = watched();
    type_line(&mut app, "cause:syn_timeout");
    press(&mut app, KeyCode::Enter);
    let screen = shown(&mut app, (80, 30));
    assert_has(&screen, &["likely: a part of the proof was not seen", "not seen: what lies behind 10.0.0.7"]);
}

#[test]
fn attempts_lie_one_after_the_other() {
    let mut app = watched();
    type_line(&mut app, "accept_queue_full");
    press(&mut app, KeyCode::Enter);
    let screen = shown(&mut app, (80, 40));
    let tracks: Vec<&str> = screen.lines().filter(|l| l.contains("× gave up")).collect();
    assert_eq!(tracks.len(), 3, "{screen}");
    let ends: Vec<usize> = tracks.iter().map(|l| l.chars().position(|c| c == '×').unwrap()).collect();
    assert!(ends[0] < ends[1] && ends[1] < ends[2], "{screen}");
}

#[test]
fn nothing_harmful_reaches_the_screen_in_any_place() {
    for size in [(80, 24), (200, 50)] {
        let mut app = watched();
        for _ in 0..recorded().len() {
            press(&mut app, KeyCode::Enter);
            for _ in 0..8 {
                assert_harmless(&picture(&mut app, &THEME, size));
                press(&mut app, KeyCode::PageDown);
            }
            press(&mut app, KeyCode::Char('y'));
            let Sheet::Copy(copied) = &app.sheet else { panic!("no plain text") };
            assert!(copied.split('\n').all(|line| safe(line) == line), "{copied:?}");
            press(&mut app, KeyCode::Esc);
            press(&mut app, KeyCode::Down);
            assert_harmless(&picture(&mut app, &THEME, size));
        }
        press(&mut app, KeyCode::Tab);
        for _ in 0..10 {
            press(&mut app, KeyCode::Down);
            assert_harmless(&picture(&mut app, &THEME, size));
        }
    }
}

fn assert_harmless(buffer: &Buffer) {
    for cell in &buffer.content {
        assert_eq!(safe(cell.symbol()), cell.symbol());
    }
}

#[test]
fn without_colour_nothing_is_coloured_and_without_unicode_all_is_ascii() {
    let theme = Theme { colour: false, unicode: false };
    let mut app = watched();
    let mut worse = snapshot(0);
    worse.lost.insert("x".into(), 1);
    app.tick(app.now, worse);
    type_line(&mut app, "upstream:127.0.0.1:8000,127.0.0.1:9000,10.0.0.7:8080,127.0.0.1:8002");
    for open in [false, true] {
        if open {
            press(&mut app, KeyCode::Enter);
        }
        let buffer = picture(&mut app, &theme, (100, 40));
        assert!(buffer.content.iter().all(|c| (c.fg, c.bg) == (Color::Reset, Color::Reset)));
        let screen = text(&buffer);
        assert!(screen.is_ascii(), "{screen}");
    }
}

#[test]
fn it_fits_and_a_smaller_terminal_gets_a_sentence() {
    for size in SIZES {
        let mut app = watched();
        assert_has(&shown(&mut app, size), &["? help", "q quit"]);
        press(&mut app, KeyCode::Char('?'));
        let help = shown(&mut app, size);
        assert_has(&help, &["leave", "its proof and how to fix it", "too little was"]);
    }
    for size in [(79, 24), (80, 23), (20, 5), (1, 1)] {
        let screen = shown(&mut watched(), size);
        assert!(size.0 < 20 || screen.replace('\n', " ").contains("needs 80x24"), "{screen}");
    }
}

#[test]
fn the_cursor_stays_with_its_incident_while_new_ones_come() {
    let mut app = watched();
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Down);
    let before = app.page().row(app.cursor_row()).unwrap().seq;
    recorded().into_iter().for_each(|incident| app.add(incident));
    assert_eq!(app.page().row(app.cursor_row()).unwrap().seq, before);
    press(&mut app, KeyCode::Home);
    recorded().into_iter().for_each(|incident| app.add(incident));
    assert_eq!(app.cursor_row(), 0, "at the top it follows");
}

#[test]
fn a_pause_holds_the_lists_while_errors_are_counted() {
    let mut app = watched();
    press(&mut app, KeyCode::Char('p'));
    let list = |screen: String| screen.split("Incidents").nth(1).unwrap().to_owned();
    let before = list(shown(&mut app, (80, 24)));
    recorded().into_iter().for_each(|incident| app.add(incident));
    let after = shown(&mut app, (80, 24));
    assert_has(&after, &["PAUSED, 18 more since", "total 36"]);
    assert_eq!(list(after), before);
    press(&mut app, KeyCode::Char('p'));
    assert_has(&shown(&mut app, (80, 24)), &["     14 "]);
}

#[test]
fn filters_by_line_by_status_and_by_cause() {
    let mut app = watched();
    type_line(&mut app, "--cause no_listener --status 502 --path /search/3");
    assert_eq!(app.page().count, 1);
    type_line(&mut app, "cuase:x");
    assert_has(&shown(&mut app, (80, 24)), &["no word `cuase`; did you mean cause?"]);
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.page().count, 1, "the one before still holds");
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.page().count, 18);
    let mut seen = Vec::new();
    for _ in 0..5 {
        press(&mut app, KeyCode::Char('s'));
        seen.push((app.ledger.query().to_string(), app.page().count));
    }
    let expected = [("status:502", 15), ("status:503", 1), ("status:504", 1), ("status:closed", 1), ("", 18)];
    assert_eq!(seen, expected.map(|(word, count)| (word.to_owned(), count)));
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.ledger.query().to_string(), "upstream:127.0.0.1:8000 cause:upstream_oom_killed");
    assert_eq!((app.page().count, app.pane), (4, Pane::Incidents));
    type_line(&mut app, "cause:dns_failure");
    assert_has(&shown(&mut app, (80, 24)), &["no incident matches the filter"]);
}

#[test]
fn files_hold_what_is_shown() {
    let mut app = watched();
    type_line(&mut app, "cause:no_listener");
    let Effect::Save { name, body } = press(&mut app, KeyCode::Char('e')) else { panic!("nothing to save") };
    assert_eq!(name, "trace502-20261121T030300Z.jsonl");
    let read: Vec<Incident> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read.len(), 7);
    assert!(read.iter().all(|i| i.cause == "no_listener"));
    let Effect::Save { name, body } = press(&mut app, KeyCode::Char('w')) else { panic!("nothing to save") };
    assert!(name.ends_with(".txt"));
    assert_has(&body, &["GET shop.example/search/6", "cause:    no_listener (certain)", "to do:    point the proxy's"]);
}

#[test]
fn every_key_on_every_sheet_is_safe() {
    let mut codes: Vec<KeyCode> = (' '..='~').filter(|c| *c != 'q').map(KeyCode::Char).collect();
    codes.extend([KeyCode::Enter, KeyCode::Esc, KeyCode::Tab, KeyCode::Up, KeyCode::PageDown, KeyCode::End]);
    codes.extend([KeyCode::Left, KeyCode::Right, KeyCode::Backspace, KeyCode::F(1), KeyCode::Null]);
    for empty in [true, false] {
        let mut app = if empty { App::new(Time::Live, 0, Query::default()) } else { watched() };
        for first in &codes {
            for second in &codes {
                press(&mut app, *first);
                press(&mut app, *second);
            }
            picture(&mut app, &THEME, (80, 24));
        }
    }
}
