//! The running watch: kernel records in, notices out. The one thread that owns the kernel side, the host and the
//! engine; whoever shows or keeps what it says stands behind a bounded channel.

mod logs;
mod proxies;
mod stop;

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use trace502_ebpf::{Kind, LOSSES, Table};

use self::logs::Logs;
use self::proxies::Tracked;
pub use self::proxies::{FOUND, Wanted, WordError, running};
pub use self::stop::{Stop, Stopper};
use crate::correlate::{Counters, Engine};
use crate::decode;
use crate::host::{HostError, LiveHost, monotonic};
use crate::kernel::findings::{Finding, Level};
use crate::kernel::preflight::{self, Preflight};
use crate::kernel::probes::PROBES;
use crate::kernel::report::ProbeReport;
use crate::kernel::symbols::Symbols;
use crate::kernel::{Kernel, LoadError, Options, Ring, Traffic, Woken};
use crate::logs::LogsError;
use crate::model::{Fact, GroupPath, Nanos, Notice, Observation};
use crate::recording::{Counts, Header, RecordingHost, SKIPPED, Tape, facts_lost};

/// Counters of the kernel side are read this often.
const BEAT: Nanos = 1_000_000_000;
/// No two looks at the ring lie nearer together: in a flood the records of one error come as one, and a wake-up costs
/// more than what it brings.
const PACE: Nanos = 300_000;
/// The same right after a look that brought this many: then there are so many errors that looking costs more than
/// waiting, and the ring has room for a hundred times that.
const FLOOD: usize = 16;
const FLOOD_PACE: Nanos = 1_000_000;
/// Records taken before the engine is asked for what it has: keeps the first error of a flood from waiting for the last.
const BATCH: usize = 512;
/// How long leaving may take: to take in what is left, and to answer what is open. The agent has to end within a
/// second, its history included.
const LAST_RECORDS: Nanos = 200_000_000;
const LAST_ANSWERS: Nanos = 150_000_000;
/// More than the ring holds.
const RING: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("{0}")]
    Hopeless(String),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Logs(#[from] LogsError),
}

/// What the user may choose of a watch.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    pub kernel: Options,
    pub proxies: Wanted,
    pub logs: crate::logs::Wanted,
}

/// What came in and what did not, in figures that only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub events: BTreeMap<&'static str, u64>,
    pub lost: BTreeMap<String, u64>,
}

pub struct Watch {
    kernel: Kernel,
    ring: Ring,
    host: RecordingHost<LiveHost>,
    engine: Engine,
    tape: Option<Tape>,
    tracked: Tracked,
    logs: Logs,
    totals: Totals,
    kernel_lost: [u64; LOSSES],
    kernel_skipped: [u64; PROBES.len()],
    next_beat: Nanos,
    last_look: Nanos,
    pace: Nanos,
    /// There was a beat that nobody has asked for.
    beaten: bool,
}

impl Watch {
    /// Attaches every probe and finds what exists. `record` makes the tape, once the kernel's names are known.
    pub fn start<E: From<WatchError>>(
        choice: &Choice,
        record: impl FnOnce(&Header) -> Result<Option<Tape>, E>,
    ) -> Result<Watch, E> {
        // Before the probes, which take a second: a log that cannot be read is told at once.
        let mut logs = Logs::start(&choice.logs).map_err(WatchError::Logs)?;
        let mut kernel = attach(&choice.kernel)?;
        let tape = record(&header(&kernel))?;
        let mut symbols = Symbols::new(Path::new("/"));
        let mut host =
            LiveHost::open(Box::new(move |at| symbols.name(at).map(str::to_owned))).map_err(WatchError::Host)?;
        let tracked = Tracked::start(&mut kernel, &choice.proxies, &mut host).map_err(WatchError::Load)?;
        for pid in tracked.proxies().keys() {
            logs.came(*pid, 0);
        }
        logs.look(monotonic(), tracked.proxies(), &mut host);
        let ring = Ring::new(kernel.take_ring().map_err(WatchError::Load)?);
        kernel.find_existing();
        Ok(Watch {
            kernel,
            ring,
            host: RecordingHost::new(host, tape.clone()),
            engine: Engine::new(),
            tape,
            tracked,
            logs,
            totals: Totals::default(),
            kernel_lost: [0; LOSSES],
            kernel_skipped: [0; PROBES.len()],
            next_beat: 0,
            last_look: 0,
            pace: PACE,
            beaten: false,
        })
    }

