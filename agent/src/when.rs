//! Times and sizes as people write them, and wall clock as the record writes it.
//!
//! Pure except for [`local`], which asks the C library for the time zone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, UTC: wall clock, for people. Order is kept elsewhere.
pub type Micros = i64;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400;

pub fn now_micros() -> Micros {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

/// `30s`, `90m`, `1h30m`, `2 days`. A bare number has no unit and is refused.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let odd = || format!("`{}` is no duration; write 30s, 90m, 1h30m or 7d", text.escape_debug());
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(odd());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count: u64 = rest[..digits].parse().map_err(|_| odd())?;
        rest = rest[digits..].trim_start();
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let millis: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
            "h" | "hour" | "hours" => 3_600_000,
            "d" | "day" | "days" => 86_400_000,
            "w" | "week" | "weeks" => 7 * 86_400_000,
            _ => return Err(odd()),
        };
        rest = rest[letters..].trim_start();
        let part = count.checked_mul(millis).ok_or_else(odd)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(odd)?;
    }
    Ok(total)
}

/// The shortest spelling that [`parse_duration`] reads back as the same.
pub fn show_duration(duration: Duration) -> String {
    let mut left = duration.as_millis();
    let mut text = String::new();
    for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if left >= millis {
            text.push_str(&format!("{}{unit}", left / millis));
            left %= millis;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// `512MiB`, `1GB`, `64k`, `4096`: k, M and G alone mean 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let odd = || format!("`{}` is no size; write 512MiB, 2GiB or 1048576", text.escape_debug());
    let trimmed = text.trim();
    let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let count: u64 = trimmed[..digits].parse().map_err(|_| odd())?;
    let unit: u64 = match trimmed[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(odd()),
    };
    count.checked_mul(unit).ok_or_else(odd)
}

/// The shortest exact spelling.
pub fn show_size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// A point in time as people write it: `1h` (ago), `now`, `today`, `yesterday`, `yesterday 14:30`, `14:30`,
/// `2026-11-21`, `2026-11-21 03:00[:15]`, the same with `T`, `Z` or an offset, `@1763694000`.
/// Without a zone it is local time.
pub fn parse_moment(text: &str, now: Micros) -> Result<Micros, String> {
    let odd = || {
        format!(
            "`{}` is no time; write 1h, 90m, 14:30, today, yesterday, 2026-11-21 or 2026-11-21 03:00",
            text.escape_debug()
        )
    };
    let trimmed = text.trim();
    let lower = trimmed.to_ascii_lowercase();
    let lower = lower.strip_suffix(" ago").unwrap_or(&lower);
    if let Ok(ago) = parse_duration(lower) {
        return now.checked_sub(i64::try_from(ago.as_micros()).map_err(|_| odd())?).ok_or_else(odd);
    }
    if let Some(seconds) = lower.strip_prefix('@') {
        return seconds.parse::<i64>().ok().and_then(|s| s.checked_mul(SECOND)).ok_or_else(odd);
    }
    let today = local(now).date();
    let (day, clock) = match lower.split_once([' ', 't']).filter(|(day, _)| !day.is_empty()) {
        // `today` holds a `t`, too.
        _ if lower == "now" => return Ok(now),
        _ if lower == "today" => (today, "00:00"),
        _ if lower.starts_with("today ") => (today, &lower["today ".len()..]),
        _ if lower == "yesterday" => (days_back(today, 1), "00:00"),
        _ if lower.starts_with("yesterday ") => (days_back(today, 1), &lower["yesterday ".len()..]),
        Some((day, clock)) => (parse_date(day).ok_or_else(odd)?, clock.trim()),
        None if lower.contains('-') => (parse_date(lower).ok_or_else(odd)?, "00:00"),
        None => (today, lower),
    };
    let (clock, zone) = split_zone(clock).ok_or_else(odd)?;
    let (seconds, micros) = parse_clock(clock).ok_or_else(odd)?;
    let at = match zone {
        Some(offset) => days_from_date(day) * DAY + seconds - offset,
        None => from_local(day, seconds).ok_or_else(odd)?,
    };
    at.checked_mul(SECOND).and_then(|at| at.checked_add(micros)).ok_or_else(odd)
}

/// The record's own time format only.
pub fn parse_rfc3339(text: &str) -> Option<Micros> {
    let (day, clock) = text.split_once('T')?;
    let (clock, zone) = split_zone(clock)?;
    let (seconds, micros) = parse_clock(clock)?;
    let at = days_from_date(parse_date(day)?) * DAY + seconds - zone?;
    at.checked_mul(SECOND)?.checked_add(micros)
}

/// UTC with microseconds, as the record has it.
pub fn rfc3339(at: Micros) -> String {
    let (seconds, micros) = (at.div_euclid(SECOND), at.rem_euclid(SECOND));
    let (year, month, day) = date_from_days(seconds.div_euclid(DAY));
    let clock = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

type Date = (i64, i64, i64);

/// Wall clock in the time zone of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    /// Seconds that it is ahead of UTC.
    pub ahead: i64,
}

impl Local {
    fn date(self) -> Date {
        (self.year, self.month, self.day)
    }

    /// `2026-11-21 03:00:15`
    pub fn stamp(self) -> String {
        let Local { year, month, day, hour, minute, second, .. } = self;
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }

    /// `+02:00`, or `UTC`
    pub fn zone(self) -> String {
        let minutes = self.ahead.abs() / 60;
        let sign = if self.ahead < 0 { '-' } else { '+' };
        match minutes {
            0 => "UTC".to_owned(),
            minutes => format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60),
        }
    }
}

