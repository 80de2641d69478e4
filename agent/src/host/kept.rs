//! Answers that hold for a moment, so that a flood of errors asks the same question a few times a second.
//!
//! What the kernel side tells of (a listener that opens or closes, a process that starts, becomes something else or
//! ends) makes the answer about it void at once: within the time that an answer is kept, nothing that a cause is
//! judged by changes unnoticed.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

pub struct Kept<K, V> {
    answers: HashMap<K, (Instant, V)>,
    time: Duration,
    most: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Kept<K, V> {
    pub fn new(time: Duration, most: usize) -> Self {
        Self { answers: HashMap::new(), time, most }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        self.answers.get(key).filter(|(asked, _)| asked.elapsed() < self.time).map(|(_, answer)| answer.clone())
    }

    pub fn keep(&mut self, key: K, answer: V) -> V {
        if self.answers.len() >= self.most {
            let time = self.time;
            self.answers.retain(|_, (asked, _)| asked.elapsed() < time);
            if self.answers.len() >= self.most {
                self.answers.clear();
            }
        }
        self.answers.insert(key, (Instant::now(), answer.clone()));
        answer
    }

    pub fn forget(&mut self, key: &K) {
        self.answers.remove(key);
    }

    /// Brings each answer up to what became known.
    pub fn amend(&mut self, mut change: impl FnMut(&mut V)) {
        self.answers.values_mut().for_each(|(_, answer)| change(answer));
    }

    /// Forgets the answers of which this holds.
    pub fn forget_if(&mut self, void: impl Fn(&K, &V) -> bool) {
        self.answers.retain(|key, (_, answer)| !void(key, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_its_time_and_no_longer() {
        let mut kept = Kept::new(Duration::from_secs(3600), 8);
        kept.keep(1, "a");
        assert_eq!((kept.get(&1), kept.get(&2)), (Some("a"), None));
        kept.forget(&1);
        assert_eq!(kept.get(&1), None);
        let mut brief = Kept::new(Duration::ZERO, 8);
        brief.keep(1, "a");
        assert_eq!(brief.get(&1), None);
    }

    #[test]
    fn what_became_void_is_forgotten_and_the_number_is_bounded() {
        let mut kept = Kept::new(Duration::from_secs(3600), 8);
        for number in 0..100 {
            kept.keep(number, number % 2);
            assert!(kept.answers.len() <= 8);
        }
        kept.forget_if(|_, answer| *answer == 1);
        kept.amend(|answer| *answer += 5);
        assert_eq!(kept.get(&98), Some(5));
        assert!(kept.get(&99).is_none() && kept.get(&98).is_some());
    }
}
