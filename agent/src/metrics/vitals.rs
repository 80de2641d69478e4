//! What is read at the moment of a scrape: probes, events, losses, the history, and the process itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Unit;

use super::process::Own;
use crate::status::{Board, Snapshot};

#[derive(Debug)]
pub struct Vitals {
    pub board: Board,
}

impl Collector for Vitals {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.board.snapshot();
        kernel_side(&mut encoder, &now)?;
        history(&mut encoder, &now)?;
        if let Some(own) = Own::read() {
            own_process(&mut encoder, &own)?;
        }
        Ok(())
    }
}

fn kernel_side(out: &mut DescriptorEncoder<'_>, now: &Snapshot) -> fmt::Result {
    by_word(out, "trace502_events", "Events from the kernel, by kind", "kind", &now.status.events)?;
    let help =
        "What was lost on the way, by where: a busy kernel-side buffer, a full cap, a sink that could not follow";
    by_word(out, "trace502_events_lost", help, "where", &now.lost())?;
    if !now.status.probes.is_empty() {
        let help = "Whether this probe is attached, and by which provider";
        let mut family = out.encode_descriptor("trace502_probe_attached", help, None, MetricType::Gauge)?;
        let mut probes: Vec<_> = now.status.probes.iter().collect();
        probes.sort_unstable_by(|a, b| (&a.name, &a.provider).cmp(&(&b.name, &b.provider)));
        // The same line twice would spoil the whole scrape.
        probes.dedup_by(|a, b| (&a.name, &a.provider) == (&b.name, &b.provider));
        for probe in probes {
            let labels = [("probe", probe.name.as_str()), ("provider", probe.provider.as_str())];
            ConstGauge::new(i64::from(probe.attached)).encode(family.encode_family(&labels)?)?;
        }
    }
    let mut by_name: BTreeMap<&str, i64> = BTreeMap::new();
    for proxy in &now.status.proxies {
        *by_name.entry(proxy.name.as_str()).or_default() += 1;
    }
    let help = "Processes that are watched as proxies";
    let mut family = out.encode_descriptor("trace502_proxy_processes", help, None, MetricType::Gauge)?;
    for (name, count) in by_name.into_iter().take(100) {
        ConstGauge::new(count).encode(family.encode_family(&[("proxy", name)])?)?;
    }
    gauge(out, "trace502_ready", "Whether the probes are attached and the engine reports", {
        i64::from(now.not_ready(Instant::now()).is_none())
    })
}

fn history(out: &mut DescriptorEncoder<'_>, now: &Snapshot) -> fmt::Result {
    if !now.history.on {
        return Ok(());
    }
    let written = ConstCounter::new(now.history.written);
    let help = "Incidents written to the history on disk";
    written.encode(out.encode_descriptor("trace502_history_incidents", help, None, ConstCounter::<u64>::TYPE)?)?;
    let size = ConstGauge::new(i64::try_from(now.history.bytes).unwrap_or(i64::MAX));
    let help = "Size of the history on disk";
    size.encode(out.encode_descriptor("trace502_history_size", help, Some(&Unit::Bytes), MetricType::Gauge)?)?;
    gauge(out, "trace502_history_degraded", "Whether incidents wait in memory because the disk does not take them", {
        i64::from(now.history.trouble.is_some())
    })
}

fn own_process(out: &mut DescriptorEncoder<'_>, own: &Own) -> fmt::Result {
    let seconds = Some(&Unit::Seconds);
    let bytes = Some(&Unit::Bytes);
    let whole = |n: u64| ConstGauge::new(i64::try_from(n).unwrap_or(i64::MAX));
    let help = "CPU time of the agent, user and system";
    ConstCounter::new(own.cpu_seconds).encode(out.encode_descriptor(
        "process_cpu",
        help,
        seconds,
        MetricType::Counter,
    )?)?;
    let help = "Start time of the agent since 1970";
    ConstGauge::new(own.start_seconds).encode(out.encode_descriptor(
        "process_start_time",
        help,
        seconds,
        MetricType::Gauge,
    )?)?;
    let help = "Resident memory of the agent";
    whole(own.resident).encode(out.encode_descriptor("process_resident_memory", help, bytes, MetricType::Gauge)?)?;
    let help = "Virtual memory of the agent";
    whole(own.virtual_).encode(out.encode_descriptor("process_virtual_memory", help, bytes, MetricType::Gauge)?)?;
    gauge(out, "process_threads", "Threads of the agent", own.threads)?;
    if let Some(open) = own.open_files {
        gauge(out, "process_open_fds", "Open files of the agent", open)?;
    }
    if let Some(most) = own.most_files {
        gauge(out, "process_max_fds", "Files that the agent may open", most)?;
    }
    Ok(())
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    ConstGauge::new(value).encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn by_word(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    counts: &BTreeMap<String, u64>,
) -> fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (word, count) in counts {
        ConstCounter::new(*count).encode(family.encode_family(&[(label, word.as_str())])?)?;
    }
    Ok(())
}
