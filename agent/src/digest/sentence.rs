//! The words for a group of incidents and for places and times: plain text, already harmless.

use super::causes::CauseRow;
use crate::model::{Group, Incident, Process};
use crate::text::safe;
use crate::when::Micros;

/// A process as one would say it: its unit, its container, or its name.
pub fn who(process: &Process) -> String {
    match (&process.unit, process.container_label()) {
        (Some(unit), _) => safe(unit).to_string(),
        (None, Some(container)) => format!("{} in container {}", safe(&process.name), safe(container)),
        (None, None) => safe(&process.name).to_string(),
    }
}

/// Name and pid, and the unit or container where there is one.
pub fn place(process: &Process) -> String {
    let name = safe(&process.name);
    match (&process.unit, process.container_label()) {
        (Some(unit), _) => format!("{name} (pid {}, {})", process.pid, safe(unit)),
        (None, Some(container)) => format!("{name} (pid {}, container {})", process.pid, safe(container)),
        (None, None) => format!("{name} (pid {})", process.pid),
    }
}

/// One sentence that says the answer for the whole row. A process that died again and again is told as such;
/// everything else is best said by its newest incident.
pub fn sentence(row: &CauseRow) -> String {
    let newest = &row.newest;
    if row.key.cause == super::causes::OTHER {
        return "more causes and upstreams than are told apart here; filter to see them".into();
    }
    let lives = row.pids.len();
    let process = newest.upstream.as_ref().and_then(|u| u.process.as_ref());
    match (newest.group, process, died(&row.key.cause)) {
        (Group::Process, Some(process), Some(verb)) if lives > 1 => {
            let at = newest.upstream.as_ref().map_or(String::new(), |u| format!(" on {}", safe(&u.addr)));
            let times = if lives >= 1_000 { "1,000 times or more".into() } else { format!("{lives} times") };
            let detail = detail(newest).map_or(String::new(), |detail| format!("; {detail}"));
            format!("{}{at} {verb} {times} in {}{detail}", who(process), span(row.last - row.first))
        }
        _ => safe(&newest.summary).to_string(),
    }
}

/// What follows the colon of a summary: figures and names, without the story of one request.
fn detail(incident: &Incident) -> Option<String> {
    let (_, detail) = incident.summary.split_once(": ")?;
    Some(format!("last: {}", safe(detail)))
}

fn died(cause: &str) -> Option<&'static str> {
    Some(match cause {
        "upstream_oom_killed" => "was OOM-killed",
        "upstream_crashed" => "crashed",
        "upstream_killed" => "was killed",
        "upstream_exited" => "exited",
        _ => return None,
    })
}

/// A stretch of time in at most two units: `40 s`, `2 min`, `3 h 12 min`.
pub fn span(micros: Micros) -> String {
    let seconds = micros.max(0) / 1_000_000;
    match seconds {
        0 => "under 1 s".into(),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => match seconds / 60 % 60 {
            0 => format!("{} h", seconds / 3_600),
            minutes => format!("{} h {minutes} min", seconds / 3_600),
        },
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Relative to the moment of the error: `-41.21 ms`, `-80 us`, `+3.20 s`.
pub fn relative(t_us: i64) -> String {
    let sign = match t_us {
        0 => return "0".into(),
        t if t < 0 => '-',
        _ => '+',
    };
    let us = t_us.unsigned_abs();
    match us {
        0..1_000 => format!("{sign}{us} us"),
        1_000..1_000_000 => format!("{sign}{}.{:02} ms", us / 1_000, us % 1_000 / 10),
        1_000_000..120_000_000 => format!("{sign}{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
        _ => format!("{sign}{}", span(i64::try_from(us).unwrap_or(i64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::digest::tests::incident;
    use crate::digest::{Causes, Scale};

    const S: Micros = 1_000_000;

    #[test]
    fn deaths_are_told_together() {
        let mut causes = Causes::new(Scale::LIVE);
        for (n, pid) in [812, 812, 901, 950].into_iter().enumerate() {
            let mut one = (*incident("upstream_oom_killed", "127.0.0.1:8000", pid)).clone();
            one.group = Group::Process;
            one.summary = format!("uvicorn (pid {pid}) was OOM-killed 41 ms before: memory cgroup limit 512 MiB");
            causes.add(&Arc::new(one), 1000 * S + n as i64 * 40 * S);
        }
        let row = causes.ranked(1200 * S)[0].clone();
        let said = "shop.service on 127.0.0.1:8000 was OOM-killed 3 times in 2 min; last: memory cgroup limit 512 MiB";
        assert_eq!(sentence(&row), said);
    }

    #[test]
    fn everything_else_is_said_by_the_newest() {
        let mut causes = Causes::new(Scale::LIVE);
        causes.add(&incident("no_listener", "127.0.0.1:9000", 1), 0);
        assert_eq!(sentence(causes.ranked(0)[0]), "no_listener at 127.0.0.1:9000");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(relative(-41_210), "-41.21 ms");
        assert_eq!(relative(-80), "-80 us");
        assert_eq!(relative(3_204_999), "+3.20 s");
        assert_eq!(relative(-600_000_000), "-10 min");
        assert_eq!(relative(i64::MIN), "-106751991 days");
        assert_eq!(span(11_520 * S), "3 h 12 min");
    }
}
