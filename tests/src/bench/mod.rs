//! What watching costs. Each measure is a module; [`Report`] is what all of them fill.
//!
//! Ratios are taken within one run: the same loop with and without, in turn, so that what else happens on the machine
//! hits both. Absolute figures belong to the machine they were taken on.

pub mod call;
pub mod footprint;
pub mod growth;
pub mod hooks;
pub mod incidents;
pub mod limits;
pub mod programs;
pub mod requests;
pub mod rivals;
pub mod shares;
pub mod soak;
pub mod stats;
pub mod storm;
pub mod usage;

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    Quick,
    Full,
}

impl Effort {
    /// One number for each.
    pub fn pick<T>(self, quick: T, full: T) -> T {
        if self == Effort::Quick { quick } else { full }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub measure: &'static str,
    pub case: String,
    /// What was found: name, value, unit.
    pub values: Vec<(&'static str, f64, &'static str)>,
    /// What was hoped for, and whether it came true.
    pub goals: Vec<Goal>,
}

#[derive(Clone, Debug)]
pub struct Goal {
    pub text: String,
    pub met: bool,
}

impl Row {
    pub fn new(measure: &'static str, case: impl Into<String>) -> Row {
        Row { measure, case: case.into(), values: Vec::new(), goals: Vec::new() }
    }

    pub fn value(mut self, name: &'static str, value: f64, unit: &'static str) -> Row {
        self.values.push((name, value, unit));
        self
    }

    /// `value` should be at most `limit`.
    pub fn at_most(mut self, name: &str, value: f64, limit: f64, unit: &str) -> Row {
        self.goals.push(Goal { text: format!("{name} ≤ {limit} {unit}").trim_end().to_owned(), met: value <= limit });
        self
    }
}

/// Everything that one run found.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    /// What a reader must know to judge the figures.
    pub notes: Vec<String>,
}

impl Report {
    /// Adds a line, and shows it: a run takes minutes.
    pub fn add(&mut self, row: Row) {
        println!("{}", line(&row));
        self.rows.push(row);
    }

    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        println!("note: {text}");
        self.notes.push(text);
    }

    pub fn missed(&self) -> usize {
        self.rows.iter().flat_map(|row| &row.goals).filter(|goal| !goal.met).count()
    }

    /// The figures for a machine, under names that stay the same.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(row_json).collect();
        json!({ "version": 1, "kernel": kernel(), "cpus": cpus(), "rows": rows, "notes": self.notes })
    }

    /// The figure of a case, for a comparison with an earlier run.
    pub fn figures(&self) -> impl Iterator<Item = (String, f64)> {
        self.rows.iter().flat_map(|row| {
            row.values.iter().map(move |(name, value, _)| (format!("{}/{}/{name}", row.measure, row.case), *value))
        })
    }
}

fn row_json(row: &Row) -> Value {
    let values: Map<String, Value> = row
        .values
        .iter()
        .map(|(name, value, unit)| ((*name).to_owned(), json!({ "value": value, "unit": unit })))
        .collect();
    let goals: Vec<Value> = row.goals.iter().map(|goal| json!({ "goal": goal.text, "met": goal.met })).collect();
    json!({ "measure": row.measure, "case": row.case, "values": values, "goals": goals })
}

fn line(row: &Row) -> String {
    let mut line = format!("{:<10} {:<34}", row.measure, row.case);
    for (name, value, unit) in &row.values {
        let _ = write!(line, "  {name} {}{}{unit}", digits(*value), if unit.is_empty() { "" } else { " " });
    }
    for goal in &row.goals {
        let _ = write!(line, "  [{}: {}]", if goal.met { "met" } else { "MISSED" }, goal.text);
    }
    line
}

/// Three digits that say something.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_is_missed_is_counted_and_shown() {
        let mut report = Report::default();
        report.add(Row::new("call", "untracked").value("extra", 250.4, "ns").at_most("extra", 250.4, 200.0, "ns"));
        report.add(Row::new("call", "tracked").value("extra", 300.0, "ns").at_most("extra", 300.0, 500.0, "ns"));
        assert_eq!(report.missed(), 1);
        assert!(line(&report.rows[0]).ends_with("extra 250 ns  [MISSED: extra ≤ 200 ns]"), "{}", line(&report.rows[0]));
        let json = report.json();
        assert_eq!(json["rows"][0]["values"]["extra"]["value"], 250.4);
        assert_eq!(json["rows"][1]["goals"][0]["met"], true);
    }

    #[test]
    fn digits_say_neither_more_nor_less_than_is_known() {
        assert_eq!([8040.4, 12.34, 1.234, 0.0].map(digits), ["8040", "12.3", "1.23", "0"]);
    }
}
