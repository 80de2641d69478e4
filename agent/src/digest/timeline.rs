//! One incident's attempts and evidence on one axis of time, to scale.
//!
//! An attempt says how long its parts took; evidence says when the last one began and when earlier ones failed. What
//! evidence does not tell is laid end to end, since a proxy retries as soon as an attempt failed.

use crate::model::{AttemptSummary, Incident};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Connect,
    /// The request is out, the answer is not in.
    Wait,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Index into the incident's attempts.
    pub attempt: usize,
    /// Part, from, to; microseconds relative to the error.
    pub parts: Vec<(Part, i64, i64)>,
    pub end: i64,
    /// How it ended, in a word.
    pub ended: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// Where the axis begins and ends; it always holds 0, the error.
    pub from: i64,
    pub to: i64,
    pub tracks: Vec<Track>,
    /// Indices of evidence on the axis, and of what lies before it.
    pub marks: Vec<usize>,
    pub earlier: Vec<usize>,
}

impl Timeline {
    /// Position of a moment on an axis of this many steps.
    pub fn position(&self, t_us: i64, steps: usize) -> usize {
        let span = (self.to - self.from).max(1) as f64;
        let at = t_us.saturating_sub(self.from).clamp(0, self.to - self.from) as f64;
        (at / span * steps as f64).round() as usize
    }
}

/// Evidence that was looked for and not seen: it has no place in time.
pub const MISSING: &str = "missing";

/// Evidence that says nothing of when the last attempt failed.
const LATER: [&str; 2] = ["error_sent", EARLIER];
/// Evidence of when an attempt before the last one failed.
const EARLIER: &str = "earlier_attempt";

/// Longest time that is believed; beyond, a record is damaged.
const LONGEST: i64 = 1 << 50;

pub fn timeline(incident: &Incident) -> Timeline {
    let times: Vec<i64> = incident.evidence.iter().map(|e| e.t_us.clamp(-LONGEST, LONGEST)).collect();
    let seen: Vec<usize> = (0..times.len()).filter(|i| incident.evidence[*i].kind != MISSING).collect();
    let moments = || seen.iter().map(|i| times[*i]);
    let last = seen.iter().filter(|i| !LATER.contains(&incident.evidence[**i].kind.as_str()));
    let last = last.map(|i| times[*i]).filter(|t| *t <= 0).max().unwrap_or(0);
    let mut tracks = tracks(incident, last);
    let begin = tracks.iter().flat_map(|t| t.parts.iter()).map(|(_, from, _)| *from).min().unwrap_or(last);
    // A death two minutes ago must not squeeze an attempt of two milliseconds into one column: what lies
    // further back than three times the attempts' own length is named, not drawn.
    let reach = match begin {
        0 => moments().min().unwrap_or(0),
        begin => begin.saturating_mul(4),
    };
    let from = moments().filter(|t| *t >= reach).min().unwrap_or(begin).min(begin).min(0);
    let to = moments().max().unwrap_or(0).max(0);
    let (marks, earlier) = seen.iter().copied().partition(|i| times[*i] >= from);
    tracks.reverse();
    Timeline { from, to, tracks, marks, earlier }
}

/// Newest first.
fn tracks(incident: &Incident, last: i64) -> Vec<Track> {
    let of = |kind: &str| -> Vec<i64> {
        let times = incident.evidence.iter().filter(|e| e.kind == kind).map(|e| e.t_us.clamp(-LONGEST, LONGEST));
        times.collect()
    };
    let mut failed = of(EARLIER);
    failed.sort_unstable();
    let all_known = failed.len() + 1 == incident.attempts.len();
    let mut end = last;
    let mut tracks = Vec::new();
    for (index, attempt) in incident.attempts.iter().enumerate().rev() {
        let newest = index + 1 == incident.attempts.len();
        if !newest && all_known {
            end = failed[index].min(end);
        }
        let known = |kind| of(kind).into_iter().rfind(|t| newest && *t <= end);
        let parts = parts(attempt, end, known("connect"), known("request_sent"));
        let begin = parts.first().map_or(end, |(_, from, _)| *from);
        tracks.push(Track { attempt: index, parts, end, ended: ended(&attempt.cause) });
        end = begin;
    }
    tracks
}

