//! Failed attempts of each proxy in the last minutes, by upstream: what led to an error that has no attempt.

use std::collections::BTreeMap;

use crate::model::{Endpoint, Nanos};
use crate::text::SECOND;
use crate::wire::http;

/// Longer than the time that proxies usually leave an upstream alone.
pub const MEMORY: Nanos = 60 * SECOND;
/// Longer than any proxy that is set up with sense does.
pub const LONG: Nanos = 600 * SECOND;
const GROUPS: usize = 1_024;
const UPSTREAMS: usize = 512;
const ROUTES: usize = 16;

/// A host and the first part of a path: what a proxy usually chooses its upstream by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    host: Option<String>,
    first: String,
}

impl Route {
    pub fn of(request_head: &[u8]) -> Option<Route> {
        let head = http::request(request_head)?;
        let first = head.path().trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
        Some(Route { first, host: head.host })
    }
}

/// Whether an upstream is one that requests of a kind go to, as far as failures have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Affinity {
    /// Only requests of another kind are known to have failed there.
    Other,
    Unknown,
    Own,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub count: u64,
    pub first: Nanos,
    pub last: Nanos,
    /// The cause of the last one.
    pub cause: &'static str,
    pub summary: String,
    /// Requests that it made fail, and whether that is beyond doubt.
    routes: BTreeMap<Route, bool>,
    /// The last one that came with an error of its own, not by silence.
    pub errored: Option<Nanos>,
    /// The last one served no request: a health check.
    pub checked: bool,
    /// One of them did.
    ever_checked: bool,
}

impl Failed {
    fn new(at: Nanos) -> Failed {
        Failed {
            count: 0,
            first: at,
            last: at,
            cause: "unattributed",
            summary: String::new(),
            routes: BTreeMap::new(),
            errored: None,
            checked: false,
            ever_checked: false,
        }
    }

    /// The last one that came before this moment, as far as that is known.
    pub fn before(&self, at: Nanos) -> Nanos {
        if self.last <= at { self.last } else { self.first }
    }

    /// Whether a request like this one failed there.
    pub fn made_fail(&self, route: Option<&Route>) -> bool {
        route.is_some_and(|r| self.routes.contains_key(r))
    }

    /// Whether it may ever have: more routes than are kept may stand for any.
    pub fn concerned(&self, route: Option<&Route>) -> bool {
        self.ever_checked || self.routes.len() >= ROUTES || self.made_fail(route)
    }
}

fn forget_oldest(upstreams: &mut BTreeMap<Endpoint, Failed>) {
    let oldest = upstreams.iter().min_by_key(|(_, f)| f.last).map(|(endpoint, _)| endpoint.clone());
    if let Some(endpoint) = oldest {
        upstreams.remove(&endpoint);
    }
}

#[derive(Debug, Default)]
pub struct Failures {
    groups: BTreeMap<u32, BTreeMap<Endpoint, Failed>>,
    pub overflow: u64,
}

impl Failures {
    pub fn add(
        &mut self,
        at: Nanos,
        group: u32,
        endpoint: &Endpoint,
        cause: &'static str,
        summary: &str,
        checked: bool,
    ) {
        let Some(failed) = self.entry(at, group, endpoint) else { return };
        failed.count += 1;
        failed.last = at;
        failed.cause = cause;
        failed.checked = checked;
        failed.ever_checked |= checked;
        failed.summary.clear();
        failed.summary.push_str(summary);
    }

    /// What is known of this upstream, or room for it.
    fn entry(&mut self, at: Nanos, group: u32, endpoint: &Endpoint) -> Option<&mut Failed> {
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&group) {
            self.overflow += 1;
            return None;
        }
        let upstreams = self.groups.entry(group).or_default();
        if !upstreams.contains_key(endpoint) {
            if upstreams.len() >= UPSTREAMS {
                self.overflow += 1;
                forget_oldest(upstreams);
            }
            upstreams.insert(endpoint.clone(), Failed::new(at));
        }
        upstreams.get_mut(endpoint)
    }

    /// The last failure there came with an error: something answered.
    pub fn errored(&mut self, at: Nanos, group: u32, endpoint: &Endpoint) {
        if let Some(failed) = self.groups.get_mut(&group).and_then(|g| g.get_mut(endpoint)) {
            failed.errored = Some(at);
        }
    }

    /// A request of this kind failed because of that upstream.
    pub fn concerned(&mut self, group: u32, endpoint: &Endpoint, route: &Route, sure: bool) {
        let Some(failed) = self.groups.get_mut(&group).and_then(|g| g.get_mut(endpoint)) else { return };
        if let Some(known) = failed.routes.get_mut(route) {
            *known |= sure;
        } else if failed.routes.len() < ROUTES {
            failed.routes.insert(route.clone(), sure);
        }
    }

    /// Whether requests of this kind go to that upstream, by what is beyond doubt.
    pub fn affinity(&self, group: u32, endpoint: &Endpoint, route: Option<&Route>) -> Affinity {
        let failed = self.groups.get(&group).and_then(|g| g.get(endpoint));
        let Some((failed, route)) = failed.zip(route) else { return Affinity::Unknown };
        match failed.routes.get(route) {
            Some(true) => Affinity::Own,
            _ if failed.routes.len() < ROUTES && failed.routes.values().any(|sure| *sure) => Affinity::Other,
            _ => Affinity::Unknown,
        }
    }

    /// Whether the proxy checks this upstream by itself.
    pub fn checks(&self, group: u32, endpoint: &Endpoint) -> bool {
        self.groups.get(&group).and_then(|g| g.get(endpoint)).is_some_and(|f| f.ever_checked)
    }

    /// Whether a request like this one failed there.
    pub fn made_fail(&self, group: u32, endpoint: &Endpoint, route: &Option<Route>) -> bool {
        self.groups.get(&group).and_then(|g| g.get(endpoint)).is_some_and(|f| f.made_fail(route.as_ref()))
    }

    /// Upstreams of this proxy that failed in the minute before.
    pub fn of(&self, group: u32, at: Nanos) -> impl Iterator<Item = (&Endpoint, &Failed)> {
        let since = at.saturating_sub(MEMORY);
        self.groups.get(&group).into_iter().flatten().filter(move |(_, f)| f.last >= since && f.first <= at)
    }

    /// Upstreams of this proxy that failed within a longer time.
    pub fn ever(&self, group: u32) -> impl Iterator<Item = &Failed> {
        self.groups.get(&group).into_iter().flat_map(BTreeMap::values)
    }

    pub fn expire(&mut self, now: Nanos) {
        let before = now.saturating_sub(LONG);
        self.groups.retain(|_, upstreams| {
            upstreams.retain(|_, failed| failed.last >= before);
            !upstreams.is_empty()
        });
    }
}
