//! One metric with labels whose number of series is bounded, and whose idle series go away.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

use crate::text::clipped;

/// What a label value becomes when there are too many.
pub const OTHER: &str = "other";

/// Longest label value; what is longer is cut.
const LONGEST: usize = 128;

/// Label values cannot hold it: [`clipped`] escapes control characters.
const SEPARATOR: char = '\u{1f}';

/// `N` labels. Which of them give way when there are too many series is said at each [`Series::at`].
#[derive(Debug)]
pub struct Series<const N: usize, M> {
    names: [&'static str; N],
    make: fn() -> M,
    kind: MetricType,
    /// By label values, joined.
    known: Mutex<HashMap<String, Entry<M>>>,
}

#[derive(Clone, Debug)]
struct Entry<M> {
    metric: M,
    used: Instant,
}

impl<const N: usize, M: Clone> Series<N, M> {
    pub fn new(names: [&'static str; N], kind: MetricType, make: fn() -> M) -> Self {
        Series { names, make, kind, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry<M>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metric with these label values. Past `most` series the labels in `give_way` become `other`, one after the
    /// other, until the series exists already or few enough are left; `overflow` is told each name that did.
    pub fn at(
        &self,
        values: [&str; N],
        give_way: &[usize],
        most: usize,
        now: Instant,
        mut overflow: impl FnMut(&'static str),
    ) -> M {
        let mut known = self.lock();
        let mut values = values;
        let mut key = join(&values);
        // Each label that gave way has a quarter of the room for the combinations of the others.
        let mut room = most;
        for label in give_way {
            if known.contains_key(&key) || known.len() < room {
                break;
            }
            values[*label] = OTHER;
            overflow(self.names[*label]);
            key = join(&values);
            room += most.div_ceil(4);
        }
        let entry = known.entry(key).or_insert_with(|| Entry { metric: (self.make)(), used: now });
        entry.used = now;
        entry.metric.clone()
    }

    /// Forgets what nobody touched for `idle`.
    pub fn expire(&self, idle: Duration, now: Instant) {
        self.lock().retain(|_, entry| now.saturating_duration_since(entry.used) < idle);
    }
}

fn join<const N: usize>(values: &[&str; N]) -> String {
    let mut key = String::with_capacity(values.iter().map(|v| v.len() + 1).sum());
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            key.push(SEPARATOR);
        }
        key.push_str(&clipped(value, LONGEST));
    }
    key
}

/// So that the registry and the sink hold the same series.
#[derive(Debug)]
pub struct Exported<const N: usize, M>(pub std::sync::Arc<Series<N, M>>);

impl<const N: usize, M: EncodeMetric + Clone + Send + Sync + fmt::Debug + 'static> EncodeMetric for Exported<N, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // A copy, so that a slow scrape does not hold up those who count.
        let mut all: Vec<(String, M)> =
            self.0.lock().iter().map(|(key, entry)| (key.clone(), entry.metric.clone())).collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (key, metric) in &all {
            let labels: Vec<(&str, &str)> = self.0.names.iter().copied().zip(key.split(SEPARATOR)).collect();
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.0.kind
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}
