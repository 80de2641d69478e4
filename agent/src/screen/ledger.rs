//! The incidents kept and what was counted of them: bounded, one at a time, whatever the rate.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::query::Query;
use crate::digest::{Causes, Scale, Series};
use crate::model::{Confidence, Incident};
use crate::when::{Micros, parse_rfc3339};

/// Incidents kept to look at; older ones stay counted.
pub const KEPT: usize = 10_000;

#[derive(Clone, Debug)]
pub struct Entry {
    /// Order of arrival, from 1; never reused.
    pub seq: u64,
    pub at: Micros,
    pub incident: Arc<Incident>,
}

/// What the filter lets through: a list and its causes.
#[derive(Clone, Debug)]
pub struct Page {
    /// Oldest first.
    pub entries: VecDeque<Entry>,
    pub causes: Causes,
    /// Matching incidents, with those no longer kept.
    pub count: u64,
}

impl Page {
    fn new(scale: Scale) -> Page {
        Page { entries: VecDeque::new(), causes: Causes::new(scale), count: 0 }
    }

    fn add(&mut self, entry: Entry) {
        self.causes.add(&entry.incident, entry.at);
        self.count += 1;
        self.entries.push_back(entry);
    }

    /// Place of this entry counted from the newest, or of the nearest one that is kept.
    pub fn row_of(&self, seq: u64) -> usize {
        let after = self.entries.len() - self.entries.partition_point(|e| e.seq <= seq);
        after.min(self.entries.len().saturating_sub(1))
    }

    /// Counted from the newest.
    pub fn row(&self, row: usize) -> Option<&Entry> {
        self.entries.len().checked_sub(row + 1).and_then(|i| self.entries.get(i))
    }
}

#[derive(Debug)]
pub struct Ledger {
    scale: Scale,
    kept: VecDeque<Entry>,
    next: u64,
    page: Page,
    query: Query,
    pub series: Series,
    pub total: u64,
    pub certain: u64,
    pub likely: u64,
    /// Words of the statuses seen.
    pub statuses: BTreeSet<String>,
}

impl Ledger {
    pub fn new(scale: Scale) -> Ledger {
        Ledger {
            scale,
            kept: VecDeque::new(),
            next: 1,
            page: Page::new(scale),
            query: Query::default(),
            series: Series::new(scale.fine, Scale::FINE),
            total: 0,
            certain: 0,
            likely: 0,
            statuses: BTreeSet::new(),
        }
    }

    pub fn add(&mut self, incident: Arc<Incident>, now: Micros) {
        // A time that cannot be read, or lies ahead, is now.
        let at = parse_rfc3339(&incident.time).map_or(now, |at| at.min(now));
        self.total += 1;
        match incident.confidence {
            Confidence::Certain => self.certain += 1,
            Confidence::Likely => self.likely += 1,
            Confidence::Unknown => {}
        }
        self.series.add(at);
        self.statuses.insert(incident.status_word());
        let entry = Entry { seq: self.next, at, incident };
        self.next += 1;
        if self.query.matches(&entry.incident) {
            self.page.add(entry.clone());
        }
        self.kept.push_back(entry);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
            let oldest = self.kept.front().map_or(0, |e| e.seq);
            while self.page.entries.front().is_some_and(|e| e.seq < oldest) {
                self.page.entries.pop_front();
            }
        }
    }

    pub fn explained(&self) -> u64 {
        self.certain + self.likely
    }

    pub fn page(&self) -> &Page {
        &self.page
    }

    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Looks again at everything kept.
    pub fn ask(&mut self, query: Query) {
        self.page = self.matching(&query);
        self.query = query;
    }

    fn matching(&self, query: &Query) -> Page {
        let mut page = Page::new(self.scale);
        for entry in self.kept.iter().filter(|e| query.matches(&e.incident)) {
            page.add(entry.clone());
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tests::incident;

    #[test]
    fn what_is_kept_is_bounded_and_the_rest_stays_counted() {
        let mut ledger = Ledger::new(Scale::LIVE);
        for n in 0..KEPT as u32 + 500 {
            ledger.add(incident("no_listener", "127.0.0.1:9000", n), 0);
        }
        assert_eq!(ledger.total, KEPT as u64 + 500);
        assert_eq!(ledger.page().entries.len(), KEPT);
        assert_eq!(ledger.page().count, KEPT as u64 + 500);
        assert_eq!(ledger.page().row(0).unwrap().seq, KEPT as u64 + 500);
        assert_eq!(ledger.page().row_of(1), KEPT - 1, "one that left gives way to the oldest");
        assert_eq!(ledger.page().row_of(KEPT as u64 + 400), 100);
    }

    #[test]
    fn a_filter_looks_back_and_goes_on() {
        let mut ledger = Ledger::new(Scale::LIVE);
        for n in 0..10 {
            ledger.add(incident(if n % 2 == 0 { "no_listener" } else { "syn_timeout" }, "127.0.0.1:9000", n), 0);
        }
        ledger.ask(Query::parse("cause:syn_timeout").unwrap());
        assert_eq!((ledger.page().count, ledger.total), (5, 10));
        ledger.add(incident("syn_timeout", "127.0.0.1:9000", 1), 0);
        ledger.add(incident("no_listener", "127.0.0.1:9000", 1), 0);
        assert_eq!((ledger.page().count, ledger.total), (6, 12));
        assert_eq!(ledger.page().causes.len(), 1);
        assert_eq!(ledger.page().row(0).unwrap().seq, 11);
        assert_eq!(ledger.page().row_of(12), 0);
    }
}