    /// Waits until something is due, takes it in, and hands over what came of it. `false`: stopped.
    pub fn step(&mut self, stop: &Stop, notices: &mut Vec<Notice>) -> bool {
        let mut now = monotonic();
        if let Some(early) = (self.last_look + self.pace).checked_sub(now) {
            std::thread::sleep(Duration::from_nanos(early));
            now = monotonic();
        }
        let due = self.engine.next_deadline().unwrap_or(Nanos::MAX).min(self.next_beat).min(self.logs.wake());
        let timeout = Duration::from_nanos(due.saturating_sub(now));
        let woken = self.ring.wait(stop.as_fd(), self.logs.changes(now), timeout);
        // One batch: what it came to is shown before the rest of a flood is taken in. A deadline has passed when all
        // that was told before it is in: until then, time stands where the records are.
        let mut now = monotonic();
        self.last_look = now;
        let taken = self.take_in();
        self.pace = if taken >= FLOOD { FLOOD_PACE } else { PACE };
        if taken < BATCH {
            // A line tells what the kernel side has told before it.
            if self.logs.rested(monotonic()) {
                self.read_logs();
            }
        } else {
            self.last_look = 0;
            // What a flood pushed out is to be known before anything is made of its absence.
            self.count_losses(now);
            now = self.engine.clock();
        }
        self.pass(now);
        notices.append(&mut self.engine.drain());
        woken != Woken::Stop
    }

    /// Takes in what is left, and lets every open question be answered with what is there.
    pub fn finish(&mut self, notices: &mut Vec<Notice>) {
        // A flood must not keep us: what there is no time for is counted.
        let until = monotonic() + LAST_RECORDS;
        while self.take_in() == BATCH && monotonic() < until {}
        let unread = self.ring.drain(RING, |_| {});
        self.read_logs();
        self.beat(monotonic());
        if unread > 0 {
            // What was not seen proves nothing.
            self.engine.lost(monotonic(), unread as u64);
            if let Some(tape) = &self.tape {
                tape.lost(BTreeMap::from([("unread_at_the_end".into(), unread as u64)]));
            }
        }
        if let Some(tape) = &self.tape {
            tape.tick(monotonic());
            tape.finish();
        }
        let until = monotonic() + LAST_ANSWERS;
        let open = self.engine.finish_while(&mut self.host, || monotonic() < until);
        for (place, count) in [("unread_at_the_end", unread), ("unanswered_at_the_end", open)] {
            if count > 0 {
                *self.totals.lost.entry(place.into()).or_default() += count as u64;
            }
        }
        notices.append(&mut self.engine.drain());
    }

    /// Leaves the probes to the end of the process. Detached one by one, each would wait for every CPU; the kernel
    /// takes them all back at once.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// Takes in at most a batch of records; returns how many.
    fn take_in(&mut self) -> usize {
        let Watch { kernel, ring, host, engine, tape, tracked, logs, totals, .. } = self;
        let (mut became, mut unnamed) = (false, false);
        let taken = ring.drain(BATCH, |record| {
            let decoded = decode::decode(record, &kernel.names);
            if let Ok(seen) = &decoded
                && engine.next_deadline().is_some_and(|due| due < seen.at && due > logs.known())
            {
                // We were held up: what answers it may stand in a log by now.
                hear(host, engine, tape.as_ref(), tracked, logs, totals);
            }
            if let Some(tape) = tape {
                tape.event(record);
            }
            let seen = match decoded {
                Ok(seen) => seen,
                Err(_) => {
                    *totals.lost.entry("decode".into()).or_default() += 1;
                    engine.lost(engine.clock(), 1);
                    return;
                }
            };
            *totals.events.entry(kind_of(record)).or_default() += 1;
            host.inner().observe(&seen);
            follow(tracked, kernel, logs, &seen);
            unnamed |= matches!(&seen.fact, Fact::Listening(listening) if listening.unnamed());
            became |= matches!(&seen.fact, Fact::Became(proc) if proc.is_proxy);
            engine.observe(seen, host);
        });
        if unnamed {
            kernel.find_listeners();
        }
        if became {
            // They have connections and listeners already.
            kernel.find_more();
        }
        taken
    }

