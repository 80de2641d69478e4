//! `upstream_error`: the upstream itself answered with a gateway error.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::text;
use crate::wire::{Looks, fastcgi, http};

pub static CAUSE: Cause = Cause {
    id: "upstream_error",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The upstream itself answered 502, 503 or 504, and the proxy passed it on. The failure lies behind the \
              upstream or in it.",
    proof: "That status in the head of its answer.",
    remedy: "Look at the upstream: its log, and what it depends on. The proxy is not at fault.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(conn) = case.conn() else { return Verdict::No };
    let http = http::response(case.reply());
    let fcgi = fastcgi::response(case.reply());
    let spoken = http.as_ref().map(|r| r.status).or_else(|| fcgi.as_ref().and_then(|r| r.status));
    // The kernel side may have recognised a status whose bytes were not kept.
    let Some(status) = spoken.or(conn.status).filter(|s| (502..=504).contains(s)) else { return Verdict::No };
    let server = case.server_name();
    let itself = if server == "the upstream" { format!("the upstream {}", case.place()) } else { server };
    let product = http.and_then(|r| r.server).map_or_else(String::new, |s| format!(" (its Server header: {s})"));
    let took = text::duration(case.waited());
    let log = match case.server() {
        Some(pid) => format!("look at the log of {}: it answered {status} by itself", case.service(pid)),
        None => format!("look at the log of {}: it answered {status} by itself", case.place()),
    };
    let name = &case.owner.name;
    let said = match &fcgi {
        Some(_) => format!("answer of the upstream: Status: {status}"),
        None if conn.stream || case.answered() == Looks::Http2 => {
            format!("answer of the upstream on a stream of HTTP/2: status {status}")
        }
        None => format!("answer of the upstream: {}", text::safe_bytes(first_line(case.reply()), 80)),
    };
    let stderr = fcgi.and_then(|r| r.stderr).map(|text| super::Note {
        at: case.at,
        kind: "stderr",
        text: format!("before that it wrote to its error stream: {text}"),
    });
    Finding::new(format!("{itself} itself answered {status} after {took}{product}; {name} passed it on"))
        .notes(stderr)
        .note(case.at, "response", said)
        .fix(log)
        .behind(case)
        .yes()
}

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == b'\r' || b == b'\n').next().unwrap_or(bytes)
}
