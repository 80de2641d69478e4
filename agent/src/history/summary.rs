//! What many incidents say together: by cause, upstream, process and proxy, and over time. Bounded, whatever comes in.

use std::collections::HashMap;

use serde::Serialize;

use crate::model::Incident;
use crate::when::{self, Micros};

/// Names told apart in each table; the rest is counted together.
const MOST: usize = 1000;
const OTHER: &str = "other";

/// Slices of the time line.
pub const SLICES: usize = 60;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub count: u64,
    pub first: String,
    pub last: String,
}

/// Counts by name.
pub type Table = HashMap<String, Tally>;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    pub total: u64,
    pub attributed: u64,
    pub first: Option<String>,
    pub last: Option<String>,
    pub by_cause: Table,
    pub by_upstream: Table,
    pub by_process: Table,
    pub by_proxy: Table,
    pub by_status: Table,
    #[serde(skip)]
    from: Micros,
    #[serde(skip)]
    width: Micros,
    /// Counts in equal slices from the start of the span to its end.
    pub slices: Vec<u64>,
}

impl Summary {
    /// The time line covers this span.
    pub fn over(from: Micros, to: Micros) -> Summary {
        let width = (to.saturating_sub(from) / SLICES as Micros + 1).max(1);
        Summary { from, width, slices: vec![0; SLICES], ..Summary::default() }
    }

    pub fn add(&mut self, incident: &Incident) {
        self.total += 1;
        self.attributed += u64::from(incident.cause != "unattributed");
        let time = &incident.time;
        self.first.get_or_insert_with(|| time.clone());
        self.last = Some(time.clone());
        if let Some(at) = when::parse_rfc3339(time) {
            let slice = usize::try_from((at - self.from).div_euclid(self.width)).ok();
            if let Some(count) = slice.and_then(|slice| self.slices.get_mut(slice)) {
                *count += 1;
            }
        }
        let upstream = incident.upstream.as_ref();
        let process = upstream.and_then(|u| u.process.as_ref());
        let process = match process {
            Some(p) => match (&p.unit, p.container_label()) {
                (Some(unit), _) => format!("{} ({unit})", p.name),
                (None, Some(container)) => format!("{} (container {container})", p.name),
                (None, None) => p.name.clone(),
            },
            None => "not known".to_owned(),
        };
        tally(&mut self.by_cause, &incident.cause, time);
        tally(&mut self.by_upstream, upstream.map_or("none", |u| u.addr.as_str()), time);
        tally(&mut self.by_process, &process, time);
        tally(&mut self.by_proxy, &incident.proxy.name, time);
        tally(&mut self.by_status, &incident.status_word(), time);
    }

    /// The slice with most, when it begins, and how long one is.
    pub fn peak(&self) -> Option<(u64, Micros, Micros)> {
        let (slice, count) = self.slices.iter().enumerate().max_by_key(|(i, count)| (**count, usize::MAX - i))?;
        (*count > 0).then(|| (*count, self.from + slice as Micros * self.width, self.width))
    }
}

fn tally(table: &mut Table, name: &str, time: &str) {
    let name = if table.len() < MOST || table.contains_key(name) { name } else { OTHER };
    match table.get_mut(name) {
        Some(row) => {
            row.count += 1;
            row.last.clear();
            row.last.push_str(time);
        }
        None => {
            let row = Tally { count: 1, first: time.to_owned(), last: time.to_owned() };
            table.insert(name.to_owned(), row);
        }
    }
}

/// A table's rows, most first.
pub fn ranked(table: &Table) -> Vec<(&str, &Tally)> {
    let mut rows: Vec<(&str, &Tally)> = table.iter().map(|(name, row)| (name.as_str(), row)).collect();
    rows.sort_by(|a, b| b.1.count.cmp(&a.1.count).then_with(|| a.0.cmp(b.0)));
    rows
}