/// Connecting and waiting, up to `end`; where evidence tells when they began, from there.
fn parts(attempt: &AttemptSummary, end: i64, dialled: Option<i64>, asked: Option<i64>) -> Vec<(Part, i64, i64)> {
    let back = |from: i64, took: u64| from.saturating_sub(i64::try_from(took).unwrap_or(LONGEST)).max(-LONGEST);
    let waited = attempt.wait_us.map(|took| asked.unwrap_or_else(|| back(end, took)));
    let connected = waited.unwrap_or(end);
    let connecting = match (attempt.connect_us, dialled) {
        (Some(took), Some(from)) => Some((from, from.saturating_add(i64::try_from(took).unwrap_or(LONGEST)))),
        (Some(took), None) => Some((back(connected, took), connected)),
        // It never was connected: it tried until it failed.
        (None, Some(from)) if attempt.wait_us.is_none() && !attempt.reused => Some((from, end)),
        (None, _) => None,
    };
    let connecting = connecting.map(|(from, to)| (Part::Connect, from, to.min(connected).max(from)));
    connecting.into_iter().chain(waited.map(|from| (Part::Wait, from, end))).collect()
}

fn ended(cause: &str) -> &'static str {
    match cause {
        "no_listener" | "wrong_interface" | "firewall_reject" | "refused_remote" => "refused",
        "firewall_drop" | "syn_timeout" | "never_accepted" | "request_not_read" | "response_timeout" => "gave up",
        "send_timeout" | "accept_queue_full" => "gave up",
        "upstream_reset" | "stale_connection" => "reset",
        "upstream_closed_early" | "keepalive_race" | "response_truncated" => "closed",
        "upstream_oom_killed" | "upstream_crashed" | "upstream_killed" | "upstream_exited" => "broke off",
        "invalid_response" | "header_too_big" | "tls_mismatch" | "h2_mismatch" | "upstream_error" => "bad answer",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tests::incident;
    use crate::model::Evidence;

    fn attempt(connect: Option<u64>, wait: Option<u64>) -> AttemptSummary {
        let (upstream, cause) = ("127.0.0.1:1".into(), "upstream_reset".into());
        AttemptSummary { upstream, cause, reused: false, connect_us: connect, wait_us: wait, bytes: 0 }
    }

    #[test]
    fn attempts_lie_end_to_end_before_the_error() {
        let mut one = (*incident("upstream_reset", "127.0.0.1:1", 1)).clone();
        one.attempts = vec![attempt(Some(100), Some(900)), attempt(None, Some(500))];
        one.evidence =
            [-9_000_000, -1_400, -80].map(|t_us| Evidence { t_us, kind: String::new(), text: String::new() }).to_vec();
        let line = timeline(&one);
        assert_eq!(line.tracks[0].parts, [(Part::Connect, -1_580, -1_480), (Part::Wait, -1_480, -580)]);
        assert_eq!(line.tracks[1].parts, [(Part::Wait, -580, -80)]);
        assert_eq!((line.from, line.to), (-1_580, 0));
        assert_eq!((line.marks.clone(), line.earlier.clone()), (vec![1, 2], vec![0]));
        assert_eq!((line.position(-1_580, 40), line.position(0, 40), line.position(-790, 40)), (0, 40, 20));
    }

    #[test]
    fn evidence_says_where_attempts_lie() {
        let seen = |t_us, kind: &str| Evidence { t_us, kind: kind.into(), text: String::new() };
        let mut one = (*incident("no_listener", "127.0.0.1:1", 1)).clone();
        one.attempts = vec![attempt(Some(50), Some(100)), attempt(None, None)];
        one.evidence = vec![
            seen(-900, "earlier_attempt"),
            seen(-204, "connect"),
            seen(-139, "rst_received"),
            seen(-49, "errno"),
            seen(0, "error_sent"),
        ];
        let line = timeline(&one);
        assert_eq!(line.tracks[0].parts, [(Part::Connect, -1_050, -1_000), (Part::Wait, -1_000, -900)]);
        assert_eq!(line.tracks[1].parts, [(Part::Connect, -204, -49)]);
        one.attempts = vec![attempt(Some(20), Some(120))];
        one.evidence[3] = seen(-170, "request_sent");
        one.evidence.remove(0);
        let parts = [(Part::Connect, -204, -184), (Part::Wait, -170, -139)];
        assert_eq!(timeline(&one).tracks[0].parts, parts);
    }

    #[test]
    fn absurd_times_do_not_overflow() {
        let mut one = (*incident("x", "y", 1)).clone();
        one.attempts = vec![attempt(Some(u64::MAX), Some(u64::MAX)); 3];
        one.evidence =
            [i64::MIN, i64::MAX, 0].map(|t_us| Evidence { t_us, kind: String::new(), text: String::new() }).to_vec();
        let line = timeline(&one);
        assert!(line.from <= 0 && line.to >= 0);
        assert!(line.position(i64::MIN, 10) <= 10 && line.position(i64::MAX, 10) <= 10);
        one.attempts.clear();
        one.evidence.clear();
        assert_eq!((timeline(&one).from, timeline(&one).to), (0, 0));
    }
}
