//! HAProxy: lines of `option httplog`, as syslog or HAProxy itself writes them.

use super::text::{address_and_port, between, kept, request};
use super::{Format, Hint, LogError, time};

/// `… client:port [date] frontend backend/server Tq/Tw/Tc/Tr/Ta status bytes - - FLAGS conns queues {headers} "request"`
pub fn error(line: &str, zone: i32) -> Option<LogError> {
    // Everything before the date comes from syslog, the configuration and the socket: no client wrote it.
    let start = line.match_indices(" [").map(|(at, _)| at).find(|at| common_date(&line[at + 2..]).is_some())?;
    let (before, rest) = (&line[..start], &line[start + 2..]);
    let (date, rest) = rest.split_once("] ")?;
    let mut words = rest.splitn(11, ' ');
    let mut word = || words.next();
    let (_frontend, server, timers, status) = (word()?, word()?, word()?, word()?);
    let (_bytes, _, _, flags) = (word()?, word()?, word()?, word()?);
    let (_connections, _queues, rest) = (word()?, word()?, word().unwrap_or_default());
    let status: i32 = status.parse().ok()?;
    let hint = hint(flags, server.ends_with("/<NOSRV>"), status)?;
    let mut error = LogError::new(Format::Haproxy, hint);
    error.status = u16::try_from(status).ok().filter(|status| *status >= 100);
    (error.client, error.client_port) = address_and_port(before.rsplit([' ', ']']).next()?.trim_start());
    error.pid = between(before, "haproxy[", "]").and_then(|pid| pid.parse().ok());
    // The date is when the request was accepted; the last timer says how long it took from then on.
    let total = timers.rsplit('/').next().and_then(|last| last.trim_start_matches('+').parse::<i64>().ok());
    let total = total.filter(|total| (0..86_400_000).contains(total)).unwrap_or(0);
    error.time_micros = time::common(date, zone).map(|at| at + total * 1000);
    error.coarse_micros = 2_000;
    error.upstream = (!server.ends_with("/<NOSRV>")).then(|| kept(server));
    // Captured headers come before the request; HAProxy encodes quotes in them.
    let asked = rest.find('"').map(|at| rest[at + 1..].trim_end_matches('"'));
    (error.method, error.host, error.path) = asked.map(request).unwrap_or_default();
    Some(error)
}

fn common_date(text: &str) -> Option<i64> {
    time::common(&text[..text.find(']')?], 0)
}

/// Who ended it, and in which phase. See "Session state at disconnection" in HAProxy's manual.
fn hint(flags: &str, no_server: bool, status: i32) -> Option<Hint> {
    let mut letters = flags.chars();
    let (who, phase) = (letters.next()?, letters.next()?);
    let gateway = matches!(status, 502..=504);
    Some(match (who, phase) {
        ('S', 'C') if no_server => Hint::NoLiveUpstream,
        ('S', 'C') => Hint::Connect { errno: None },
        ('s', 'C') => Hint::ConnectTimeout,
        ('S', 'H') => Hint::Receive { errno: None },
        ('s', 'H') => Hint::ResponseTimeout,
        ('S', 'Q') => Hint::NoLiveUpstream,
        ('s', 'Q') => Hint::QueueTimeout,
        ('P', 'H') if gateway => Hint::InvalidResponse,
        ('P', 'C') | ('R', 'C' | 'Q' | 'H') => Hint::ProxyLimit,
        ('-', '-') if gateway && no_server => return None,
        ('-', '-') if gateway => Hint::PassedOn,
        // The client left, the configuration answered, or the body of an answer that had begun broke off.
        _ => return None,
    })
}