    fn read_logs(&mut self) {
        let Watch { host, engine, tape, tracked, logs, totals, .. } = self;
        hear(host, engine, tape.as_ref(), tracked, logs, totals);
    }

    /// Sees to what is due by now.
    fn pass(&mut self, now: Nanos) {
        let due = self.engine.next_deadline().filter(|due| *due <= now);
        if due.is_some_and(|due| due > self.logs.known()) {
            self.read_logs();
        }
        if now >= self.next_beat {
            self.beat(now);
        } else if due.is_none() {
            return;
        }
        if let Some(tape) = &self.tape {
            tape.tick(now);
        }
        self.engine.tick(now, &mut self.host);
    }

    /// Reads the counters of the kernel side.
    fn beat(&mut self, now: Nanos) {
        self.next_beat = now + BEAT;
        self.beaten = true;
        self.logs.look(now, self.tracked.proxies(), self.host.inner());
        self.count_losses(now);
    }

    /// Asks the kernel side for what was lost on the way.
    fn count_losses(&mut self, now: Nanos) {
        let (lost, skipped) = (self.kernel.lost(), self.kernel.skipped());
        let more = |now: &[u64], before: &[u64]| {
            now.iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).collect::<Vec<_>>()
        };
        let news: Counts = places()
            .zip([more(&lost, &self.kernel_lost), more(&skipped, &self.kernel_skipped)].concat())
            .filter(|(_, more)| *more > 0)
            .collect();
        (self.kernel_lost, self.kernel_skipped) = (lost, skipped);
        if news.is_empty() {
            return;
        }
        for (place, more) in &news {
            *self.totals.lost.entry(place.clone()).or_default() += more;
        }
        let records = facts_lost(&news);
        if let Some(tape) = &self.tape {
            tape.lost(news);
        }
        if records > 0 {
            self.engine.lost(now, records);
        }
    }

    /// Whether the counters were read since the last call.
    pub fn take_beat(&mut self) -> bool {
        std::mem::take(&mut self.beaten)
    }

    /// Watches these proxies, too.
    pub fn want(&mut self, wanted: &Wanted) -> Result<(), LoadError> {
        self.tracked.want(&mut self.kernel, wanted, self.host.inner())
    }

    /// Those of these cgroups that do not exist now.
    pub fn missing<'a>(&mut self, groups: &'a [GroupPath]) -> Vec<&'a GroupPath> {
        groups.iter().filter(|path| self.host.inner().group(path).0 == 0).collect()
    }

    pub fn counters(&self) -> Counters {
        self.engine.counters()
    }

    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    pub fn probes(&self) -> &[ProbeReport] {
        &self.kernel.reports
    }

    /// Traffic since the start, well or not.
    pub fn traffic(&mut self) -> Traffic {
        self.kernel.traffic()
    }

    /// What a process of a proxy is, or was, called.
    pub fn proxy_name(&self, pid: u32) -> Option<&str> {
        self.tracked.name(pid)
    }

    /// Logs that are followed, and whether they exist yet.
    pub fn logs(&self) -> Vec<String> {
        self.logs.told()
    }

    /// Proxies that are watched: process id and name.
    pub fn proxies(&self) -> &BTreeMap<u32, String> {
        self.tracked.proxies()
    }
}

/// Where the kernel side loses something: what its programs count, then how often they were passed over.
pub fn places() -> impl Iterator<Item = String> {
    (0..LOSSES).map(place).chain(PROBES.iter().map(|probe| format!("{SKIPPED}{}", probe.name)))
}

