//! What the logs of proxies say of errors, joined to the errors that were seen otherwise: one error is one incident.
//!
//! A line is matched to the error of the same process, time, client and request; only what contradicts keeps them
//! apart, since a log may name another client than the socket does (a proxy in front, `real_ip`). A line that no
//! error was seen for waits a moment for one. Then it is told by itself, if it speaks of the end of a request: a line
//! about one attempt may have been followed by a try that went well.

use std::collections::VecDeque;
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
const NEAR: Nanos = SECOND;
/// How well a line fits that agrees in nothing but the client's address.
const SAME_ADDRESS: u32 = 3;
/// Between the failure of an attempt and the moment at which its line was read.
const WRITTEN: Nanos = 50 * MILLI;
/// A line is read this long after it was written at most, unless the host is very busy.
const LATE: Nanos = 200 * MILLI;
/// A proxy writes its line, then closes the connection.
const CLOSED: Nanos = 2 * MILLI;
/// Errors are kept about in the order of their times.
const LONG_AGO: Nanos = 2 * NEAR;
/// Attempts of one request lie minutes apart at most.
const MEMORY: Nanos = 120 * SECOND;
const LINES: usize = 4_096;
const ERRORS: usize = 8_192;
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
    request: Option<http::Request>,
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
        Line { seq, read, from, to, error, request }
    }

    /// Whether it is about this upstream.
    pub fn names(&self, endpoint: &Endpoint) -> bool {
        names(&self.error, endpoint)
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
    key: (Cookie, u32),
    pid: u32,
    kind: &'static str,
    at: Nanos,
    asked: Option<Nanos>,
    client: Option<SocketAddr>,
    request: Option<http::Request>,
    status: Option<u16>,
    /// What nginx numbers its client's connection as, once a line has told.
    connection: Option<u64>,
    /// Its bytes could be read.
    readable: bool,
    /// A log told it first.
    logged: bool,
    /// Logs that have told its end.
    ends: Vec<Format>,
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

    /// How well a line fits; `None` where it tells of another error.
    fn fit(&self, line: &Line) -> Option<u32> {
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
    fn learn(&mut self, line: &Line) {
        if is_end(&line.error) {
            self.ends.push(line.error.format);
        }
        if self.request.is_none() {
            self.request.clone_from(&line.request);
        }
        self.connection = self.connection.or(line.error.connection);
    }

    fn differs(&self, a: Option<u16>, b: Option<u16>) -> bool {
        matches!((a, b), (Some(a), Some(b)) if a != b)
    }

    /// Whether the line names an upstream that was tried for it, or none where none was.
    fn asked_where(&self, line: &Line) -> bool {
        match line.error.upstream {
            Some(_) => self.attempts.iter().any(|(endpoint, _)| line.names(endpoint)),
            None => self.attempts.is_empty(),
        }
    }

    /// Where nothing but time tells whose a line is, it must have been written as an attempt there failed.
    fn tried(&self, line: &Line) -> bool {
        let from = line.read.saturating_sub(WRITTEN);
        let mut near = self.attempts.iter().filter(|(_, at)| *at >= from && *at <= line.read.saturating_add(CLOSED));
        near.any(|(endpoint, _)| line.names(endpoint))
    }

    /// The end of a request is told near its error, a failed attempt any time since the request began.
    fn same_time(&self, line: &Line, end: bool) -> bool {
        let since = match self.asked {
            Some(asked) if !end => asked,
            _ => self.at,
        };
        line.to.saturating_add(NEAR) >= since && line.from <= self.at.saturating_add(NEAR)
    }
}

/// As far as both were kept.
fn same_request(a: &http::Request, b: &http::Request) -> bool {
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
fn alone(line: &Line, tries: &Tries) -> bool {
    let since = line.read.saturating_sub(LATE);
    let meant = |t: &&Try| t.at >= since && t.at <= line.read.saturating_add(CLOSED) && line.names(&t.attempt.endpoint);
    tries.of_process(line.error.pid.unwrap_or(0)).filter(meant).count() == 1
}

#[derive(Debug, Default)]
pub struct Lines {
    waiting: VecDeque<Line>,
    known: VecDeque<Known>,
    /// How many are known no more: the number of the first one that is.
    gone: u64,
    /// Numbers of the errors that a log told first: hardly any, while each error asks for them.
    logged: VecDeque<u64>,
    #[cfg(test)]
    pub looked_at: u64,
    /// Lines and errors forgotten because there were too many.
    pub overflow: u64,
}

impl Lines {
    /// The error that the line tells again. It will not be found for the same end twice.
    pub fn told_before(&mut self, line: &Line, tries: &Tries) -> Option<(Cookie, u32)> {
        let end = is_end(&line.error);
        let alone = end || alone(line, tries);
        let late = self.known.iter_mut().rev().take_while(|known| known.at.saturating_add(LONG_AGO) >= line.from);
        // Of an attempt, something must agree: it may be another request's, whose error is still to come.
        let late = late.filter(|known| known.readable || alone);
        let fits = late.filter_map(|known| Some((known.fit(line).filter(|fit| end || *fit > 1)?, known)));
        let near = |known: &Known| std::cmp::Reverse(known.at.abs_diff(line.to));
        let (_, known) = fits.max_by_key(|(fit, known)| (*fit, known.asked_where(line), near(known)))?;
        known.learn(line);
        Some(known.key)
    }

    /// Whether the line tells the end of a request that is told otherwise, although nobody can say which one.
    pub fn covered(&mut self, line: &Line) -> bool {
        let (waiting, error) = (&self.waiting, &line.error);
        let mut unseen = self.known.iter_mut().rev().filter(|known| !known.readable && known.same_time(line, true));
        match error.format {
            // After a failed attempt no other upstream was left: one error, in two lines of one connection.
            Format::Nginx => {
                let same = |l: &&Line| l.error.pid == error.pid && l.error.connection == error.connection;
                let attempts: Vec<&Line> = waiting.iter().filter(|l| !is_end(&l.error)).filter(same).collect();
                unseen.any(|known| attempts.iter().any(|attempt| known.tried(attempt)))
            }
            Format::NginxAccess => {
                let told = |l: &Line| l.error.format == Format::Nginx && is_end(&l.error) && l.request == line.request;
                let told = line.request.is_some() && waiting.iter().any(told);
                let ip = |known: &Known| known.client.map(|client| client.ip());
                let fits = |known: &&mut Known| ip(known) == error.client && !known.ends.contains(&error.format);
                told || unseen.find(fits).map(|known| known.ends.push(error.format)).is_some()
            }
            Format::Haproxy | Format::Apache | Format::Caddy => false,
        }
    }

    /// The error that a log told before the wire did.
    pub fn logged_before(&mut self, error: &Known) -> bool {
        let agree = |known: &Known| match (&known.request, &error.request) {
            (Some(a), Some(b)) => same_request(a, b),
            _ => known.client.is_some() && known.client == error.client,
        };
        let same = |known: &Known| {
            known.kind == error.kind
                && (known.pid == error.pid || known.pid == 0)
                && known.at.abs_diff(error.at) <= NEAR
                && !known.differs(known.status, error.status)
                && agree(known)
        };
        while let Some(first) = self.first_logged()
            && first.at.saturating_add(LONG_AGO) < error.at
        {
            self.logged.pop_front();
        }
        for index in 0..self.logged.len() {
            #[cfg(test)]
            (self.looked_at += 1);
            let at = self.logged.get(index).and_then(|number| usize::try_from(number.checked_sub(self.gone)?).ok());
            if at.and_then(|at| self.known.get(at)).is_some_and(same) {
                self.logged.remove(index);
                return true;
            }
        }
        false
    }

    fn first_logged(&self) -> Option<&Known> {
        self.known.get(usize::try_from(self.logged.front()?.checked_sub(self.gone)?).ok()?)
    }

    pub fn remember(&mut self, known: Known) {
        if self.known.len() >= ERRORS {
            self.forget_first();
            self.overflow += 1;
        }
        if known.logged {
            self.logged.push_back(self.gone + self.known.len() as u64);
        }
        self.known.push_back(known);
    }

    fn forget_first(&mut self) {
        self.known.pop_front();
        if self.logged.front() == Some(&self.gone) {
            self.logged.pop_front();
        }
        self.gone += 1;
    }

    pub fn wait(&mut self, line: Line) {
        if self.waiting.len() >= LINES {
            self.waiting.pop_front();
            self.overflow += 1;
        }
        self.waiting.push_back(line);
    }

    /// Takes the lines that tell of this error: all of its attempts, and its end once. The one that says most comes
    /// back.
    pub fn of(&mut self, known: &mut Known, tries: &Tries) -> Option<Line> {
        let end = self.waiting.iter().enumerate().filter(|(_, line)| is_end(&line.error));
        let end = end.filter_map(|(at, line)| Some((known.fit(line)?, at))).max_by_key(|(fit, _)| *fit);
        let end = end.and_then(|(_, at)| self.waiting.remove(at));
        if let Some(end) = &end {
            known.learn(end);
        }
        // An attempt that may be another request's is left for it: the client must agree.
        let attempts = self.waiting.iter().filter(|line| !is_end(&line.error));
        let attempts = attempts.filter(|line| known.fit(line).is_some_and(|fit| fit > 1));
        let mut meant: Vec<Line> = attempts.filter(|line| known.readable || alone(line, tries)).cloned().collect();
        // One connection of its client has one number.
        let likeliest = meant.iter().max_by_key(|line| known.asked_where(line));
        if let Some(connection) = likeliest.and_then(|line| line.error.connection) {
            meant.retain(|line| line.error.connection.is_none_or(|other| other == connection));
        }
        self.waiting.retain(|line| meant.iter().all(|one| one.seq != line.seq));
        meant.iter().for_each(|line| known.learn(line));
        let last = meant.pop();
        match end {
            Some(end) if !matches!(end.error.hint, Hint::StatusOnly) => Some(end),
            end => last.or(end),
        }
    }

    /// The line whose time is up, if it speaks for itself. An access log says only that a request failed: what the
    /// error log said of its attempt comes with it.
    pub fn alone(&mut self, seq: u64) -> Option<Line> {
        let at = self.waiting.iter().position(|line| line.seq == seq && is_end(&line.error))?;
        let line = self.waiting.remove(at)?;
        if line.error.hint != Hint::StatusOnly {
            return Some(line);
        }
        let same = |other: &Line| {
            let request = other.request.is_some()
                && other.request.as_ref().map(http::Request::path) == line.request.as_ref().map(http::Request::path);
            writer(other.error.format) == writer(line.error.format)
                && other.error.client == line.error.client
                && request
                && other.from <= line.to
        };
        let attempt = self.waiting.iter().rposition(same).and_then(|at| self.waiting.remove(at));
        Some(match attempt {
            Some(attempt) => Line { error: LogError { status: line.error.status, ..attempt.error }, ..attempt },
            None => line,
        })
    }

    pub fn expire(&mut self, now: Nanos) {
        let before = now.saturating_sub(MEMORY);
        while self.waiting.front().is_some_and(|line| line.read < before) {
            self.waiting.pop_front();
        }
        while self.known.front().is_some_and(|known| known.at < before) {
            self.forget_first();
        }
    }
}
