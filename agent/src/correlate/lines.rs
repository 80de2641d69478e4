//! What the logs of proxies say of errors, joined to the errors that were seen otherwise: one error is one incident.
//!
//! A line is matched to the error of the same process, time, client and request; only what contradicts keeps them
//! apart, since a log may name another client than the socket does (a proxy in front, `real_ip`). A line that no
//! error was seen for waits a moment for one. Then it is told by itself, if it speaks of the end of a request: a line
//! about one attempt may have been followed by a try that went well.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;

use crate::logs::{Format, Hint, LogError};
use crate::model::{ClientOutcome, Cookie, Endpoint, Nanos, Seen};
use crate::proxies::OTHER;
use crate::text::{MILLI, SECOND};
use crate::wire::http;

use super::pending::Pending;
use super::tries::{Tries, Try};

/// How long a line waits for the error that it tells of: records of the kernel side come within milliseconds.
pub const GRACE: Nanos = 100 * MILLI;
/// Between an error and the end of its line: a log may be written a little later.
pub const NEAR: Nanos = SECOND;
/// How well a line fits that agrees in nothing but the client's address.
const SAME_ADDRESS: u32 = 3;
/// Between the failure of an attempt and the moment at which its line was read.
const WRITTEN: Nanos = 50 * MILLI;
/// A line is read this long after it was written at most, unless the host is very busy.
const LATE: Nanos = 200 * MILLI;
/// A proxy writes its line, then closes the connection.
const CLOSED: Nanos = 2 * MILLI;
/// Clocks of the local time are a multiple of this apart: a log may be written in another zone than ours.
const ZONES_MICROS: i64 = 900_000_000;
/// A line cannot be read before it is written, but clocks are read one after the other.
const AHEAD_MICROS: i64 = 2_000_000;

/// The proxy that writes this log.
pub fn writer(format: Format) -> &'static str {
    match format {
        Format::Nginx | Format::NginxAccess => "nginx",
        Format::Haproxy => "haproxy",
        Format::Apache => "apache",
        Format::Caddy => "caddy",
    }
}

/// Whether the line tells how a request ended, not how one of its attempts did.
pub fn is_end(error: &LogError) -> bool {
    match error.format {
        Format::NginxAccess | Format::Haproxy | Format::Caddy => true,
        Format::Nginx => matches!(
            error.hint,
            Hint::NoLiveUpstream | Hint::Unresolved { .. } | Hint::NoResolver { .. } | Hint::ProxyLimit
        ),
        // A balancer tries its next member after a failing connect().
        Format::Apache => !matches!(error.hint, Hint::Connect { .. } | Hint::ConnectTimeout),
    }
}

/// An error as a log tells it.
#[derive(Clone, Debug)]
pub struct Line {
    pub seq: u64,
    /// When it was read.
    pub read: Nanos,
    /// Between these the error lies.
    pub from: Nanos,
    pub to: Nanos,
    pub error: LogError,
    pub request: Option<http::Request>,
    /// The upstream that it names.
    place: Option<Endpoint>,
}

impl Line {
    /// `wall`: the wall clock when it was read, in microseconds.
    pub fn new(seq: u64, read: Nanos, wall: i64, error: LogError) -> Line {
        let (from, to) = match error.time_micros {
            Some(time) => {
                let late = wall.saturating_sub(time).rem_euclid(ZONES_MICROS);
                let late = if late > ZONES_MICROS - AHEAD_MICROS { 0 } else { late };
                let from = read.saturating_sub(u64::try_from(late).unwrap_or(0).saturating_mul(1_000));
                (from, read.min(from.saturating_add(error.coarse_micros.saturating_mul(1_000))))
            }
            None => (read.saturating_sub(NEAR), read),
        };
        let request = http::request(&head(&error));
        let place = error.upstream.as_deref().and_then(|upstream| match upstream.strip_prefix("unix:") {
            Some(path) => Some(Endpoint::Unix(path.to_owned())),
            None => upstream.parse().ok().map(Endpoint::Tcp),
        });
        Line { seq, read, from, to, error, request, place }
    }

