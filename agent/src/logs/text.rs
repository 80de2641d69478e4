//! Pieces of a log line: bounded, and never more than the line says.

use std::net::IpAddr;

/// Longest name, path or address that is kept.
const KEPT: usize = 1024;

pub fn kept(text: &str) -> String {
    text.chars().take(KEPT).collect()
}

/// What stands between two marks.
pub fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(&rest[..rest.find(end)?])
}

/// A request line `GET /path?query HTTP/1.1`: method, host where the target names one, path.
pub fn request(line: &str) -> (Option<String>, Option<String>, Option<String>) {
    let mut words = line.split(' ');
    let method = words.next().filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase()));
    let Some(method) = method else { return (None, None, None) };
    let target = words.next().unwrap_or_default();
    let (host, target) = match target.split_once("://") {
        Some((scheme, rest)) if scheme == "http" || scheme == "https" => {
            let cut = rest.find('/').unwrap_or(rest.len());
            (Some(kept(&rest[..cut])), &rest[cut..])
        }
        _ => (None, target),
    };
    (Some(kept(method)), host, path(target))
}

/// A target without its query string.
pub fn path(target: &str) -> Option<String> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    (!path.is_empty()).then(|| kept(path))
}

pub fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// `address:port`, `[address]:port`, an IPv6 address without brackets and its port, or an address alone.
pub fn address_and_port(text: &str) -> (Option<IpAddr>, Option<u16>) {
    let split = text.rsplit_once(':').map(|(ip, port)| (ip.trim_start_matches('[').trim_end_matches(']'), port));
    let split = split.and_then(|(ip, port)| Some((address(ip)?, port.parse().ok()?)));
    split.map_or_else(|| (address(text), None), |(ip, port)| (Some(ip), Some(port)))
}

/// The error number of the message that strerror() and Go print.
pub fn errno(message: &str) -> Option<i32> {
    const KNOWN: [(&str, i32); 14] = [
        ("connection refused", libc::ECONNREFUSED),
        ("no route to host", libc::EHOSTUNREACH),
        ("network is unreachable", libc::ENETUNREACH),
        ("connection reset by peer", libc::ECONNRESET),
        ("broken pipe", libc::EPIPE),
        ("connection timed out", libc::ETIMEDOUT),
        ("no such file or directory", libc::ENOENT),
        ("permission denied", libc::EACCES),
        ("operation not permitted", libc::EPERM),
        ("resource temporarily unavailable", libc::EAGAIN),
        ("cannot assign requested address", libc::EADDRNOTAVAIL),
        ("too many open files", libc::EMFILE),
        ("host is down", libc::EHOSTDOWN),
        ("connection aborted", libc::ECONNABORTED),
    ];
    let lower = message.to_ascii_lowercase();
    KNOWN.iter().find(|(text, _)| lower.contains(text)).map(|(_, number)| *number)
}
