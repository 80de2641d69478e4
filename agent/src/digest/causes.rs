//! Incidents counted by cause and upstream, one at a time, in bounded space.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::series::{Scale, Series};
use crate::model::Incident;
use crate::when::Micros;

/// Pairs of cause and upstream told apart; the rest is counted together.
const ROWS: usize = 256;
/// Processes remembered for each.
const PIDS: usize = 1_000;
/// A cause that was not seen for this long ranks below those that were.
const QUIET: Micros = 300_000_000;
/// The name of everything past the caps, as in the metrics.
pub const OTHER: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CauseKey {
    pub cause: String,
    /// `None`: no upstream was in play.
    pub upstream: Option<String>,
}

impl CauseKey {
    pub fn of(incident: &Incident) -> CauseKey {
        CauseKey { cause: incident.cause.clone(), upstream: incident.upstream.as_ref().map(|u| u.addr.clone()) }
    }
}

#[derive(Clone, Debug)]
pub struct CauseRow {
    pub key: CauseKey,
    pub count: u64,
    pub first: Micros,
    pub last: Micros,
    pub series: Series,
    pub newest: Arc<Incident>,
    /// Upstream processes, one for each life.
    pub pids: BTreeSet<u32>,
}

/// How the last minute compares with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    New,
    Rising,
    Steady,
    Falling,
    /// Nothing for this long.
    Quiet(Micros),
}

impl CauseRow {
    pub fn trend(&self, now: Micros) -> Trend {
        const MINUTE: Micros = 60_000_000;
        let silent = now.saturating_sub(self.last);
        if silent > MINUTE {
            return Trend::Quiet(silent);
        }
        if now.saturating_sub(self.first) < MINUTE {
            return Trend::New;
        }
        // Twelve whole slices of five seconds each, without the one that is still filling.
        let slices = self.series.columns(now, 25, 1);
        let (before, after) = (slices[..12].iter().sum::<u64>(), slices[12..24].iter().sum::<u64>());
        match (before, after) {
            (b, a) if a * 4 > b * 5 => Trend::Rising,
            (b, a) if a * 5 < b * 4 => Trend::Falling,
            _ => Trend::Steady,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Causes {
    scale: Scale,
    rows: HashMap<CauseKey, CauseRow>,
}

impl Causes {
    pub fn new(scale: Scale) -> Causes {
        Causes { scale, rows: HashMap::new() }
    }

    pub fn add(&mut self, incident: &Arc<Incident>, at: Micros) {
        let mut key = CauseKey::of(incident);
        if self.rows.len() >= ROWS && !self.rows.contains_key(&key) {
            key = CauseKey { cause: OTHER.into(), upstream: Some(OTHER.into()) };
        }
        let scale = self.scale;
        let row = self.rows.entry(key).or_insert_with_key(|key| CauseRow {
            key: key.clone(),
            count: 0,
            first: at,
            last: at,
            series: Series::new(scale.coarse, Scale::COARSE),
            newest: Arc::clone(incident),
            pids: BTreeSet::new(),
        });
        row.count += 1;
        row.first = row.first.min(at);
        if at >= row.last {
            row.last = at;
            row.newest = Arc::clone(incident);
        }
        row.series.add(at);
        let process = incident.upstream.as_ref().and_then(|u| u.process.as_ref());
        if let Some(process) = process.filter(|_| row.pids.len() < PIDS) {
            row.pids.insert(process.pid);
        }
    }

    /// Most frequent first; those that went quiet come last.
    pub fn ranked(&self, now: Micros) -> Vec<&CauseRow> {
        let mut rows: Vec<&CauseRow> = self.rows.values().collect();
        let quiet = |row: &CauseRow| now.saturating_sub(row.last) > QUIET;
        rows.sort_by(|a, b| (quiet(a), b.count, &a.key).cmp(&(quiet(b), a.count, &b.key)));
        rows
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tests::incident;

    const S: Micros = 1_000_000;

    #[test]
    fn rows_are_ranked_and_bounded() {
        let mut causes = Causes::new(Scale::LIVE);
        for n in 0..3 {
            causes.add(&incident("no_listener", "127.0.0.1:9000", n), 1000 * S);
        }
        causes.add(&incident("upstream_reset", "127.0.0.1:8000", 0), 1001 * S);
        let ranked: Vec<_> = causes.ranked(1001 * S).iter().map(|r| (r.key.cause.clone(), r.count)).collect();
        assert_eq!(ranked, [("no_listener".to_owned(), 3), ("upstream_reset".to_owned(), 1)]);
        // Ten minutes later only the rarer one still happens.
        causes.add(&incident("upstream_reset", "127.0.0.1:8000", 0), 1600 * S);
        assert_eq!(causes.ranked(1600 * S)[0].key.cause, "upstream_reset");
        for port in 0..2000 {
            causes.add(&incident("syn_timeout", &format!("10.0.0.1:{port}"), 0), 1601 * S);
        }
        assert_eq!(causes.len(), ROWS + 1);
        let total: u64 = causes.ranked(1601 * S).iter().map(|r| r.count).sum();
        assert_eq!(total, 2005, "past the cap they are still counted");
    }

    #[test]
    fn trends_compare_two_minutes() {
        let mut row = Causes::new(Scale::LIVE);
        let add = |causes: &mut Causes, at: i64| causes.add(&incident("x", "y", 1), at * S);
        add(&mut row, 1000);
        assert_eq!(row.ranked(1030 * S)[0].trend(1030 * S), Trend::New);
        for at in 1000..1120 {
            add(&mut row, at);
        }
        assert_eq!(row.ranked(1120 * S)[0].trend(1120 * S), Trend::Steady);
        for at in 1120..1180 {
            for _ in 0..3 {
                add(&mut row, at);
            }
        }
        assert_eq!(row.ranked(1180 * S)[0].trend(1180 * S), Trend::Rising);
        assert_eq!(row.ranked(1235 * S)[0].trend(1235 * S), Trend::Falling);
        assert_eq!(row.ranked(1279 * S)[0].trend(1279 * S), Trend::Quiet(100 * S));
    }
}
