//! Words and figures for people: bytes made harmless, durations, sizes, times, names of errnos and signals.
//!
//! Pure functions. Whatever comes off the wire or from a process passes through [`safe`] or
//! [`safe_bytes`] before it is put into a sentence, so that no terminal, label or page sees it raw.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use crate::model::Nanos;

pub const MILLI: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000_000_000;

/// Longest text that is taken from outside into a sentence.
pub const LONGEST: usize = 120;

/// Escapes everything that could steer a terminal or reorder text. Safe text comes back as it was, so
/// escaping twice changes nothing.
pub fn safe(text: &str) -> Cow<'_, str> {
    if plain(text) || !text.chars().any(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if !harmful(c) => out.push(c),
            c if (c as u32) < 0x100 => put(&mut out, format_args!("\\x{:02x}", c as u32)),
            c => put(&mut out, format_args!("\\u{{{:x}}}", c as u32)),
        }
    }
    Cow::Owned(out)
}

/// Nothing but printable ASCII, as nearly all is: looked at without taking it for characters.
fn plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Controls, bidirectional overrides, invisible and tag characters.
fn harmful(c: char) -> bool {
    c.is_control()
        || matches!(c as u32,
            0x00ad | 0x061c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
            | 0xfe00..=0xfe0f | 0xfeff | 0xfff0..=0xfffb | 0xe0000..=0xe0fff)
}

/// [`safe`] and no longer than `max` characters.
pub fn clipped(text: &str, max: usize) -> String {
    let text = safe(text);
    // As many characters as bytes at most.
    if text.len() <= max || text.chars().count() <= max {
        return text.into_owned();
    }
    let mut out: String = text.chars().take(max.saturating_sub(3)).collect();
    out.push_str("...");
    out
}

/// Bytes of any kind: printable ASCII as it is, the rest as `\xNN`, at most `max` of them.
pub fn safe_bytes(bytes: &[u8], max: usize) -> String {
    if bytes.len() <= max
        && let Some(text) = str::from_utf8(bytes).ok().filter(|text| plain(text))
    {
        return text.to_owned();
    }
    let mut out = String::with_capacity(max.min(bytes.len()) + 8);
    for &b in bytes.iter().take(max) {
        match b {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b' '..=b'~' => out.push(b as char),
            b => put(&mut out, format_args!("\\x{b:02x}")),
        }
    }
    if bytes.len() > max {
        out.push_str("...");
    }
    out
}

/// A sentence with what was filled in. Room for one from the start: most are this long, and growing there in steps is
/// what one costs most.
pub fn sentence(args: fmt::Arguments<'_>) -> String {
    let mut out = String::with_capacity(SENTENCE);
    put(&mut out, args);
    out
}

const SENTENCE: usize = 80;

/// An address as the standard library writes it, only sooner: that one prepares for padding which nobody asks for, and
/// an error names its upstream ten times.
pub struct Address<'a>(pub &'a SocketAddr);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SocketAddr::V4(addr) = self.0 else { return self.0.fmt(f) };
        let mut room = [0; "255.255.255.255:65535".len()];
        let mut len = 0;
        for (part, after) in addr.ip().octets().into_iter().zip(*b"...:") {
            len = decimal(&mut room, len, part.into());
            room[len] = after;
            len += 1;
        }
        len = decimal(&mut room, len, addr.port());
        f.write_str(str::from_utf8(&room[..len]).map_err(|_| fmt::Error)?)
    }
}

/// Writes a number at this place; returns where it ends.
fn decimal(room: &mut [u8], at: usize, number: u16) -> usize {
    let len = number.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut rest = number;
    for place in room[at..at + len].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    at + len
}

/// Writing to a `String` cannot fail.
fn put(out: &mut String, args: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(args);
}

/// `80 us`, `41 ms`, `1.2 s`, `3 min`.
pub fn duration(ns: Nanos) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..MILLI => format!("{} us", ns / 1_000),
        MILLI..10_000_000 => tenths(ns, MILLI, "ms"),
        10_000_000..SECOND => format!("{} ms", ns / MILLI),
        SECOND..100_000_000_000 => tenths(ns, SECOND, "s"),
        100_000_000_000..HOUR => two(ns, MINUTE, "min", SECOND, "s"),
        HOUR..DAY => two(ns, HOUR, "h", MINUTE, "min"),
        _ => two(ns, DAY, "d", HOUR, "h"),
    }
}

const MINUTE: Nanos = 60 * SECOND;
const HOUR: Nanos = 60 * MINUTE;
const DAY: Nanos = 24 * HOUR;

/// `1 min 50 s`, `4 h`.
fn two(ns: Nanos, large: Nanos, its_word: &str, small: Nanos, word: &str) -> String {
    match ns % large / small {
        0 => format!("{} {its_word}", ns / large),
        rest => format!("{} {its_word} {rest} {word}", ns / large),
    }
}