/// A record's time as whoever sits at this host reads it, with its zone: `2026-11-21 05:00:00.123 +02:00`. What is no
/// time stays as it is.
pub fn read_here(time: &str) -> String {
    let Some(at) = parse_rfc3339(time) else { return time.to_owned() };
    let local = local(at);
    format!("{}.{:03} {}", local.stamp(), at.rem_euclid(SECOND) / 1_000, local.zone())
}

pub fn local(at: Micros) -> Local {
    let seconds: libc::time_t = at.div_euclid(SECOND);
    // SAFETY: `tm` is plain data for which all zeroes is a value; localtime_r writes only to it.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut tm);
        tm
    };
    Local {
        year: i64::from(tm.tm_year) + 1900,
        month: i64::from(tm.tm_mon) + 1,
        day: i64::from(tm.tm_mday),
        hour: i64::from(tm.tm_hour),
        minute: i64::from(tm.tm_min),
        second: i64::from(tm.tm_sec),
        ahead: tm.tm_gmtoff,
    }
}

fn from_local(day: Date, seconds: i64) -> Option<i64> {
    // SAFETY: `tm` is plain data for which all zeroes is a value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    tm.tm_year = i32::try_from(day.0 - 1900).ok()?;
    tm.tm_mon = i32::try_from(day.1 - 1).ok()?;
    tm.tm_mday = i32::try_from(day.2).ok()?;
    tm.tm_hour = i32::try_from(seconds / 3600).ok()?;
    tm.tm_min = i32::try_from(seconds / 60 % 60).ok()?;
    tm.tm_sec = i32::try_from(seconds % 60).ok()?;
    tm.tm_isdst = -1;
    // SAFETY: mktime reads and normalises the struct that we own.
    Some(unsafe { libc::mktime(&mut tm) })
}

fn days_back(day: Date, count: i64) -> Date {
    date_from_days(days_from_date(day) - count)
}

fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let year = digits(parts.next()?, 4, 4)?;
    let month = digits(parts.next()?, 1, 2)?;
    let day = digits(parts.next()?, 1, 2)?;
    // A day that does not exist comes back as another one.
    (date_from_days(days_from_date((year, month, day))) == (year, month, day)).then_some((year, month, day))
}

/// Seconds of the day and microseconds.
fn parse_clock(text: &str) -> Option<(i64, i64)> {
    let (text, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = text.splitn(3, ':');
    let hour = digits(parts.next()?, 1, 2).filter(|h| *h < 24)?;
    let minute = digits(parts.next()?, 2, 2).filter(|m| *m < 60)?;
    let second = parts.next().map_or(Some(0), |s| digits(s, 2, 2)).filter(|s| *s < 60)?;
    let micros = match fraction {
        "" => 0,
        f => digits(f, 1, 9).map(|_| format!("{f:0<6}")).and_then(|f| f[..6].parse().ok())?,
    };
    Some((hour * 3600 + minute * 60 + second, micros))
}

/// The clock without its zone, and the zone's offset in seconds, if there is one. `None`: it is malformed.
fn split_zone(text: &str) -> Option<(&str, Option<i64>)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock.trim_end(), Some(0)));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, None)) };
    let sign = if text[at..].starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text[at + 1..].split_once(':')?;
    let offset = digits(hours, 2, 2)? * 3600 + digits(minutes, 2, 2)? * 60;
    Some((text[..at].trim_end(), Some(sign * offset)))
}

