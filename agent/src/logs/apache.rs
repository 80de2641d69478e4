//! Apache: lines of its ErrorLog. One failure is told in up to four lines of one thread; see the parser.

use super::text::{address_and_port, between, kept, path};
use super::{Format, Hint, LogError, time};

/// What one line adds.
pub enum Part {
    /// Why an attempt failed. The line that ends the request follows.
    Attempt(LogError),
    /// The request ended; what the lines before it said counts for it.
    End(LogError),
}

/// `[date] [module:level] [pid N:tid N] (code)text: [client address] AHnnnnn: message`
pub fn part(line: &str, zone: i32) -> Option<Part> {
    let (date, rest) = line.strip_prefix('[')?.split_once("] [")?;
    let (_module, rest) = rest.split_once("] [pid ")?;
    let (ids, rest) = rest.split_once("] ")?;
    let (pid, tid) = ids.split_once(":tid ").unwrap_or((ids, ids));
    let (before, code, message) = code(rest)?;
    // What the system said stands in front: `(111)Connection refused: `, `(70007)The timeout …`.
    let number = before.strip_prefix('(').and_then(|text| text.split_once(')')).map(|(number, _)| number);
    let timeout = number == Some("70007");
    let errno = || number.and_then(|number| number.parse::<i32>().ok()).filter(|number| *number < 1000);
    let ended = number == Some("70014") || number == Some("20014");
    let broke = || if ended { Hint::ClosedEarly } else { Hint::Receive { errno: errno() } };
    let (attempt, hint, status) = match code {
        957 | 2454 if timeout => (true, Hint::ConnectTimeout, 503),
        957 | 2454 => (true, Hint::Connect { errno: errno() }, 503),
        1102 | 10404 if timeout => (true, Hint::ResponseTimeout, 502),
        1102 | 10404 => (true, broke(), 502),
        10124 => (true, Hint::HeaderTooBig, 502),
        2039 => (true, Hint::TlsVerify, 500),
        1084 => (true, Hint::Send { errno: errno() }, 502),
        1067 => (true, Hint::ClosedEarly, 503),
        1114 | 1079 => (false, Hint::Connect { errno: None }, 503),
        1106 => (false, Hint::InvalidResponse, 502),
        1075 if timeout => (false, Hint::ResponseTimeout, 504),
        1075 => (false, broke(), 503),
        898 if message.starts_with("DNS lookup failure for: ") => {
            let name = between(message, "for: ", " returned by").unwrap_or_default();
            (false, Hint::Unresolved { name: kept(name) }, 500)
        }
        898 if message.starts_with("Error during SSL Handshake") => (false, Hint::TlsHandshake, 500),
        898 => (false, Hint::Other, 502),
        _ => return None,
    };
    let mut error = LogError::new(Format::Apache, hint);
    error.time_micros = time::apache(date, zone);
    (error.pid, error.tid) = (pid.parse().ok(), tid.parse().ok());
    error.status = Some(status);
    (error.client, error.client_port) = between(before, "[client ", "]").map(address_and_port).unwrap_or_default();
    error.upstream = upstream(before, code, message);
    // What follows is the target as the client sent it.
    error.path = message.rsplit_once(" returned by ").and_then(|(_, target)| {
        // AH01106 ends with the method.
        let target = target.split(" (").next().unwrap_or(target);
        path(target)
    });
    error.method = (code == 1106)
        .then(|| message.rsplit_once(" ("))
        .flatten()
        .map(|(_, method)| kept(method.trim_end_matches(')')));
    Some(if attempt { Part::Attempt(error) } else { Part::End(error) })
}

/// What stands before `AHnnnnn: `, the number, and what stands behind it.
fn code(rest: &str) -> Option<(&str, u32, &str)> {
    rest.match_indices("AH").find_map(|(at, _)| {
        let number = rest.get(at + 2..at + 7)?.parse().ok()?;
        let message = rest.get(at + 7..)?.strip_prefix(": ")?;
        Some((&rest[..at], number, message))
    })
}

fn upstream(before: &str, code: u32, message: &str) -> Option<String> {
    let text = match code {
        957 => between(message, "attempt to connect to ", " ")?,
        2454 => return Some(kept(&format!("unix:{}", between(message, "Unix domain socket ", " (")?))),
        1102 => message.rsplit(' ').next()?,
        1084 => between(message, "failed to ", " ")?,
        2039 => between(before, "[remote ", "]")?,
        _ => return None,
    };
    text.contains(':').then(|| kept(text))
}

/// Joins what the lines of one request say: the attempt knows the cause, the end knows the client.
pub fn join(attempt: Option<LogError>, end: LogError) -> LogError {
    let Some(attempt) = attempt else { return end };
    // A certificate that was refused shows as a failed handshake, a header that is too big as a bad one.
    let hint = match (&end.hint, attempt.hint) {
        (Hint::TlsHandshake, Hint::Send { .. }) => Hint::TlsHandshake,
        (Hint::Unresolved { .. }, _) => return end,
        (_, hint) => hint,
    };
    LogError { upstream: end.upstream.or(attempt.upstream), hint, ..end }
}
