//! The page for the post-mortem: one file, no script, nothing loaded from anywhere.
//!
//! [`Report`] counts incident by incident, in bounded space; [`page`] writes it down. Every text from outside is made
//! harmless first and then escaped, in one function, [`markup::text`].

mod chart;
mod markup;
mod page;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::causes::OTHER;
use crate::digest::{CauseKey, Causes, Scale, Series};
use crate::model::Incident;
use crate::when::{Micros, parse_rfc3339};

pub use page::{POLICY, STYLE, page};

/// Incidents told in full: the first ones of each cause and upstream.
const EACH: usize = 10;
const MOST: usize = 500;
/// Upstreams and proxies told apart.
const NAMES: usize = 200;

/// Errors of one upstream or proxy.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub count: u64,
    pub causes: BTreeMap<String, u64>,
    pub statuses: BTreeMap<String, u64>,
    /// The processes behind it, as said last.
    pub process: Option<String>,
}

#[derive(Debug)]
pub struct Report {
    pub from: Micros,
    pub to: Micros,
    pub made: Micros,
    pub scale: Scale,
    pub total: u64,
    pub explained: u64,
    pub causes: Causes,
    /// All of them, in the slices of the causes.
    pub series: Series,
    pub upstreams: BTreeMap<String, Tally>,
    pub proxies: BTreeMap<String, Tally>,
    pub statuses: BTreeMap<String, u64>,
    /// In order of arrival.
    pub told: Vec<(Micros, Arc<Incident>)>,
    told_of: BTreeMap<CauseKey, usize>,
    /// What the reader should know of the input: a filter, records that could not be read.
    pub remarks: Vec<String>,
}

impl Report {
    pub fn over(from: Micros, to: Micros, made: Micros) -> Report {
        let scale = Scale::over(from, to);
        Report {
            from,
            to,
            made,
            scale,
            total: 0,
            explained: 0,
            causes: Causes::new(scale),
            series: Series::new(scale.coarse, Scale::COARSE),
            upstreams: BTreeMap::new(),
            proxies: BTreeMap::new(),
            statuses: BTreeMap::new(),
            told: Vec::new(),
            told_of: BTreeMap::new(),
            remarks: Vec::new(),
        }
    }

    /// In order of time.
    pub fn add(&mut self, incident: Incident) {
        let incident = Arc::new(incident);
        let at = parse_rfc3339(&incident.time).unwrap_or(self.from).clamp(self.from, self.to);
        self.total += 1;
        self.explained += u64::from(incident.confidence != crate::model::Confidence::Unknown);
        self.causes.add(&incident, at);
        self.series.add(at);
        let word = incident.status_word();
        count(&mut self.statuses, word.clone());
        let upstream = incident.upstream.as_ref();
        let process = upstream.and_then(|u| u.process.as_ref()).map(crate::digest::place);
        let addr = upstream.map_or("no upstream was tried", |u| u.addr.as_str());
        tally(&mut self.upstreams, addr, &incident, &word, process);
        let proxy = &incident.proxy;
        tally(&mut self.proxies, &crate::digest::place(proxy), &incident, &word, None);
        // Keys are as many as rows, which are bounded.
        if self.told_of.len() < NAMES * 2 || self.told_of.contains_key(&CauseKey::of(&incident)) {
            let told = self.told_of.entry(CauseKey::of(&incident)).or_default();
            if *told < EACH && self.told.len() < MOST {
                *told += 1;
                self.told.push((at, incident));
            }
        }
    }
}

fn count(table: &mut BTreeMap<String, u64>, word: String) {
    *table.entry(word).or_default() += 1;
}

fn tally(table: &mut BTreeMap<String, Tally>, name: &str, incident: &Incident, word: &str, process: Option<String>) {
    let name = if table.len() < NAMES || table.contains_key(name) { name } else { OTHER };
    let row = table.entry(name.to_owned()).or_default();
    row.count += 1;
    if row.causes.len() < NAMES || row.causes.contains_key(&incident.cause) {
        count(&mut row.causes, incident.cause.clone());
    }
    count(&mut row.statuses, word.to_owned());
    row.process = process.or(row.process.take());
}