    /// What it is found by, where it has that.
    pub fn topic(&self) -> Topic {
        topic(self.request.as_ref())
    }

    /// How well an error fits that agrees with it in everything.
    pub fn most(&self) -> u32 {
        let client = self.client().map_or(0, |client| 2 + 4 * u32::from(client.port() != 0));
        1 + 4 * u32::from(self.request.is_some()) + client
    }

    /// Whether it is about this upstream.
    pub fn names(&self, endpoint: &Endpoint) -> bool {
        self.place.as_ref() == Some(endpoint)
    }

    pub fn client(&self) -> Option<SocketAddr> {
        self.error.client.map(|ip| SocketAddr::new(ip, self.error.client_port.unwrap_or(0)))
    }
}

/// Whether the line is about this upstream.
pub fn names(error: &LogError, endpoint: &Endpoint) -> bool {
    error.upstream.as_deref().is_some_and(|upstream| match endpoint {
        Endpoint::Tcp(addr) => upstream.parse() == Ok(*addr),
        Endpoint::Unix(path) => upstream.strip_prefix("unix:") == Some(path),
    })
}

/// The path of a request that is known to its end, as a number: an error and a line that both have one fit only if it
/// is the same.
pub type Topic = Option<u64>;

fn topic(request: Option<&http::Request>) -> Topic {
    request.filter(|request| request.whole_line).map(|request| {
        let mut hasher = DefaultHasher::new();
        request.path().hash(&mut hasher);
        hasher.finish()
    })
}

/// The request as its client may have sent it.
pub fn head(error: &LogError) -> Vec<u8> {
    let Some(path) = &error.path else { return Vec::new() };
    let method = error.method.as_deref().unwrap_or("GET");
    let host = error.host.as_ref().map_or_else(String::new, |host| format!("Host: {host}\r\n"));
    format!("{method} {path} HTTP/1.1\r\n{host}\r\n").into_bytes()
}

/// An error that is known.
#[derive(Clone, Debug)]
pub struct Known {
    pub key: (Cookie, u32),
    pub pid: u32,
    pub kind: &'static str,
    pub at: Nanos,
    asked: Option<Nanos>,
    pub client: Option<SocketAddr>,
    pub request: Option<http::Request>,
    pub status: Option<u16>,
    /// What nginx numbers its client's connection as, once a line has told.
    connection: Option<u64>,
    /// Its bytes could be read.
    pub readable: bool,
    /// A log told it first.
    pub logged: bool,
    /// Logs that have told its end.
    pub ends: Vec<Format>,
    /// Where it was tried, and when that failed.
    attempts: Vec<(Endpoint, Nanos)>,
}

impl Known {
    pub fn new(pending: &Pending, tries: &Tries) -> Known {
        let conn = &pending.error.conn;
        Known {
            key: pending.key(),
            pid: pending.pid,
            kind: pending.owner.kind.name,
            at: pending.at,
            asked: conn.asked,
            client: conn.flow.map(|flow| flow.remote),
            request: http::request(&conn.request_head),
            status: match pending.error.outcome {
                ClientOutcome::Status(status) => Some(status),
                _ => None,
            },
            connection: pending.line.as_ref().and_then(|line| line.connection),
            readable: pending.error.outcome != ClientOutcome::Unseen,
            logged: pending.seen == Seen::Log,
            attempts: tries.of_client(pending.key()).map(|t| (t.attempt.endpoint.clone(), t.at)).collect(),
            ends: pending.line.iter().filter(|line| is_end(line)).map(|line| line.format).collect(),
        }
    }

    /// What it is found by, where it has that.
    pub fn topic(&self) -> Topic {
        topic(self.request.as_ref())
    }

    /// No line that was read before this can tell of it, where its request cannot be read.
    pub fn earliest(&self) -> Nanos {
        let failed = self.attempts.iter().map(|(_, at)| *at).min();
        failed.map_or(self.at, |at| at.min(self.at)).saturating_sub(NEAR)
    }

