//! Names that proxies asked DNS for, and how they were answered, for some minutes.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use crate::model::{Dns, Nanos};
use crate::text::SECOND;
use crate::wire::dns;

const MEMORY: Nanos = 120 * SECOND;
const PER_PROCESS: usize = 128;
const PROCESSES: usize = 1_024;

/// One question to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub at: Nanos,
    pub name: String,
    pub kind: String,
    pub server: SocketAddr,
    local: SocketAddr,
    id: u16,
    pub answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub at: Nanos,
    pub rcode: u8,
    pub records: u16,
}

impl Lookup {
    /// The name has no address, as far as this answer goes. (No record of one type alone proves nothing.)
    pub fn failed(&self) -> bool {
        self.answer.is_some_and(|a| a.rcode != 0)
    }
}

#[derive(Debug, Default)]
pub struct Names {
    lookups: BTreeMap<u32, VecDeque<Lookup>>,
    pub overflow: u64,
}

impl Names {
    pub fn seen(&mut self, at: Nanos, pid: u32, dns: &Dns) {
        let Some(message) = dns::message(&dns.message) else { return };
        if !self.lookups.contains_key(&pid) && self.lookups.len() >= PROCESSES {
            self.overflow += 1;
            return;
        }
        let lookups = self.lookups.entry(pid).or_default();
        if dns.received {
            let kind = message.kind_name();
            let matches = |l: &&mut Lookup| {
                l.id == message.id && l.name.eq_ignore_ascii_case(&message.name) && l.kind == kind && l.answer.is_none()
            };
            let answer = Answer { at, rcode: message.rcode, records: message.answers };
            if let Some(lookup) = lookups.iter_mut().rev().find(matches) {
                lookup.answer = Some(answer);
                return;
            }
            // The question went out before we looked.
            push(lookups, &mut self.overflow, at, dns, message, Some(answer));
        } else {
            push(lookups, &mut self.overflow, at, dns, message, None);
        }
    }

    /// Questions of this process that were open or answered since then.
    pub fn of(&self, pid: u32, since: Nanos) -> impl Iterator<Item = &Lookup> {
        let lookups = self.lookups.get(&pid).into_iter().flatten();
        lookups.filter(move |l| l.at >= since || l.answer.is_some_and(|a| a.at >= since))
    }

    pub fn expire(&mut self, now: Nanos) {
        let before = now.saturating_sub(MEMORY);
        self.lookups.retain(|_, lookups| {
            while lookups.front().is_some_and(|l| l.at < before) {
                lookups.pop_front();
            }
            !lookups.is_empty()
        });
    }
}

fn push(
    lookups: &mut VecDeque<Lookup>,
    overflow: &mut u64,
    at: Nanos,
    dns: &Dns,
    message: dns::Message,
    answer: Option<Answer>,
) {
    if lookups.len() >= PER_PROCESS {
        lookups.pop_front();
        *overflow += 1;
    }
    let kind = message.kind_name();
    let (name, id) = (message.name, message.id);
    lookups.push_back(Lookup { at, name, kind, server: dns.server, local: dns.local, id, answer });
}
