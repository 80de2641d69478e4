//! What is answered: a path in, a response out. No I/O.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::metrics::{Format, Metrics};
use crate::model::{Incident, Process, Request};
use crate::status::{Board, Snapshot};
use crate::when::read_here;

/// Incidents on the page.
const RECENT: usize = 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl Response {
    pub fn text(status: u16, body: impl Into<String>) -> Response {
        let mut body = body.into();
        body.push('\n');
        Response { status, content_type: "text/plain; charset=utf-8", body }
    }
}

/// The last incidents, as far as the page shows them.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Line>>>);

#[derive(Clone, Debug)]
struct Line {
    time: String,
    status: String,
    proxy: String,
    request: String,
    upstream: String,
    cause: String,
    summary: String,
}

impl Recent {
    pub fn push(&self, incident: &Incident) {
        let line = Line {
            // To the millisecond; the record has the rest.
            time: read_here(&incident.time),
            status: incident.status_word(),
            proxy: proxy(&incident.proxy),
            request: request(&incident.request),
            upstream: incident.upstream.as_ref().map_or_else(|| "–".to_owned(), |u| u.addr.clone()),
            cause: incident.cause.clone(),
            summary: incident.summary.clone(),
        };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == RECENT {
            lines.pop_back();
        }
        lines.push_front(line);
    }

    fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

fn proxy(process: &Process) -> String {
    match process.container_label() {
        Some(container) => format!("{} in {container}", process.name),
        None => format!("{} ({})", process.name, process.pid),
    }
}

fn request(request: &Request) -> String {
    let [method, host, path] =
        [&request.method, &request.host, &request.path].map(|part| part.as_deref().unwrap_or(""));
    format!("{method} {host}{path}").trim().to_owned()
}

/// Everything that can be asked for.
#[derive(Clone, Debug)]
pub struct Site {
    pub board: Board,
    pub metrics: Arc<Metrics>,
    pub recent: Recent,
}

/// Probes of an orchestrator carry no token, and these two tell nothing of traffic.
pub fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

impl Site {
    pub fn answer(&self, path: &str, accept: &str) -> Response {
        match path {
            "/metrics" => {
                let format = Format::of_accept(accept);
                Response { status: 200, content_type: format.content_type(), body: self.metrics.render(format) }
            }
            "/healthz" if self.board.snapshot().alive(Instant::now()) => Response::text(200, "ok"),
            "/healthz" => Response::text(503, "the engine does not report"),
            "/readyz" => match self.board.snapshot().not_ready(Instant::now()) {
                None => Response::text(200, "ready"),
                Some(why) => Response::text(503, why),
            },
            "/" => Response {
                status: 200,
                content_type: "text/html; charset=utf-8",
                body: landing(&self.board.snapshot(), &self.recent.lines()),
            },
            _ => Response::text(404, "here are: / /metrics /healthz /readyz"),
        }
    }
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top;\
border-bottom:1px solid #8884;overflow-wrap:anywhere}code{font:13px ui-monospace,monospace}.bad{color:#c22;font-weight:600}\
.ok{color:#183}:root{color-scheme:light dark}";

fn landing(now: &Snapshot, recent: &[Line]) -> String {
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>trace502</title><style>{STYLE}</style><h1>trace502 {}</h1>",
        env!("CARGO_PKG_VERSION")
    );
    let state = match now.not_ready(Instant::now()) {
        None => "<span class=ok>ready</span>".to_owned(),
        Some(why) => format!("<span class=bad>not ready: {}</span>", html(&why)),
    };
    put(&mut page, format_args!("<p>{state} · <a href=/metrics>metrics</a> · <a href=/healthz>healthz</a> · "));
    page.push_str("<a href=/readyz>readyz</a> · the past: <code>trace502 history --since 1h</code></p>");
    for trouble in troubles(now) {
        put(&mut page, format_args!("<p class=bad>{}</p>", html(&trouble)));
    }
    incidents(&mut page, recent);
    page.push_str("<h2>Proxies watched</h2><p>");
    if now.status.proxies.is_empty() {
        page.push_str("none found");
    }
    for proxy in now.status.proxies.iter().take(200) {
        put(&mut page, format_args!("{} <small>{}</small> ", html(&proxy.name), proxy.pid));
    }
    page.push_str("</p><h2>Probes</h2><table><tr><th>probe<th>provider<th>state");
    for probe in &now.status.probes {
        let state =
            if probe.attached { "<span class=ok>attached</span>" } else { "<span class=bad>not attached</span>" };
        put(&mut page, format_args!("<tr><td>{}<td>{}<td>{state}", html(&probe.name), html(&probe.provider)));
    }
    put(&mut page, format_args!("</table><h2>Privileges that remain</h2><p>{}</p></html>\n", html(&now.privileges)));
    page
}

fn incidents(page: &mut String, recent: &[Line]) {
    page.push_str("<h2>Last errors</h2>");
    if recent.is_empty() {
        page.push_str("<p>none since the start");
        return;
    }
    page.push_str(
        "<table><tr><th>time of this host<th>status<th>proxy<th>request<th>upstream<th>cause<th>what happened",
    );
    for line in recent {
        let cells = [&line.time, &line.status, &line.proxy, &line.request, &line.upstream, &line.cause, &line.summary];
        page.push_str("<tr>");
        for cell in cells {
            put(page, format_args!("<td>{}", html(cell)));
        }
    }
    page.push_str("</table>");
}

fn troubles(now: &Snapshot) -> Vec<String> {
    let mut troubles = Vec::new();
    if let Some(why) = &now.history.trouble {
        troubles.push(format!("The history is kept in memory for now: {why}"));
    }
    if let Some(file) = &now.history.set_aside {
        troubles.push(format!("A damaged history was set aside as {file}"));
    }
    let lost: Vec<String> =
        now.lost().iter().filter(|(_, count)| **count > 0).map(|(place, count)| format!("{place}: {count}")).collect();
    if !lost.is_empty() {
        troubles.push(format!("Lost since the start: {}", lost.join(", ")));
    }
    troubles
}

fn put(page: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = page.write_fmt(what);
}

/// Text that stays text, whatever it holds.
fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in crate::text::safe(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}
