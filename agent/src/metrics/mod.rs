//! The metrics of the agent: each is declared here, counted in [`Metrics::notice`] and named in docs/agent.md.
//!
//! Counts notices and judges nothing. The status of the agent itself is read at each scrape.

mod classic;
mod connects;
#[cfg(test)]
mod deploy_tests;
mod process;
mod series;
#[cfg(test)]
pub(crate) mod tests;
mod vitals;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::CounterWithExemplar;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

use crate::kernel::Times;
use crate::model::{Incident, Notice};
use crate::status::Board;
use crate::when::{self, Micros};
use connects::Connects;
use series::{Exported, Series};

type ErrorCounter = CounterWithExemplar<[(&'static str, String); 1]>;

/// From at once to a cause that waited for an exit status.
const ATTRIBUTION_SECONDS: [f64; 12] = [2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// A histogram's series is many lines: it has this part of the room of a counter.
const HISTOGRAM_PART: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Classic,
}

impl Format {
    /// What a scraper's Accept header asks for.
    pub fn of_accept(accept: &str) -> Format {
        if accept.to_ascii_lowercase().contains("application/openmetrics-text") {
            Format::OpenMetrics
        } else {
            Format::Classic
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    max_series: AtomicUsize,
    idle_millis: AtomicU64,
    gateway_errors: Arc<Series<4, ErrorCounter>>,
    unattributed: Arc<Series<1, Counter>>,
    resets: Arc<Series<4, Counter>>,
    upstream_failures: Arc<Series<3, Counter>>,
    upstream_connect: Arc<Series<2, Connects>>,
    process_deaths: Arc<Series<2, Counter>>,
    overflow: Arc<Series<1, Counter>>,
    attribution: Histogram,
}

fn counter<const N: usize>(names: [&'static str; N]) -> Arc<Series<N, Counter>> {
    Arc::new(Series::new(names, Counter::<u64>::TYPE, Counter::default))
}

impl Metrics {
    pub fn new(max_series: usize, idle: Duration, board: Board) -> Self {
        let mut metrics = Metrics {
            registry: Registry::default(),
            max_series: AtomicUsize::default(),
            idle_millis: AtomicU64::default(),
            gateway_errors: Arc::new(Series::new(
                ["proxy", "upstream", "status", "cause"],
                MetricType::Counter,
                ErrorCounter::default,
            )),
            unattributed: counter(["why"]),
            resets: counter(["proxy", "upstream", "side", "reason"]),
            upstream_failures: counter(["proxy", "upstream", "cause"]),
            upstream_connect: Arc::new(Series::new(["proxy", "upstream"], MetricType::Histogram, Connects::default)),
            process_deaths: counter(["name", "how"]),
            overflow: counter(["label"]),
            attribution: Histogram::new(ATTRIBUTION_SECONDS),
        };
        metrics.limit(max_series, idle);
        // There from the start, so that the first time shows as an increase.
        for label in ["proxy", "upstream"] {
            metrics.overflow.at([label], &[], usize::MAX, Instant::now(), |_| ());
        }
        metrics.register(board);
        metrics
    }

    fn register(&mut self, board: Board) {
        let mut all = Registry::default();
        let ours = all.sub_registry_with_prefix("trace502");
        ours.register(
            "gateway_errors",
            "Requests that a proxy failed because of their upstream, by what the client got and by cause",
            Exported(self.gateway_errors.clone()),
        );
        ours.register(
            "unattributed",
            "Gateway errors whose cause could not be proven, by what was missing",
            Exported(self.unattributed.clone()),
        );
        ours.register(
            "resets",
            "Resets on connections between proxy and upstream, by who sent them and the kernel's reason",
            Exported(self.resets.clone()),
        );
        ours.register(
            "upstream_failures",
            "Attempts on an upstream that failed, also those that a retry made good",
            Exported(self.upstream_failures.clone()),
        );
        ours.register_with_unit(
            "upstream_connect",
            "Time that TCP connects of the proxy to the upstream took, well or not in the end",
            Unit::Seconds,
            Exported(self.upstream_connect.clone()),
        );
        ours.register(
            "process_deaths",
            "Ends of processes that listened: killed for memory, by another signal, or by themselves",
            Exported(self.process_deaths.clone()),
        );
        ours.register(
            "label_overflow",
            "Times that a label value was counted under other because its metric had too many series",
            Exported(self.overflow.clone()),
        );
        ours.register_with_unit(
            "attribution",
            "Time from the proxy's answer to the finished record",
            Unit::Seconds,
            self.attribution.clone(),
        );
        ours.register(
            "build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)]),
        );
        all.register_collector(Box::new(vitals::Vitals { board }));
        self.registry = all;
    }

    /// Limits that a reload may change.
    pub fn limit(&self, max_series: usize, idle: Duration) {
        self.max_series.store(max_series, Ordering::Relaxed);
        self.idle_millis.store(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts what the engine tells. `wall` is the time at which it told.
    pub fn notice(&self, notice: &Notice, now: Instant, wall: Micros) {
        match notice {
            Notice::Incident(incident) => self.incident(incident, now, wall),
            Notice::Failure(failure) => {
                let values = [failure.proxy.as_str(), &failure.upstream, &failure.cause];
                self.at(&self.upstream_failures, values, &[1, 0, 2], 1, now).inc();
            }
            Notice::Death(death) => {
                self.at(&self.process_deaths, [&death.name, death.how], &[0], 1, now).inc();
            }
            Notice::Reset(reset) => {
                let values = [reset.proxy.as_str(), &reset.upstream, reset.side, &reset.reason];
                self.at(&self.resets, values, &[1, 0, 3], 1, now).inc();
            }
        }
    }

    /// Counts connects that the kernel side counted.
    pub fn connected(&self, proxy: &str, upstream: &str, times: &Times, now: Instant) {
        self.at(&self.upstream_connect, [proxy, upstream], &[1, 0], HISTOGRAM_PART, now).add(times);
    }

    fn incident(&self, incident: &Incident, now: Instant, wall: Micros) {
        let proxy = incident.proxy.name.as_str();
        let upstream = incident.upstream.as_ref().map_or("none", |u| u.addr.as_str());
        let values = [proxy, upstream, &incident.status_word(), &incident.cause];
        let at = when::parse_rfc3339(&incident.time);
        let moment = at.and_then(|at| u64::try_from(at).ok());
        let moment = moment.map(|at| SystemTime::UNIX_EPOCH + Duration::from_micros(at));
        // OpenMetrics allows 128 characters for an exemplar's labels.
        let id: String = incident.id.chars().filter(char::is_ascii_graphic).take(100).collect();
        self.at(&self.gateway_errors, values, &[1, 0, 3, 2], 1, now).inc_by(1, Some([("incident", id)]), moment);
        if incident.cause == "unattributed" {
            let why = incident.why.as_deref().unwrap_or("unknown");
            self.at(&self.unattributed, [why], &[0], 1, now).inc();
        }
        // A clock that was set back must not make a negative time of it.
        if let Some(took) = at.and_then(|at| u64::try_from(wall - at).ok()) {
            self.attribution.observe(Duration::from_micros(took).as_secs_f64());
        }
    }

    fn at<const N: usize, M: Clone>(
        &self,
        series: &Series<N, M>,
        values: [&str; N],
        give_way: &[usize],
        part: usize,
        now: Instant,
    ) -> M {
        let most = self.max_series.load(Ordering::Relaxed).div_ceil(part);
        series.at(values, give_way, most, now, |label| {
            self.overflow.at([label], &[], usize::MAX, now, |_| ()).inc();
        })
    }

    /// Idle series go; to be called now and then.
    pub fn expire(&self, now: Instant) {
        let idle = Duration::from_millis(self.idle_millis.load(Ordering::Relaxed));
        self.gateway_errors.expire(idle, now);
        self.unattributed.expire(idle, now);
        self.resets.expire(idle, now);
        self.upstream_failures.expire(idle, now);
        self.upstream_connect.expire(idle, now);
        self.process_deaths.expire(idle, now);
    }

    pub fn render(&self, format: Format) -> String {
        let mut out = String::with_capacity(16 * 1024);
        // Writing to a string cannot fail, and none of our metrics does.
        if text::encode(&mut out, &self.registry).is_err() {
            out = "# EOF\n".to_owned();
        }
        match format {
            Format::OpenMetrics => out,
            Format::Classic => classic::from_open_metrics(&out),
        }
    }
}
