//! `trace502 live`: each gateway error as it happens, with its cause.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::belt::{Belt, Waiting, belt};
use super::tuning::Tuning;
use super::{known_causes, tell};
use crate::correlate::Counters;
use crate::filter::Filter;
use crate::logs::Word;
use crate::model::{Incident, Notice};
use crate::screen;
use crate::screen::query::Query;
use crate::screen::source::{MissingProbe, Snapshot, UpstreamSeen, WatchedProxy};
use crate::sinks::{Summary, json, plain};
use crate::watch::{Choice, Stop, Stopper, Totals, Wanted, Watch, WatchError};
use crate::when;

/// Incidents that wait for a slow terminal or pipe; beyond, they are counted as lost.
const WAITING: usize = 65_536;

/// Print each gateway error as it happens, with its cause, the evidence and what to do
#[derive(Clone, Debug, clap::Args)]
pub struct Live {
    #[command(flatten)]
    pub filter: Filter,
    /// One block of text for each error
    #[arg(long, conflicts_with = "json")]
    pub plain: bool,
    /// One JSON object on a line for each error
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub logs: LogWords,
    /// Stop after this time: 30s, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = when::parse_duration)]
    pub duration: Option<Duration>,
    /// Stop after this many errors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    #[command(flatten)]
    pub tuning: Tuning,
}

/// Which logs of proxies to follow.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LogWords {
    /// Follow this log of a proxy too, for errors that are encrypted on the wire: nginx:FILE, nginx-access:FILE,
    /// haproxy:FILE, apache:FILE, caddy:FILE. The error logs of a running nginx or Apache are found without it;
    /// `off`: do not look for them
    #[arg(long, value_name = "FORMAT:FILE")]
    pub log: Vec<Word>,
}

impl LogWords {
    pub fn wanted(&self) -> crate::logs::Wanted {
        self.log.iter().collect()
    }
}

impl Live {
    /// What prints the incidents of a recording.
    pub fn printing(filter: Filter, json: bool, count: Option<u64>) -> Live {
        let tuning = Tuning { ring: 0, head: 0, connections: None, no_tls: false, any: false };
        Live { filter, plain: !json, json, logs: LogWords::default(), duration: None, count, tuning }
    }

    pub fn run(self) -> anyhow::Result<u8> {
        known_causes(&self.filter)?;
        let (stop, stopper) = Stop::new().context("cannot make a pair of sockets")?;
        let full_screen = !self.plain && !self.json && screen::usable();
        if !full_screen {
            // The screen waits for them itself: it has a terminal to give back.
            stopper.at_signals().context("cannot wait for signals")?;
        }
        let wanted = Wanted::new(self.filter.proxy.iter().map(String::as_str))?;
        let choice = Choice { kernel: self.tuning.options(), proxies: wanted, logs: self.logs.wanted() };
        let mut watch = Watch::start(&choice, |_| Ok::<_, WatchError>(None))?;
        if full_screen {
            return show(watch, stop, &stopper, self);
        }
        greet(&watch, self.tuning.any);
        for path in watch.missing(&choice.proxies.groups) {
            tell(format_args!("there is no cgroup {} yet; waiting for it", path.as_str()));
        }
        let (send, receive) = belt(WAITING);
        let running = thread::Builder::new().name("watch".into()).spawn(move || drive(watch, &stop, &send))?;
        let mut printer = Printer::new(self, plain::Blocks::from_now);
        printer.print_all(&receive, &stopper)?;
        drop(receive);
        let end = running.join().map_err(|_| anyhow::anyhow!("the watch broke off"))?;
        printer.close(&end);
        Ok(0)
    }
}

/// Incidents that wait for the screen to draw.
const DRAWN: usize = 20_000;

/// The full-screen view, until the user leaves or the time is up.
fn show(mut watch: Watch, stop: Stop, stopper: &Stopper, live: Live) -> anyhow::Result<u8> {
    let (feed, mut source) = screen::channel(DRAWN);
    let deadline = live.duration.and_then(|time| Instant::now().checked_add(time));
    let mut left = live.count;
    let filter = live.filter.clone();
    let running = thread::Builder::new().name("watch".into()).spawn(move || {
        feed.publish(snapshot(&mut watch));
        let mut notices = Vec::new();
        let mut on = true;
        while on {
            on = watch.step(&stop, &mut notices);
            on &= deadline.is_none_or(|at| Instant::now() < at);
            if !on {
                // What is still on its way belongs into the last line.
                watch.finish(&mut notices);
            }
            for notice in notices.drain(..) {
                if let Notice::Incident(incident) = notice {
                    if filter.matches(&incident) {
                        left = left.map(|left| left.saturating_sub(1));
                    }
                    feed.offer(Arc::from(incident));
                }
            }
            on &= left != Some(0);
            if watch.take_beat() || !on {
                feed.publish(snapshot(&mut watch));
            }
        }
        feed.stop();
        watch.leave();
    })?;
    let query = Query { filter: live.filter, ..Query::default() };
    let options = screen::Options { query, directory: std::env::current_dir().unwrap_or_default() };
    let farewell = screen::run(&mut source, options);
    stopper.stop();
    running.join().map_err(|_| anyhow::anyhow!("the watch broke off"))?;
    // The terminal may be gone.
    let _ = writeln!(io::stderr(), "trace502: {}", farewell?);
    Ok(0)
}

