//! One incident as plain text, to be pasted into a chat or a ticket: no borders, no colours, nothing harmful.

use std::fmt::Write as _;

use crate::digest::{MISSING, place, relative};
use crate::model::{AttemptSummary, Incident, Request, Seen};
use crate::text::{duration, safe};

/// `GET shop.example/api/cart`, as much of it as is known.
pub fn request(request: &Request) -> String {
    let method = request.method.as_deref().map_or("?".into(), safe);
    let host = request.host.as_deref().unwrap_or_default();
    let path = request.path.as_deref().map_or("(path not seen)".into(), safe);
    format!("{method} {}{path}", safe(host))
}

/// What the client got and how that was seen.
pub fn outcome(incident: &Incident) -> String {
    if let Some(status) = incident.grpc_status {
        return format!("the client got grpc-status {status}");
    }
    match (incident.status, incident.seen) {
        (_, Seen::Garbled) => "the client got bytes that are no HTTP response".into(),
        (None, Seen::Inferred) => "the client got an answer that could not be read, after every attempt failed".into(),
        (None, Seen::Log) => "the client's request failed, as the proxy's log says".into(),
        (None, _) => "the client's connection was closed without an answer".into(),
        (Some(status), Seen::Wire) => format!("the client got {status}"),
        (Some(status), Seen::Tls) => format!("the client got {status} (seen inside TLS)"),
        (Some(status), Seen::Log) => format!("the client got {status} (from the proxy's log)"),
        (Some(status), _) => format!("the client got {status} (inferred: every attempt failed)"),
    }
}

/// The parts of an attempt in words: `connected in 90 us, waited 41 ms, 0 bytes`.
pub fn attempt(attempt: &AttemptSummary) -> String {
    let took = |us: u64| duration(us.saturating_mul(1_000));
    let mut parts = Vec::new();
    match (attempt.reused, attempt.connect_us) {
        (true, _) => parts.push("kept-alive connection".to_owned()),
        (false, Some(us)) => parts.push(format!("connecting took {}", took(us))),
        (false, None) => parts.push("not connected".to_owned()),
    }
    if let Some(us) = attempt.wait_us {
        parts.push(format!("waited {}", took(us)));
        parts.push(crate::text::count(attempt.bytes, "byte") + " came back");
    }
    parts.join(", ")
}

pub fn text(incident: &Incident) -> String {
    let mut out = String::new();
    let status = incident.status_word();
    // Writing to a `String` cannot fail.
    let mut line = |args: std::fmt::Arguments<'_>| {
        let _ = writeln!(out, "{args}");
    };
    line(format_args!("{}  {status}  {}", safe(&incident.time), request(&incident.request)));
    line(format_args!("cause:    {} ({})", safe(&incident.cause), incident.confidence));
    line(format_args!("          {}", safe(&incident.summary)));
    for fix in &incident.fix {
        line(format_args!("to do:    {}", safe(fix)));
    }
    line(format_args!("proxy:    {}; {}", place(&incident.proxy), outcome(incident)));
    if let Some(client) = &incident.client {
        line(format_args!("client:   {}", safe(client)));
    }
    if let Some(upstream) = &incident.upstream {
        let process = upstream.process.as_ref().map_or(String::new(), |p| format!(", {}", place(p)));
        line(format_args!("upstream: {}{process}", safe(&upstream.addr)));
    }
    for (n, one) in incident.attempts.iter().enumerate() {
        let (addr, cause) = (safe(&one.upstream), safe(&one.cause));
        line(format_args!("attempt {}: {addr}: {cause}; {}", n + 1, attempt(one)));
    }
    if !incident.evidence.is_empty() {
        line(format_args!("evidence, relative to the error:"));
    }
    for one in incident.evidence.iter().filter(|one| one.kind == MISSING) {
        line(format_args!("      not seen  {}", safe(&one.text)));
    }
    for one in incident.evidence.iter().filter(|one| one.kind != MISSING) {
        line(format_args!("  {:>12}  {}: {}", relative(one.t_us), safe(&one.kind), safe(&one.text)));
    }
    line(format_args!("id:       {}", safe(&incident.id)));
    out
}
