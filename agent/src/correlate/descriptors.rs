//! How many descriptors proxies had open, asked as their errors come: a proxy that has none left for an upstream may
//! soon have some again.
//!
//! Not asked for each error of a flood: the figures of a proxy with room left hold for a moment, and those of one
//! without are asked again only so often.

use std::collections::BTreeMap;

use crate::host::{DescriptorFacts, Host};
use crate::model::Nanos;
use crate::text::MILLI;

/// How long figures are taken as they are, and how often within that time they are asked again for a later request.
const STILL: Nanos = 10 * MILLI;
const AGAIN: u32 = 16;
const PROXIES: usize = 1_024;

/// The figures and whether they are of the time of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub facts: DescriptorFacts,
    pub within: bool,
}

impl Counted {
    /// A few may have been freed between the failure and the question.
    pub fn full(&self) -> bool {
        full(&self.facts)
    }
}

fn full(facts: &DescriptorFacts) -> bool {
    facts.limit > 0 && facts.open.saturating_add(2) >= facts.limit
}

#[derive(Debug, Default)]
pub struct Descriptors {
    known: BTreeMap<u32, (Nanos, Option<DescriptorFacts>)>,
    /// When the count of questions began, and how many they were.
    asked: (Nanos, u32),
}

impl Descriptors {
    /// Those of this process at the error of a request that began at `since`.
    pub fn at(&mut self, at: Nanos, since: Option<Nanos>, pid: u32, host: &mut dyn Host) -> Option<Counted> {
        if at.saturating_sub(self.asked.0) >= STILL {
            self.asked = (at, 0);
        }
        let spare = self.asked.1 < AGAIN;
        let known = self.known.get(&pid).copied().filter(|(asked, facts)| {
            let within = since.is_some_and(|since| *asked >= since);
            // What was full before the request began says little of it.
            let stale = facts.as_ref().is_some_and(full) && !within;
            at.saturating_sub(*asked) < STILL && !(stale && spare)
        });
        let (asked, facts) = known.unwrap_or_else(|| {
            self.asked.1 += 1;
            let facts = host.descriptors(pid);
            if self.known.len() >= PROXIES {
                self.known.pop_first();
            }
            self.known.insert(pid, (at, facts));
            (at, facts)
        });
        Some(Counted { facts: facts?, within: since.is_some_and(|since| asked >= since) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::TableHost;

    fn host(open: u64) -> TableHost {
        TableHost::default().with_descriptors(7, DescriptorFacts { open, limit: 100 })
    }

    #[test]
    fn figures_of_before_the_request_are_asked_again_when_they_say_full() {
        let mut descriptors = Descriptors::default();
        let first = descriptors.at(0, Some(0), 7, &mut host(100)).unwrap();
        assert!(first.full() && first.within);
        // The same request, or one that was under way then.
        assert!(descriptors.at(5 * MILLI, Some(0), 7, &mut host(5)).unwrap().full());
        let later = descriptors.at(6 * MILLI, Some(5 * MILLI), 7, &mut host(5)).unwrap();
        assert!(!later.full() && later.within);
    }

    #[test]
    fn a_flood_asks_seldom_and_says_that_the_figures_are_older() {
        let mut descriptors = Descriptors::default();
        let answers = (0..1000).map(|n| descriptors.at(n * 1000, Some(n * 1000), 7, &mut host(100)).unwrap());
        let within = answers.filter(|counted| counted.within).count();
        assert_eq!(within, AGAIN as usize);
        let next = descriptors.at(MILLI, Some(MILLI), 7, &mut host(5)).unwrap();
        assert!(next.full() && !next.within);
        assert!(!descriptors.at(11 * MILLI, Some(11 * MILLI), 7, &mut host(5)).unwrap().full());
    }

    #[test]
    fn a_process_that_cannot_be_asked_says_nothing() {
        assert_eq!(Descriptors::default().at(0, Some(0), 8, &mut host(100)), None);
    }
}
