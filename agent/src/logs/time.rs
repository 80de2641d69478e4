//! Times as logs write them. Pure: what the local time is ahead of UTC is told by the caller.

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `2026/11/21 07:44:36`, local time. `zone`: seconds east of UTC.
pub fn nginx(text: &str, zone: i32) -> Option<i64> {
    let (date, clock) = text.split_once(' ')?;
    let mut date = date.split('/');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    micros(digits(year)?, digits(month)?, digits(day)?, clock, zone)
}

/// `21/Nov/2026:07:44:42 +0000`, and HAProxy's `21/Nov/2026:07:44:43.759` in local time.
pub fn common(text: &str, zone: i32) -> Option<i64> {
    let (date, rest) = text.split_once(':')?;
    let (clock, zone) = match rest.split_once(' ') {
        Some((clock, written)) => (clock, offset(written)?),
        None => (rest, zone),
    };
    let mut date = date.split('/');
    let (day, month, year) = (date.next()?, date.next()?, date.next()?);
    micros(digits(year)?, named(month)?, digits(day)?, clock, zone)
}

/// `Sat Nov 21 07:44:51.329000 2026`, local time; older versions leave out the fraction.
pub fn apache(text: &str, zone: i32) -> Option<i64> {
    let mut words = text.split_ascii_whitespace().skip(1);
    let (month, day, clock, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    micros(digits(year)?, named(month)?, digits(day)?, clock, zone)
}

fn named(month: &str) -> Option<i64> {
    MONTHS.iter().position(|name| *name == month).map(|at| at as i64 + 1)
}

fn digits(text: &str) -> Option<i64> {
    let plain = (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// `+0530`.
fn offset(text: &str) -> Option<i32> {
    let (sign, number) = (text.get(..1)?, text.get(1..5)?);
    let number = i32::try_from(digits(number)?).ok()?;
    let seconds = number / 100 * 3600 + number % 100 * 60;
    match sign {
        "+" => Some(seconds),
        "-" => Some(-seconds),
        _ => None,
    }
}

/// `clock` is `hh:mm:ss` with a fraction of up to six digits.
fn micros(year: i64, month: i64, day: i64, clock: &str, zone: i32) -> Option<i64> {
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let fraction = digits(fraction)? * 10_i64.pow(6 - fraction.len() as u32);
    let mut parts = clock.split(':');
    let (hour, minute, second) = (digits(parts.next()?)?, digits(parts.next()?)?, digits(parts.next()?)?);
    let sane = (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !sane || parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - i64::from(zone);
    Some(seconds * 1_000_000 + fraction)
}

/// Days since 1970 of a date of the Gregorian calendar, with years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_247_076_000_000;

    #[test]
    fn each_log_writes_the_same_moment_its_own_way() {
        assert_eq!(nginx("2026/11/21 07:44:36", 0), Some(NOON));
        assert_eq!(nginx("2026/11/21 09:44:36", 7200), Some(NOON));
        assert_eq!(common("21/Nov/2026:07:44:36 +0000", 7200), Some(NOON));
        assert_eq!(common("21/Nov/2026:13:14:36 +0530", 0), Some(NOON));
        assert_eq!(common("21/Nov/2026:02:44:36 -0500", 0), Some(NOON));
        assert_eq!(common("21/Nov/2026:07:44:36.759", 0), Some(NOON + 759_000));
        assert_eq!(apache("Sat Nov 21 07:44:36.329001 2026", 0), Some(NOON + 329_001));
        assert_eq!(apache("Sat Nov 21 07:44:36 2026", 0), Some(NOON));
        assert_eq!(nginx("2024/02/29 00:00:00", 0), Some(1_709_164_800_000_000));
        assert_eq!(nginx("1970/01/01 00:00:00", 0), Some(0));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in
            ["", " ", "2026/11/21", "2026/13/01 00:00:00", "x/11/21 07:44:36", "2026/11/21 7", "2026/11/21 24:00:00"]
        {
            assert_eq!(nginx(text, 0), None, "{text}");
        }
        for text in [
            "21/Nov/2026:07:44:36 0000",
            "21/Nix/2026:07:44:36",
            ":",
            "21/Nov/2026:07:44:36.1234567",
            "21/Nov/2026:1:2:3 +é",
        ] {
            assert_eq!(common(text, 0), None, "{text}");
        }
        assert_eq!(apache("Sat Nov 21 07:44 2026", 0), None);
        assert_eq!(apache("Sat Nov 99999999999 07:44:00 2026", 0), None);
    }
}