fn snapshot(watch: &mut Watch) -> Snapshot {
    let traffic = watch.traffic();
    let missing = watch.probes().iter().filter(|probe| !probe.attached);
    let mut lost = watch.totals().lost.clone();
    lost.remove(UNREADABLE);
    Snapshot {
        proxies: watch.proxies().iter().map(|(pid, name)| WatchedProxy { name: name.clone(), pid: *pid }).collect(),
        upstreams: traffic
            .connections
            .iter()
            .map(|(addr, count)| UpstreamSeen { addr: addr.to_string(), connections: *count })
            .collect(),
        requests: Some(traffic.requests),
        lost,
        missing: missing.map(|probe| MissingProbe { probe: probe.name.into(), without: probe.lost.into() }).collect(),
    }
}

/// A counter that is no loss of an error: payload in calls without a buffer that we could read.
const UNREADABLE: &str = "unreadable_payload";

fn greet(watch: &Watch, any: bool) {
    let proxies: Vec<String> = watch.proxies().iter().map(|(pid, name)| format!("{name} (pid {pid})")).collect();
    match proxies.len() {
        0 if any => {
            tell(format_args!("no proxy is running yet; watching for one to start, or for who listens and dials"))
        }
        0 => tell(format_args!("no proxy is running yet; watching for one to start")),
        1..=4 => tell(format_args!("watching {}", proxies.join(", "))),
        more => tell(format_args!("watching {} and {} more", proxies[..3].join(", "), more - 3)),
    }
    for probe in watch.probes().iter().filter(|probe| !probe.attached) {
        tell(format_args!("without {}: {}", probe.name, probe.lost));
    }
    for line in watch.logs() {
        tell(line);
    }
}

/// What a watch leaves behind.
pub struct End {
    pub counters: Counters,
    pub totals: Totals,
    /// Incidents that nobody took in time.
    pub unprinted: u64,
}

/// Runs a watch until it is stopped or nobody listens any more.
pub fn drive(mut watch: Watch, stop: &Stop, to: &Belt) -> End {
    let mut unprinted = 0;
    let mut notices = Vec::new();
    let mut on = true;
    while on {
        on = watch.step(stop, &mut notices);
        if !on {
            watch.finish(&mut notices);
        }
        notices.retain(|notice| matches!(notice, Notice::Incident(_)));
        if !notices.is_empty() {
            match to.put(std::mem::take(&mut notices)) {
                Some(over) => unprinted += over as u64,
                None => on = false,
            }
        }
    }
    let end = End { counters: watch.counters(), totals: watch.totals().clone(), unprinted };
    watch.leave();
    end
}

/// Writes incidents that the filter lets through.
pub struct Printer {
    live: Live,
    blocks: plain::Blocks,
    summary: Summary,
    deadline: Option<Instant>,
    left: Option<u64>,
    out: BufWriter<io::Stdout>,
    /// Room for one line.
    line: Vec<u8>,
}

impl Printer {
    /// `blocks`: whether the day stands above the first error.
    pub fn new(live: Live, blocks: fn(plain::Style) -> plain::Blocks) -> Printer {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|word| word.is_empty());
        let deadline = live.duration.and_then(|time| Instant::now().checked_add(time));
        let left = live.count;
        let blocks = blocks(plain::Style { colour });
        let out = BufWriter::with_capacity(1 << 16, io::stdout());
        Printer { live, blocks, summary: Summary::default(), deadline, left, out, line: Vec::new() }
    }

    /// Prints until the watch ends, the time is up, or enough was printed.
    fn print_all(&mut self, from: &Waiting, stopper: &Stopper) -> anyhow::Result<()> {
        let far = Duration::from_secs(3600);
        loop {
            // In a flood one write takes out all that there is.
            while let Ok(incidents) = from.next(Duration::ZERO) {
                if !self.print_each(&incidents)? {
                    stopper.stop();
                    return self.flush().map(drop);
                }
            }
            if !self.flush()? {
                stopper.stop();
                return Ok(());
            }
            let wait = self.deadline.map_or(far, |at| at.saturating_duration_since(Instant::now()));
            match from.next(wait) {
                Ok(incidents) => {
                    if !self.print_each(&incidents)? {
                        stopper.stop();
                        return self.flush().map(drop);
                    }
                }
                Err(RecvTimeoutError::Timeout) if self.deadline.is_some() => {
                    // What is still on its way is printed when the watch ends.
                    self.deadline = None;
                    stopper.stop();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn print_each(&mut self, incidents: &[Notice]) -> anyhow::Result<bool> {
        for notice in incidents {
            if let Notice::Incident(incident) = notice
                && !self.print(incident)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `false`: enough, or nobody reads any more.
    pub fn print(&mut self, incident: &Incident) -> anyhow::Result<bool> {
        if !self.live.filter.matches(incident) {
            return Ok(true);
        }
        self.summary.add(incident);
        if self.live.json {
            self.line.clear();
            json::write(&mut self.line, incident)?;
        } else {
            self.line = self.blocks.next(incident).into_bytes();
        }
        if !written(self.out.write_all(&self.line))? {
            return Ok(false);
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(self.left != Some(0))
    }

    /// Shows what was printed; `false`: nobody reads any more.
    pub fn flush(&mut self) -> anyhow::Result<bool> {
        written(self.out.flush())
    }

    /// The last lines, on standard error so that they do not mix with JSON.
    pub fn close(&mut self, end: &End) {
        for (place, count) in &end.totals.lost {
            if place != UNREADABLE {
                self.summary.lose(place, *count);
            }
        }
        self.summary.counters(&end.counters);
        self.summary.lose("output", end.unprinted);
        let _ = io::stderr().write_all(self.summary.text().as_bytes());
    }
}

/// `false`: nobody reads any more.
fn written(result: io::Result<()>) -> anyhow::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}
