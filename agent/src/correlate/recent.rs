//! A bounded memory of keys and when they were last seen.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use crate::model::Nanos;

#[derive(Debug)]
pub struct Recent<K> {
    seen: BTreeMap<K, Nanos>,
    order: VecDeque<(Nanos, K)>,
    cap: usize,
    /// Keys forgotten because there were too many, not because they were old.
    pub overflow: u64,
}

impl<K: Ord + Copy> Recent<K> {
    pub fn new(cap: usize) -> Self {
        Recent { seen: BTreeMap::new(), order: VecDeque::new(), cap, overflow: 0 }
    }

    /// Remembers it; whether it was new.
    pub fn insert(&mut self, key: K, at: Nanos) -> bool {
        let new = self.seen.insert(key, at).is_none();
        self.order.push_back((at, key));
        while self.order.len() > self.cap {
            self.overflow += 1;
            self.forget_first();
        }
        new
    }

    pub fn get(&self, key: &K) -> Option<Nanos> {
        self.seen.get(key).copied()
    }

    /// Whether this holds for any of these keys.
    pub fn any_in(&self, keys: RangeInclusive<K>, mut test: impl FnMut(&K) -> bool) -> bool {
        self.seen.range(keys).any(|(key, _)| test(key))
    }

    pub fn forget_before(&mut self, at: Nanos) {
        while self.order.front().is_some_and(|(seen, _)| *seen < at) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((at, key)) = self.order.pop_front()
            && self.seen.get(&key) == Some(&at)
        {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_the_oldest_and_counts_what_did_not_fit() {
        let mut recent = Recent::new(2);
        assert!(recent.insert(1, 10));
        assert!(!recent.insert(1, 11));
        assert!(recent.insert(2, 12));
        assert_eq!((recent.get(&1), recent.overflow), (Some(11), 1));
        recent.forget_before(12);
        assert_eq!((recent.get(&1), recent.get(&2)), (None, Some(12)));
    }
}