    /// How well a line fits; `None` where it tells of another error.
    pub fn fit(&self, line: &Line) -> Option<u32> {
        let error = &line.error;
        let end = is_end(error);
        let same_process = error.pid.is_some_and(|pid| pid == self.pid);
        let same_kind = writer(error.format) == self.kind || (self.kind == OTHER.name && same_process);
        let other_process = self.pid != 0 && error.pid.is_some_and(|pid| pid != self.pid);
        let other_connection = matches!((self.connection, error.connection), (Some(a), Some(b)) if a != b);
        if !same_kind || other_process || other_connection || !self.same_time(line, end) {
            return None;
        }
        // Whom it refuses has no upstream asked.
        if matches!(error.hint, Hint::Refused { .. }) && !self.attempts.is_empty() {
            return None;
        }
        if end && (self.ends.contains(&error.format) || self.differs(self.status, error.status)) {
            return None;
        }
        let guessed = self.request.is_none() && self.tried(line);
        if !(self.readable || end || guessed) {
            return None;
        }
        let mut fit = 1;
        if let (Some(a), Some(b)) = (&self.request, &line.request) {
            if !same_request(a, b) {
                return None;
            }
            fit += 4;
        }
        if let (Some(a), Some(b)) = (self.client, line.client()) {
            let ports = a.port() != 0 && b.port() != 0;
            if a.ip() == b.ip() && ports && a.port() != b.port() {
                return None;
            }
            fit += 2 * u32::from(a.ip() == b.ip()) + 4 * u32::from(a == b && ports);
        }
        // The end of a request that cannot be read must name it, or its client to the port.
        (self.readable || !end || fit > SAME_ADDRESS).then_some(fit)
    }

    /// What a connection that cannot be read was asked is known from the first line about it.
    pub fn learn(&mut self, line: &Line) {
        if is_end(&line.error) {
            self.ends.push(line.error.format);
        }
        if self.request.is_none() {
            self.request.clone_from(&line.request);
        }
        self.connection = self.connection.or(line.error.connection);
    }

    pub fn differs(&self, a: Option<u16>, b: Option<u16>) -> bool {
        matches!((a, b), (Some(a), Some(b)) if a != b)
    }

    /// Whether the line names an upstream that was tried for it, or none where none was.
    pub fn asked_where(&self, line: &Line) -> bool {
        match line.error.upstream {
            Some(_) => self.attempts.iter().any(|(endpoint, _)| line.names(endpoint)),
            None => self.attempts.is_empty(),
        }
    }

    /// Where nothing but time tells whose a line is, it must have been written as an attempt there failed.
    pub fn tried(&self, line: &Line) -> bool {
        let from = line.read.saturating_sub(WRITTEN);
        let mut near = self.attempts.iter().filter(|(_, at)| *at >= from && *at <= line.read.saturating_add(CLOSED));
        near.any(|(endpoint, _)| line.names(endpoint))
    }

    /// The end of a request is told near its error, a failed attempt any time since the request began.
    pub fn same_time(&self, line: &Line, end: bool) -> bool {
        let since = match self.asked {
            Some(asked) if !end => asked,
            _ => self.at,
        };
        line.to.saturating_add(NEAR) >= since && line.from <= self.at.saturating_add(NEAR)
    }
}

/// As far as both were kept.
pub fn same_request(a: &http::Request, b: &http::Request) -> bool {
    if a.method != b.method {
        return false;
    }
    let (a_path, b_path) = (a.path(), b.path());
    match a.whole_line && b.whole_line {
        true => a_path == b_path,
        false => a_path.starts_with(b_path) || b_path.starts_with(a_path),
    }
}

/// Whether the line can mean only one attempt: where nothing but time tells whose it is, one of several is no one's.
pub fn alone(line: &Line, tries: &Tries) -> bool {
    let since = line.read.saturating_sub(LATE);
    let meant = |t: &&Try| t.at >= since && t.at <= line.read.saturating_add(CLOSED) && line.names(&t.attempt.endpoint);
    tries.of_process(line.error.pid.unwrap_or(0)).filter(meant).count() == 1
}