fn tenths(ns: Nanos, unit: Nanos, word: &str) -> String {
    let tenths = ns / (unit / 10);
    match tenths % 10 {
        0 => format!("{} {word}", tenths / 10),
        rest => format!("{}.{rest} {word}", tenths / 10),
    }
}

/// `512 B`, `63.8 MiB`, `4 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scale = 1024_u64;
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    let tenths = u128::from(bytes) * 10 / u128::from(scale);
    match tenths % 10 {
        0 => format!("{} {}", tenths / 10, UNITS[unit]),
        rest => format!("{}.{rest} {}", tenths / 10, UNITS[unit]),
    }
}

/// `1 byte`, `3 bytes`.
pub fn count(n: u64, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    }
}

/// RFC 3339 in UTC with microseconds, from microseconds since 1970.
pub fn rfc3339(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let micros = micros.rem_euclid(1_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from days since 1970, eras of 400 years beginning on 1 March.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    if !(0..10_000).contains(&year) {
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        return format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
    }
    let mut out = *b"0000-00-00T00:00:00.000000Z";
    let fields = [(0, 4, year), (5, 2, month), (8, 2, day), (11, 2, rest / 3600), (14, 2, rest / 60 % 60)];
    for (at, len, number) in fields.into_iter().chain([(17, 2, rest % 60), (20, 6, micros)]) {
        let mut left = number;
        for place in out[at..at + len].iter_mut().rev() {
            *place = b'0' + (left % 10) as u8;
            left /= 10;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `ECONNREFUSED`, or `errno 200` where it has no name here.
pub fn errno(number: i32) -> String {
    let name = match number {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::ENOTDIR => "ENOTDIR",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::EPIPE => "EPIPE",
        libc::EPROTOTYPE => "EPROTOTYPE",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::ECONNRESET => "ECONNRESET",
        libc::ENOBUFS => "ENOBUFS",
        libc::ENOTCONN => "ENOTCONN",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ENOTSOCK => "ENOTSOCK",
        libc::EPROTO => "EPROTO",
        _ => return format!("errno {number}"),
    };
    name.into()
}

/// `SIGSEGV`, or `signal 40`.
pub fn signal(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    match usize::try_from(number).ok().and_then(|n| NAMES.get(n.wrapping_sub(1))) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences_and_reordering_marks_are_escaped_once() {
        let hostile = "a\x1b[2J\u{9b}31m\u{202e}\u{200b}\u{e0041}\n\u{7f}b";
        let shown = safe(hostile).into_owned();
        assert_eq!(shown, "a\\x1b[2J\\x9b31m\\u{202e}\\u{200b}\\u{e0041}\\n\\x7fb");
        assert_eq!(safe(&shown), shown);
        assert_eq!(safe("grüße 東京"), "grüße 東京");
        assert_eq!(safe_bytes(b"SSH-2.0\r\n\x00\xff", 40), "SSH-2.0\\r\\n\\x00\\xff");
        assert_eq!(safe_bytes(b"abcdef", 3), "abc...");
        assert_eq!(clipped("abcdef", 5), "ab...");
    }

    #[test]
    fn figures_read_as_people_write_them() {
        assert_eq!(duration(80_400), "80 us");
        assert_eq!(duration(41_210_000), "41 ms");
        assert_eq!(duration(1_250_000_000), "1.2 s");
        assert_eq!(duration(60_000_000_000), "60 s");
        assert_eq!(duration(240_000_000_000), "4 min");
        assert_eq!(duration(110 * SECOND), "1 min 50 s");
        assert_eq!(duration(75 * MINUTE), "1 h 15 min");
        assert_eq!(duration(50 * HOUR), "2 d 2 h");
        assert_eq!(size(64 << 20), "64 MiB");
        assert_eq!(size(66_899_149), "63.8 MiB");
        assert_eq!(size(100), "100 B");
        assert_eq!(size(u64::MAX), "16383.9 PiB");
    }

    #[test]
    fn an_address_reads_as_everywhere_else() {
        for addr in ["127.0.0.1:80", "255.255.255.255:65535", "0.0.0.0:0", "10.20.30.9:1000", "[2001:db8::1]:443"] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(Address(&addr).to_string(), addr.to_string());
        }
    }

    #[test]
    fn wall_clock_is_rfc3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(1_795_230_000_123_456), "2026-11-21T03:00:00.123456Z");
        assert_eq!(rfc3339(951_782_399_999_999), "2000-02-28T23:59:59.999999Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn names_of_errnos_and_signals() {
        assert_eq!(errno(111), "ECONNREFUSED");
        assert_eq!(errno(9999), "errno 9999");
        assert_eq!(signal(11), "SIGSEGV");
        assert_eq!(signal(31), "SIGSYS");
        assert_eq!(signal(0), "signal 0");
        assert_eq!(signal(64), "signal 64");
    }
}
