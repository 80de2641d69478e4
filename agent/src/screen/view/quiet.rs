//! While nothing has failed: what is seen, so that silence is trusted, and how to see an error on purpose.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::top::{figure, proxies, requests_word, upstreams};
use super::{Theme, fit, rule};
use crate::screen::app::{App, OFFER_AFTER};
use crate::screen::source::{Span as Time, UpstreamSeen};
use crate::text::safe;

pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let width = usize::from(area.width).saturating_sub(4);
    let mut lines = vec![rule(vec![Span::styled("No gateway error", theme.strong())], area.width, theme)];
    lines.push(Line::default());
    let say = |lines: &mut Vec<Line<'static>>, text: &str, style| {
        lines.extend(fit::wrap(text, width).into_iter().map(|l| Line::styled(format!("  {l}"), style)));
    };
    if let Time::Past(..) = app.span {
        say(&mut lines, "Nothing failed in this time, or no incident matches the flags.", theme.plain());
        frame.render_widget(Paragraph::new(lines), area);
        return;
    }
    say(&mut lines, &seen(app), theme.good());
    lines.push(Line::default());
    let room = usize::from(area.height).saturating_sub(lines.len() + if offered(app) { 11 } else { 0 });
    let mut shown: Vec<&UpstreamSeen> = app.snapshot.upstreams.iter().collect();
    shown.sort_by(|a, b| b.connections.cmp(&a.connections).then_with(|| a.addr.cmp(&b.addr)));
    for upstream in shown.into_iter().take(room.saturating_sub(1)) {
        let text = format!("{:>12} connections to {}", figure(upstream.connections), safe(&upstream.addr));
        lines.push(Line::raw(fit::cut(&text, width, theme.unicode)));
    }
    if offered(app) {
        lines.push(Line::default());
        say(&mut lines, "To see one on purpose, from another terminal:", theme.strong());
        for command in provoke(app) {
            lines.push(Line::raw(command.to_string()));
        }
        lines.push(Line::default());
        say(&mut lines, what_it_does(app), theme.faint());
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn offered(app: &App) -> bool {
    app.now - app.began >= OFFER_AFTER
}

/// `412 requests/s through nginx pid 7353 to 3 upstreams, all answered.`
fn seen(app: &App) -> String {
    let snapshot = &app.snapshot;
    if snapshot.proxies.is_empty() {
        return "No proxy is running that trace502 knows. It is found as soon as it starts.".into();
    }
    let who = proxies(snapshot, 3);
    match app.requests_per_second() {
        Some(rate) if rate > 0.0 => {
            let to = upstreams(snapshot.upstreams.len());
            format!("{} through {who} to {to}, all answered.", requests_word(rate))
        }
        Some(_) if snapshot.requests.unwrap_or(0) > 0 => {
            format!("{who}: {} requests so far, all answered; none right now.", figure(snapshot.requests.unwrap_or(0)))
        }
        Some(_) => format!("{who}: watched, no request to an upstream yet."),
        None => format!("{who}: watched, no error so far."),
    }
}

/// A proxy of the kind that runs here, beside it and on another port, with an upstream where nothing listens.
fn provoke(app: &App) -> &'static [&'static str] {
    let runs = |name: &str| app.snapshot.proxies.iter().any(|p| p.name == name);
    if runs("caddy") && !runs("nginx") {
        return &["caddy reverse-proxy --from :8502 --to 127.0.0.1:9 &", "curl -i 127.0.0.1:8502; kill %%"];
    }
    if runs("haproxy") && !runs("nginx") {
        return &[
            r"printf 'defaults\n mode http\n timeout connect 1s\n timeout client 1s\n' >t.cfg",
            r"printf ' timeout server 1s\nlisten t\n bind 127.0.0.1:8502\n' >>t.cfg",
            r"printf ' server s 127.0.0.1:9\n' >>t.cfg; haproxy -D -p t.pid -f t.cfg",
            "curl -i 127.0.0.1:8502; kill $(cat t.pid)",
        ];
    }
    &[
        "cat >/tmp/t502.conf <<.",
        "pid /tmp/t502.pid; events {} http { access_log off; server {",
        "listen 127.0.0.1:8502; location / { proxy_pass http://127.0.0.1:9; } } }",
        ".",
        "nginx -c /tmp/t502.conf; curl -i 127.0.0.1:8502",
        "nginx -c /tmp/t502.conf -s stop",
    ]
}

fn what_it_does(app: &App) -> &'static str {
    if app.snapshot.proxies.is_empty() {
        "It starts an nginx of its own on port 8502 whose upstream does not exist."
    } else {
        "It starts a proxy of its own on port 8502 whose upstream does not exist; the ones that run are not touched."
    }
}
