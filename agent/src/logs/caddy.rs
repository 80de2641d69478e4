//! Caddy: lines of its JSON log. A failed request has a line with the reason, and one of the access log where that
//! is on.

use serde::Deserialize;

use super::text::{address, address_and_port, errno, kept, path};
use super::{Format, Hint, LogError};

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    ts: serde_json::Value,
    #[serde(default)]
    logger: String,
    #[serde(default)]
    msg: String,
    status: Option<u16>,
    request: Option<Asked>,
    #[serde(default)]
    err_trace: String,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    remote_ip: String,
    #[serde(default)]
    remote_port: String,
    #[serde(default)]
    method: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    uri: String,
}

pub fn error(line: &str) -> Option<LogError> {
    let line: Line = serde_json::from_str(line).ok()?;
    let (status, asked) = (line.status?, line.request?);
    let hint = match () {
        // Other parts of Caddy fail too, with no upstream in play.
        _ if line.logger.starts_with("http.log.error") && line.err_trace.starts_with("reverseproxy.") => {
            matches!(status, 500 | 502..=504).then(|| hint(&line.msg))?
        }
        _ if line.logger.starts_with("http.log.access") => matches!(status, 502..=504).then_some(Hint::StatusOnly)?,
        _ => return None,
    };
    let mut error = LogError::new(Format::Caddy, hint);
    error.time_micros = line.ts.as_f64().filter(|ts| (0.0..1e11).contains(ts)).map(|ts| (ts * 1e6) as i64);
    error.client = address(&asked.remote_ip);
    error.client_port = asked.remote_port.parse().ok();
    error.method = (!asked.method.is_empty()).then(|| kept(&asked.method));
    error.host = (!asked.host.is_empty()).then(|| kept(&asked.host));
    error.path = path(&asked.uri);
    error.status = Some(status);
    if error.hint != Hint::StatusOnly {
        (error.upstream, error.upstream_local_port) = ends(&line.msg);
    }
    Some(error)
}

fn hint(message: &str) -> Hint {
    let has = |text: &str| message.contains(text);
    match () {
        _ if has("lookup ") && message.starts_with("dial ") => {
            let name = message.split("lookup ").nth(1).and_then(|rest| rest.split([' ', ':']).next());
            Hint::Unresolved { name: kept(name.unwrap_or_default()) }
        }
        _ if message.starts_with("dial ") && has("i/o timeout") => Hint::ConnectTimeout,
        _ if message.starts_with("dial ") => Hint::Connect { errno: errno(message) },
        _ if has("no upstreams available") => Hint::NoLiveUpstream,
        _ if has("TLS handshake timeout") => Hint::TlsTimeout,
        _ if has("x509: ") || has("failed to verify certificate") => Hint::TlsVerify,
        _ if has("tls: ") => Hint::TlsHandshake,
        _ if has("timeout awaiting response headers") || has("context deadline exceeded") => Hint::ResponseTimeout,
        _ if has("server response headers exceeded") => Hint::HeaderTooBig,
        _ if has("malformed ") => Hint::InvalidResponse,
        _ if message.starts_with("write ") => Hint::Send { errno: errno(message) },
        _ if message.starts_with("read ") => Hint::Receive { errno: errno(message) },
        _ if message.ends_with("EOF") || has("server closed idle connection") => Hint::ClosedEarly,
        _ if has("stream error") || has("GOAWAY") => Hint::Rejected,
        _ => Hint::Other,
    }
}

/// `dial tcp A: …`, `dial unix P: …`, `read tcp L->A: …`: the upstream, and our port.
fn ends(message: &str) -> (Option<String>, Option<u16>) {
    let mut words = message.splitn(3, ' ');
    let (Some("dial" | "read" | "write"), Some(network), Some(rest)) = (words.next(), words.next(), words.next())
    else {
        return (None, None);
    };
    // `dial tcp: lookup …` names no address.
    let Some((pair, _)) = rest.split_once(": ").filter(|_| !network.ends_with(':')) else { return (None, None) };
    let (local, remote) = match pair.split_once("->") {
        Some((local, remote)) => (address_and_port(local).1, remote),
        None => (None, pair),
    };
    let prefix = if network.starts_with("unix") { "unix:" } else { "" };
    (Some(kept(&format!("{prefix}{remote}"))), local)
}
