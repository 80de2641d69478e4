//! The last lines of a run: how many errors of which cause, how many could be explained, and what was lost.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::correlate::Counters;
use crate::model::Incident;

/// Errors shown, by cause and upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    pub incidents: u64,
    pub attributed: u64,
    pub by_cause: BTreeMap<String, u64>,
    pub by_upstream: BTreeMap<String, BTreeMap<String, u64>>,
    pub why: BTreeMap<String, u64>,
    /// What was lost on the way, by where.
    pub lost: BTreeMap<String, u64>,
}

/// Upstreams beyond these are counted as `other`.
const UPSTREAMS: usize = 200;

impl Summary {
    pub fn add(&mut self, incident: &Incident) {
        self.incidents += 1;
        *self.by_cause.entry(incident.cause.clone()).or_default() += 1;
        match &incident.why {
            None => self.attributed += 1,
            Some(why) => *self.why.entry(why.clone()).or_default() += 1,
        }
        if let Some(upstream) = &incident.upstream {
            let known = self.by_upstream.len() < UPSTREAMS || self.by_upstream.contains_key(&upstream.addr);
            let place = if known { upstream.addr.clone() } else { "other".into() };
            *self.by_upstream.entry(place).or_default().entry(incident.cause.clone()).or_default() += 1;
        }
    }

    /// Something was lost there; nothing is said where nothing was.
    pub fn lose(&mut self, place: &str, count: u64) {
        if count > 0 {
            *self.lost.entry(place.into()).or_default() += count;
        }
    }

    /// What the engine could not keep.
    pub fn counters(&mut self, counters: &Counters) {
        self.lose("kernel records", counters.lost);
        self.lose("attempts that waited", counters.attempts_overflow);
        self.lose("errors that waited", counters.pending_overflow);
        self.lose("remembered facts", counters.memory_overflow + counters.done_overflow);
    }

    /// Causes by count, then by name.
    pub fn ranked(&self) -> Vec<(&str, u64)> {
        let mut causes: Vec<(&str, u64)> = self.by_cause.iter().map(|(cause, n)| (cause.as_str(), *n)).collect();
        causes.sort_by_key(|(cause, n)| (std::cmp::Reverse(*n), *cause));
        causes
    }

    /// For people: a few lines.
    pub fn text(&self) -> String {
        let mut out = match self.incidents {
            0 => "no gateway errors".to_owned(),
            1 => "1 gateway error".to_owned(),
            n => format!("{n} gateway errors"),
        };
        if self.incidents > 0 {
            let percent = 100.0 * self.attributed as f64 / self.incidents as f64;
            out.push_str(&format!(", {} explained ({percent:.1} %)", self.attributed));
        }
        out.push('\n');
        for (cause, n) in self.ranked() {
            let places = self.by_upstream.iter().filter(|(_, causes)| causes.contains_key(cause));
            let mut names: Vec<&str> = places.map(|(place, _)| place.as_str()).collect();
            let more = names.len().saturating_sub(3);
            names.truncate(3);
            let at = if names.is_empty() { String::new() } else { format!("  {}", names.join(", ")) };
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let line = format!("{n:>8}  {cause:<22}{at}{more}");
            out.push_str(line.trim_end());
            out.push('\n');
        }
        for (why, n) in &self.why {
            out.push_str(&format!("{n:>8}  not explained: {}\n", words(why)));
        }
        for (place, n) in &self.lost {
            out.push_str(&format!("{n:>8}  LOST: {place}\n"));
        }
        out
    }
}

/// Why a cause is not known, for people; the word itself is what the record and the metrics have.
fn words(why: &str) -> String {
    let words = match why {
        "own_answer" => "the proxy's own answer, no upstream was asked",
        "no_attempt" => "the proxy answered by itself, no attempt was seen",
        "agent_started_later" => "it began before trace502 did",
        "events_lost" => "kernel records were lost",
        "wire_not_visible" => "encrypted, or not visible to the probes",
        "remote_upstream" => "the upstream is on another host",
        "answered_well" => "the upstream answered well, the proxy made the error",
        "not_understood" => "what was seen proves no cause",
        other => return other.to_owned(),
    };
    format!("{words} ({why})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::fixture::World;

    #[test]
    fn it_counts_by_cause_and_tells_what_was_lost() {
        let mut w = World::new("nginx");
        let a = w.refused();
        w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(502);
        let incident = w.incident();
        let mut alone = World::new("nginx");
        alone.answered(502);
        let mut summary = Summary::default();
        summary.add(&incident);
        summary.add(&incident);
        summary.add(&alone.incident());
        summary.counters(&Counters { lost: 4, ..Counters::default() });
        let expected = "\
3 gateway errors, 2 explained (66.7 %)
       2  no_listener             127.0.0.1:8000
       1  unattributed
       1  not explained: the proxy answered by itself, no attempt was seen (no_attempt)
       4  LOST: kernel records
";
        assert_eq!(summary.text(), expected);
        assert_eq!(Summary::default().text(), "no gateway errors\n");
    }
}
