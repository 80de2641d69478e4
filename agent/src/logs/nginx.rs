//! nginx: its error_log, and its access_log in the `combined` format.
//!
//! Request, Host and Referer are quoted but not escaped there: what a client sends may look like the log's own
//! fields. So each field is looked for only where nginx writes it.

use super::text::{address, between, kept, path, request};
use super::{Format, Hint, LogError, time};

/// `2026/11/21 07:44:36 [error] PID#TID: *CONNECTION message, client: …, server: …, request: "…", upstream: "…", host: "…"`
pub fn error(line: &str, zone: i32) -> Option<LogError> {
    let (date, rest) = line.split_once(" [")?;
    let (_level, rest) = rest.split_once("] ")?;
    let (ids, rest) = rest.split_once(": ")?;
    let (pid, tid) = ids.split_once('#')?;
    let (connection, rest) = rest.strip_prefix('*')?.split_once(' ')?;
    let (message, rest) = message(rest)?;
    let (hint, status) = hint(message)?;
    let mut error = LogError::new(Format::Nginx, hint);
    error.time_micros = time::nginx(date, zone);
    error.coarse_micros = 1_000_000;
    (error.pid, error.tid) = (pid.parse().ok(), tid.parse().ok());
    error.connection = connection.parse().ok();
    error.status = status;
    error.client = address(rest.split(", ").next()?);
    if let Some(rest) = after(rest, ", request: \"") {
        // The request line ends with its version; the target before it holds no space.
        let end = rest.find(" HTTP/").and_then(|at| Some(at + rest[at..].find("\", ")?)).unwrap_or(rest.len());
        (error.method, error.host, error.path) = request(&rest[..end]);
        let rest = &rest[end..];
        let rest = match rest.strip_prefix("\", subrequest: \"") {
            Some(sub) => sub.find('"').map_or("", |at| &sub[at..]),
            None => rest,
        };
        if let Some(rest) = rest.strip_prefix("\", upstream: \"") {
            error.upstream = upstream(rest);
        }
        error.host = between(rest, "\", host: \"", "\"").filter(|host| !host.is_empty()).map(kept).or(error.host);
    }
    Some(error)
}

/// The message itself ends where nginx names the client; a phase before that belongs to it.
fn message(rest: &str) -> Option<(&str, &str)> {
    let end = match rest.find(" upstream, client: ") {
        Some(at) => at + " upstream".len(),
        None => rest.find(", client: ")?,
    };
    Some((&rest[..end], &rest[end + ", client: ".len()..]))
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.find(mark).map(|at| &text[at + mark.len()..])
}

/// What failed, and what nginx answers to it. Lines about the body of an answer that has begun are no errors here.
fn hint(message: &str) -> Option<(Hint, Option<u16>)> {
    let phase = message.rfind(" while ").map_or("", |at| &message[at + 7..]);
    let errno = || {
        let digits = between(message, "failed (", ":")?;
        digits.parse().ok()
    };
    let at = |text: &str| message.starts_with(text);
    let connecting = phase == "connecting to upstream";
    let sending = phase == "sending request to upstream";
    let reading = phase == "reading response header from upstream";
    let shaking = phase == "SSL handshaking to upstream";
    let (hint, status) = match () {
        _ if at("upstream timed out") && connecting => (Hint::ConnectTimeout, 504),
        _ if at("upstream timed out") && sending => (Hint::SendTimeout, 504),
        _ if at("upstream timed out") && reading => (Hint::ResponseTimeout, 504),
        _ if at("upstream timed out") && shaking => (Hint::TlsTimeout, 504),
        _ if at("no live upstreams") => (Hint::NoLiveUpstream, 502),
        _ if at("upstream SSL certificate") => (Hint::TlsVerify, 502),
        _ if shaking => (Hint::TlsHandshake, 502),
        _ if at("connect() ") && connecting => (Hint::Connect { errno: errno() }, 502),
        _ if (at("socket() ") || message.contains("worker_connections are not enough")) && connecting => {
            (Hint::ProxyLimit, 500)
        }
        _ if at("upstream prematurely closed connection") && (reading || sending) => (Hint::ClosedEarly, 502),
        _ if at("upstream sent too big header") => (Hint::HeaderTooBig, 502),
        // With the status that its configuration says.
        _ if at("limiting requests, excess") => return Some((Hint::Refused { rate: true }, None)),
        _ if at("limiting connections by zone") => return Some((Hint::Refused { rate: false }, None)),
        // It hands the bytes on as if they were an answer of HTTP/0.9.
        _ if at("upstream sent no valid HTTP/1.0 header") => return Some((Hint::InvalidResponse, None)),
        _ if at("upstream rejected request") => (Hint::Rejected, 502),
        _ if at("upstream sent ") && reading => (Hint::InvalidResponse, 502),
        _ if sending && message.contains("() failed") => (Hint::Send { errno: errno() }, 502),
        _ if reading && message.contains("() failed") => (Hint::Receive { errno: errno() }, 502),
        _ => {
            if let Some(name) = message.strip_prefix("no resolver defined to resolve ") {
                return Some((Hint::NoResolver { name: kept(name) }, Some(502)));
            }
            let (name, _) = message.split_once(" could not be resolved")?;
            (Hint::Unresolved { name: kept(name) }, 502)
        }
    };
    Some((hint, Some(status)))
}

/// `http://127.0.0.1:9001/path`, `http://unix:/run/a.sock:/path`, `fastcgi://…`: the address of it.
fn upstream(text: &str) -> Option<String> {
    let (_scheme, rest) = text.split_once("://")?;
    let end = match rest.strip_prefix("unix:") {
        Some(path) => 5 + path.find([':', '"']).unwrap_or(path.len()),
        None => rest.find(['/', '"', '?']).unwrap_or(rest.len()),
    };
    (end > 0).then(|| kept(&rest[..end]))
}

/// `client - user [time] "request" status bytes "referrer" "agent"`, where quotes inside are escaped.
pub fn access(line: &str) -> Option<LogError> {
    let (head, rest) = line.split_once(" \"")?;
    let (asked, rest) = rest.split_once("\" ")?;
    let status: u16 = rest.split(' ').next()?.parse().ok()?;
    if !matches!(status, 502..=504) {
        return None;
    }
    let mut error = LogError::new(Format::NginxAccess, Hint::StatusOnly);
    // The name of a user may hold brackets; the time is what stands right before the request.
    let date = head.rfind('[').map(|at| head[at + 1..].trim_end_matches(']'));
    error.time_micros = date.and_then(|date| time::common(date, 0));
    error.coarse_micros = 1_000_000;
    error.client = address(head.split(' ').next()?);
    (error.method, error.host, error.path) = request(asked);
    error.path = error.path.as_deref().and_then(path);
    error.status = Some(status);
    Some(error)
}