/// Name of a counter of the kernel side. Slot 0 counts payload in buffers that could not be read.
fn place(slot: usize) -> String {
    if let Some(table) = Table::ALL.into_iter().find(|table| table.slot() == slot) {
        return table.name().into();
    }
    match Kind::ALL.iter().find(|kind| **kind as usize == slot) {
        Some(kind) => format!("ring_{}", kind.name()),
        None => "unreadable_payload".into(),
    }
}

fn kind_of(record: &[u8]) -> &'static str {
    decode::kind(record).map_or("unknown", Kind::name)
}

fn attach(options: &Options) -> Result<Kernel, WatchError> {
    let preflight = Preflight::read(Path::new("/"));
    if preflight.hopeless() {
        let findings = preflight.findings();
        let says = findings.iter().filter(|finding| finding.level == Level::Fatal).map(advice);
        return Err(WatchError::Hopeless(says.collect::<Vec<_>>().join("\n")));
    }
    // If that fails and matters, loading fails, and says why.
    let _ = preflight::raise_memlock(&preflight);
    let kernel = Kernel::load(options)?;
    kernel.complete()?;
    give_back();
    Ok(kernel)
}

/// The kernel's types were some twenty megabytes, in pieces so small that the allocator would keep them.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no conditions; it only looks for pages that hold nothing.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What is wrong and the way out, as one paragraph.
fn advice(finding: &Finding) -> String {
    let mut text = format!("{}; {}", finding.says, finding.fix);
    for command in &finding.run {
        text.push_str("\n    ");
        text.push_str(command);
    }
    text
}

fn header(kernel: &Kernel) -> Header {
    let started = monotonic();
    Header {
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
        started_wall_micros: crate::when::now_micros(),
        started,
        names: serde_json::to_value(&kernel.names).unwrap_or_default(),
        settings: serde_json::Value::Null,
    }
}

/// Takes in what proxies' logs say by now.
fn hear(
    host: &mut RecordingHost<LiveHost>,
    engine: &mut Engine,
    tape: Option<&Tape>,
    tracked: &Tracked,
    logs: &mut Logs,
    totals: &mut Totals,
) {
    let mut errors = Vec::new();
    logs.read(tracked.proxies(), host.inner(), |at, error| errors.push((at, error)));
    for (at, error) in errors {
        *totals.events.entry("log").or_default() += 1;
        if let Some(tape) = tape {
            tape.log(at, error.clone());
        }
        engine.log(at, &error, host);
    }
    let long = logs.health().long;
    if long > 0 {
        totals.lost.insert("long_log_lines".into(), long);
    }
}

/// Keeps to proxies as they come and go.
fn follow(tracked: &mut Tracked, kernel: &mut Kernel, logs: &mut Logs, seen: &Observation) {
    match &seen.fact {
        Fact::Exec(proc) | Fact::Became(proc) | Fact::Fork { child: proc, .. } if proc.is_proxy => {
            // What was hooked is the program that it was, which may be the same file.
            let before = matches!(seen.fact, Fact::Exec(_)).then(|| kernel.unhook(proc.pid));
            tracked.came(proc.pid, &proc.comm);
            kernel.watch_connect(proc.pid);
            kernel.watch_tls(proc.pid);
            if let Some(before) = before {
                kernel.let_go(before);
            }
            logs.came(proc.pid, seen.at);
        }
        // By then it has its libraries: at its start it had none.
        Fact::Listening(listening) if listening.is_proxy => {
            kernel.watch_connect(listening.pid);
            kernel.watch_tls(listening.pid);
        }
        // Gone, or become something that is no proxy: a helper that a proxy runs, a log that it pipes into.
        Fact::Exit { proc, .. } | Fact::Exec(proc) | Fact::Became(proc) if tracked.went(proc.pid) => {
            kernel.forget(proc.pid);
            logs.went(proc.pid);
        }
        _ => {}
    }
}
