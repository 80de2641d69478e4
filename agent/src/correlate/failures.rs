//! Failed attempts of each proxy in the last minutes, by upstream: what led to an error that has no attempt.

use std::collections::BTreeMap;

use crate::model::{Endpoint, Nanos};
use crate::text::SECOND;

/// Longer than the time that proxies usually leave an upstream alone.
pub const MEMORY: Nanos = 60 * SECOND;
const GROUPS: usize = 1_024;
const UPSTREAMS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub count: u64,
    pub first: Nanos,
    pub last: Nanos,
    /// The cause of the last one.
    pub cause: &'static str,
    pub summary: String,
}

#[derive(Debug, Default)]
pub struct Failures {
    groups: BTreeMap<u32, BTreeMap<Endpoint, Failed>>,
    pub overflow: u64,
}

impl Failures {
    pub fn add(&mut self, at: Nanos, group: u32, endpoint: &Endpoint, cause: &'static str, summary: &str) {
        let full = self.groups.len() >= GROUPS && !self.groups.contains_key(&group);
        let upstreams = self.groups.get(&group).map_or(0, BTreeMap::len);
        let known = self.groups.get(&group).is_some_and(|g| g.contains_key(endpoint));
        if full || (upstreams >= UPSTREAMS && !known) {
            self.overflow += 1;
            return;
        }
        let failed = self.groups.entry(group).or_default().entry(endpoint.clone());
        let failed = failed.or_insert(Failed { count: 0, first: at, last: at, cause, summary: String::new() });
        failed.count += 1;
        failed.last = at;
        failed.cause = cause;
        failed.summary = summary.to_owned();
    }

    /// Upstreams of this proxy that failed in the minute before.
    pub fn of(&self, group: u32, at: Nanos) -> impl Iterator<Item = (&Endpoint, &Failed)> {
        let since = at.saturating_sub(MEMORY);
        self.groups.get(&group).into_iter().flatten().filter(move |(_, f)| f.last >= since && f.first <= at)
    }

    pub fn expire(&mut self, now: Nanos) {
        let before = now.saturating_sub(MEMORY);
        self.groups.retain(|_, upstreams| {
            upstreams.retain(|_, failed| failed.last >= before);
            !upstreams.is_empty()
        });
    }
}
