//! Everything remembered that a cause may look at, in one place.

use std::collections::{BTreeMap, VecDeque};

use super::failures::{self, Failures};
use super::flows::Flows;
use super::history::History;
use super::names::Names;
use super::recent::Recent;
use crate::model::{Cookie, Endpoint, Nanos};
use crate::text::SECOND;

const LOSSES: usize = 256;
const NEAR: Nanos = SECOND / 4;
const SUCCESSORS: usize = 256;
const LEFT: usize = 16_384;
const LEFT_MEMORY: Nanos = 300 * SECOND;
const SWEEP: Nanos = SECOND;

#[derive(Debug)]
pub struct Past {
    pub history: History,
    pub flows: Flows,
    pub names: Names,
    pub failures: Failures,
    /// Client requests whose client went away before it was answered.
    pub left: Recent<(Cookie, u32)>,
    /// Processes that were found starting for an upstream: the search for them is cut short on a busy host.
    successors: BTreeMap<Endpoint, u32>,
    losses: VecDeque<Nanos>,
    /// The first moment that was heard of.
    began: Option<Nanos>,
    next_sweep: Nanos,
}

impl Past {
    pub fn new() -> Self {
        Past {
            history: History::default(),
            flows: Flows::default(),
            names: Names::default(),
            failures: Failures::default(),
            left: Recent::new(LEFT),
            successors: BTreeMap::new(),
            losses: VecDeque::new(),
            began: None,
            next_sweep: 0,
        }
    }

    /// This process was seen starting for that upstream.
    pub fn starting(&mut self, endpoint: &Endpoint, pid: u32) {
        if self.successors.len() >= SUCCESSORS && !self.successors.contains_key(endpoint) {
            self.successors.pop_first();
        }
        self.successors.insert(endpoint.clone(), pid);
    }

    pub fn successor(&self, endpoint: &Endpoint) -> Option<u32> {
        self.successors.get(endpoint).copied()
    }

    /// Kernel records were lost at about this time. A flood loses some all the time: one moment stands for those near.
    pub fn lost(&mut self, at: Nanos) {
        if self.losses.back().is_some_and(|last| at.saturating_sub(*last) < NEAR) {
            return;
        }
        if self.losses.len() == LOSSES {
            self.losses.pop_front();
        }
        self.losses.push_back(at);
    }

    /// Whether records were lost in this time, so that what was not seen proves nothing.
    pub fn lossy(&self, from: Nanos, to: Nanos) -> bool {
        let slack = SECOND;
        self.losses.iter().any(|at| *at >= from.saturating_sub(slack) && *at <= to.saturating_add(slack))
    }

    /// Time goes on, and everything in it is seen from here.
    pub fn at(&mut self, now: Nanos) {
        self.began.get_or_insert(now);
    }

    /// Whether failures that a proxy still remembers at this moment would have been seen.
    pub fn long(&self, at: Nanos) -> bool {
        self.began.is_some_and(|began| at.saturating_sub(began) >= failures::LONG)
    }

    pub fn expire(&mut self, now: Nanos) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now.saturating_add(SWEEP);
        self.history.expire(now);
        self.flows.expire(now);
        self.names.expire(now);
        self.failures.expire(now);
        self.left.forget_before(now.saturating_sub(LEFT_MEMORY));
    }

    /// What did not fit into memory, over all kinds.
    pub fn overflow(&self) -> u64 {
        self.history.overflow + self.flows.overflow + self.names.overflow + self.failures.overflow + self.left.overflow
    }
}

impl Default for Past {
    fn default() -> Self {
        Past::new()
    }
}
