//! The histogram of connect times: counted in the kernel by powers of two of microseconds, only added up here.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::kernel::Times;

/// Powers of two of microseconds that are told apart: 32 us, as on loopback, to 4 s, a SYN that was sent thrice.
const FIRST: usize = 5;
const LAST: usize = 22;

/// Clones count the same.
#[derive(Clone, Debug, Default)]
pub struct Connects(Arc<Mutex<Times>>);

impl Connects {
    pub fn add(&self, times: &Times) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(times);
    }
}

impl EncodeMetric for Connects {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let times = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |range: std::ops::Range<usize>| times.counts[range].iter().sum::<u64>();
        let mut buckets = vec![(below(FIRST), counts(0..FIRST + 1))];
        buckets.extend((FIRST + 1..=LAST).map(|power| (below(power), times.counts[power])));
        buckets.push((f64::INFINITY, counts(LAST + 1..times.counts.len())));
        encoder.encode_histogram::<NoLabelSet>(times.micros as f64 / 1e6, times.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Seconds below which the connects of this bucket are.
fn below(power: usize) -> f64 {
    (1u64 << power) as f64 / 1e6
}