fn digits(text: &str, least: usize, most: usize) -> Option<i64> {
    let fits = (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// Days since 1970-01-01 in the Gregorian calendar, counted in years that begin in March.
fn days_from_date((year, month, day): Date) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let in_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + in_year - 719_468
}

fn date_from_days(days: i64) -> Date {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let in_era = days.rem_euclid(146_097);
    let of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * of_era + of_era / 4 - of_era / 100);
    let shifted = (5 * in_year + 2) / 153;
    let day = in_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = 1_795_230_000 * SECOND;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, seconds) in [("30s", 30), ("90m", 5400), ("1h30m", 5400), ("7d", 604_800), ("2 days", 172_800)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
            let shown = show_duration(Duration::from_secs(seconds));
            assert_eq!(parse_duration(&shown), Ok(Duration::from_secs(seconds)), "{shown}");
        }
        for odd in ["", "5", "h", "1x", "-1h", "1h-", "99999999999999999999s", "18446744073709551615w", "1é"] {
            assert!(parse_duration(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [("512MiB", 512 << 20), ("1GB", 1_000_000_000), ("64k", 65_536), ("4097", 4097)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }
        for odd in ["", "MiB", "1TB!", "-1", "99999999999999999999G", "17179869184G"] {
            assert!(parse_size(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn the_calendar_survives_a_round_trip() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        for day in (-200_000..200_000).step_by(37) {
            assert_eq!(days_from_date(date_from_days(day)), day);
        }
        for text in ["2026-11-21T03:00:00.123456Z", "2024-02-29T23:59:59.000001Z", "1969-12-31T23:59:59.999999Z"] {
            assert_eq!(rfc3339(parse_rfc3339(text).unwrap()), text);
        }
        for odd in ["2026-02-29T00:00:00Z", "2026-11-21", "2026-11-21T25:00:00Z", "2026-11-21T03:00:00"] {
            assert_eq!(parse_rfc3339(odd), None, "{odd}");
        }
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        let hour = 3600 * SECOND;
        assert_eq!(parse_moment("1h", NOW), Ok(NOW - hour));
        assert_eq!(parse_moment("90 minutes ago", NOW), Ok(NOW - 90 * 60 * SECOND));
        assert_eq!(parse_moment("now", NOW), Ok(NOW));
        assert_eq!(parse_moment("@1795230000", 0), Ok(NOW));
        let exact = parse_rfc3339("2026-11-21T03:00:00Z").unwrap();
        for text in ["2026-11-21T03:00Z", "2026-11-21 03:00Z", "2026-11-21 05:00+02:00", "2026-11-21t03:00:00.000z"] {
            assert_eq!(parse_moment(text, NOW), Ok(exact), "{text}");
        }
        for odd in ["", "soon", "2026-13-01", "2026-11-21 25:00", "12", "14:3", "today 99:00", "2026-11-21 3pm", "é-t"]
        {
            assert!(parse_moment(odd, NOW).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_time_that_is_read_here_says_its_zone_and_is_understood_again() {
        let shown = read_here("2026-11-21T03:00:00.123456Z");
        let again = shown.replace(" UTC", "Z").replace(" +", "+").replace(" -", "-");
        assert_eq!(parse_moment(&again, NOW), Ok(parse_rfc3339("2026-11-21T03:00:00.123Z").unwrap()), "{shown}");
        assert_eq!(read_here("long ago"), "long ago");
        let at = |ahead| Local { ahead, ..local(NOW) }.zone();
        assert_eq!([at(0), at(19_800), at(-12_600)], ["UTC", "+05:30", "-03:30"]);
    }

    #[test]
    fn without_a_zone_it_is_local_time() {
        let at = parse_moment("2026-11-21 03:00:15", NOW).unwrap();
        assert_eq!(local(at).stamp(), "2026-11-21 03:00:15");
        let today = local(parse_moment("today", NOW).unwrap());
        assert_eq!((today.date(), today.hour, today.minute), (local(NOW).date(), 0, 0));
        let yesterday = local(parse_moment("yesterday 14:30", NOW).unwrap());
        assert_eq!(yesterday.date(), days_back(local(NOW).date(), 1));
        assert_eq!((yesterday.hour, yesterday.minute), (14, 30));
        assert_eq!(local(parse_moment("14:30", NOW).unwrap()).date(), local(NOW).date());
    }
}
