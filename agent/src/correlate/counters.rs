//! What the engine did, and what it could not keep, in figures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Incident;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Incidents told.
    pub incidents: u64,
    /// Of those, with a cause.
    pub attributed: u64,
    /// The others, by why.
    pub unattributed: BTreeMap<String, u64>,
    /// Errors that turned out to be no incident: a 500 of the application, a close by a proxy that was stopped.
    pub dismissed: u64,
    /// Failed attempts told.
    pub failures: u64,
    /// Facts that were told twice.
    pub duplicates: u64,
    /// Lines of proxies' logs that told of an error.
    pub lines: u64,
    /// Of those, the ones that told an incident by themselves.
    pub logged: u64,
    /// Kernel records that were lost on the way here.
    pub lost: u64,
    /// Attempts forgotten before their client's outcome was known.
    pub attempts_overflow: u64,
    /// Errors reported before everything could be gathered, because too many waited.
    pub pending_overflow: u64,
    /// Facts of the past that did not fit.
    pub memory_overflow: u64,
    /// Reported errors that were forgotten early: one could be told twice.
    pub done_overflow: u64,
}

impl Counters {
    pub(super) fn count(&mut self, incident: &Incident) {
        self.incidents += 1;
        match &incident.why {
            None => self.attributed += 1,
            Some(why) => *self.unattributed.entry(why.clone()).or_default() += 1,
        }
    }

    /// Attributed over observed, 1 where nothing was observed.
    pub fn coverage(&self) -> f64 {
        if self.incidents == 0 { 1.0 } else { self.attributed as f64 / self.incidents as f64 }
    }

    /// Everything that was not kept, over all kinds, apart from lost kernel records.
    pub fn overflow(&self) -> u64 {
        self.attempts_overflow + self.pending_overflow + self.memory_overflow + self.done_overflow
    }
}
