//! `trace502 record` and `trace502 replay`: the kernel's events to a file, and the same attribution from it.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::live::{End, Live, LogWords, Printer, Tuning};
use crate::correlate::Engine;
use crate::decode;
use crate::filter::Filter;
use crate::kernel::offsets::Names;
use crate::model::{Nanos, Notice};
use crate::recording::{Counts, Ending, Entry, Reader, Recorder, RecordingError, Replay as Tape};
use crate::watch::{Choice, Stop, Totals, Wanted, Watch, WatchError};
use crate::when;

/// Write raw kernel events to a file, for `trace502 replay` on any machine
#[derive(Clone, Debug, clap::Args)]
pub struct Record {
    /// Where to; an existing file is replaced
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Treat these as proxies too: names of executables or process ids
    #[arg(long, value_name = "NAME|PID", value_delimiter = ',')]
    pub proxy: Vec<String>,
    #[command(flatten)]
    pub logs: LogWords,
    /// Stop after this time: 30s, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = when::parse_duration)]
    pub duration: Option<Duration>,
    #[command(flatten)]
    pub tuning: Tuning,
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Recording(#[from] RecordingError),
}

impl Record {
    pub fn run(self) -> anyhow::Result<u8> {
        let (stop, stopper) = Stop::new().context("cannot make a pair of sockets")?;
        stopper.at_signals().context("cannot wait for signals")?;
        let proxies = Wanted::new(self.proxy.iter().map(String::as_str));
        let choice = Choice { kernel: self.tuning.options(), proxies, logs: self.logs.wanted() };
        let mut recorder = None;
        let mut watch = Watch::start::<StartError>(&choice, |header| {
            let started = Recorder::create(&self.output, header)?;
            Ok(Some(recorder.insert(started).tape()))
        })?;
        if std::io::stderr().is_terminal() {
            eprintln!("trace502: recording to {}; Ctrl-C ends it", self.output.display());
        }
        if let Some(duration) = self.duration {
            let deadline = Instant::now() + duration;
            std::thread::Builder::new().name("deadline".into()).spawn(move || {
                std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                stopper.stop();
            })?;
        }
        let mut notices = Vec::new();
        let mut incidents = 0;
        let mut on = true;
        while on {
            on = watch.step(&stop, &mut notices);
            if !on {
                watch.finish(&mut notices);
            }
            incidents += notices.drain(..).filter(|notice| matches!(notice, Notice::Incident(_))).count();
            if recorder.as_ref().is_some_and(Recorder::failed) {
                on = false;
            }
        }
        let totals: Counts = watch.totals().lost.clone();
        watch.leave();
        let recorder = recorder.context("there is no recording")?;
        let summary = recorder.finish(totals)?;
        eprintln!(
            "trace502: {} entries, {}, {incidents} gateway errors",
            summary.entries,
            when::show_size(summary.bytes)
        );
        Ok(0)
    }
}

/// Attribute the gateway errors of a recording: no privileges, any machine, the same result
#[derive(Clone, Debug, clap::Args)]
pub struct Replay {
    pub file: PathBuf,
    #[command(flatten)]
    pub filter: Filter,
    /// One JSON object on a line for each error
    #[arg(long)]
    pub json: bool,
    /// Stop after this many errors
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

impl Replay {
    pub fn run(self) -> anyhow::Result<u8> {
        let file = self.file.display().to_string();
        let mut tape = Tape::new(Reader::open(&self.file).with_context(|| file.clone())?);
        let names = serde_json::from_value(tape.reader().header().names.clone()).unwrap_or_default();
        let mut printer = Printer::new(Live::printing(self.filter, self.json, self.count));
        let mut play = Play { engine: Engine::new(), names, totals: Totals::default(), clock: 0 };
        let mut notices = Vec::new();
        while play.step(&mut tape, &mut notices).with_context(|| file.clone())? {
            for notice in notices.drain(..) {
                if let Notice::Incident(incident) = notice
                    && !printer.print(&incident)?
                {
                    return Ok(0);
                }
            }
        }
        for notice in notices {
            if let Notice::Incident(incident) = notice {
                printer.print(&incident)?;
            }
        }
        if let Ending::Cut { at } = tape.reader().ending() {
            eprintln!("trace502: {file} is cut off at byte {at}; what comes before was used");
        }
        if let Some(mismatch) = tape.mismatch() {
            eprintln!(
                "trace502: this version asks other questions than the recording answers ({mismatch}), {} times",
                tape.mismatches()
            );
        }
        printer.close(&End { counters: play.engine.counters(), totals: play.totals, unprinted: 0 })?;
        Ok(0)
    }
}

/// The engine, fed from a recording as it was fed then.
struct Play {
    engine: Engine,
    names: Names,
    totals: Totals,
    clock: Nanos,
}

impl Play {
    /// `false` after the last entry, when the engine has said its last words too.
    fn step(
        &mut self,
        tape: &mut Tape<std::io::BufReader<std::fs::File>>,
        notices: &mut Vec<Notice>,
    ) -> anyhow::Result<bool> {
        match tape.next_step()? {
            Some(Entry::Event(record)) => match decode::decode(&record, &self.names) {
                Ok(seen) => {
                    self.clock = self.clock.max(seen.at);
                    self.engine.observe(&seen, tape);
                }
                Err(_) => *self.totals.lost.entry("decode".into()).or_default() += 1,
            },
            Some(Entry::Tick(now)) => {
                self.clock = self.clock.max(now);
                self.engine.tick(now, tape);
            }
            Some(Entry::Lost(counts)) => self.lost(counts),
            Some(Entry::Finish) => self.engine.finish(tape),
            Some(Entry::Log { at, error }) => {
                self.clock = self.clock.max(at);
                self.engine.log(at, &error, tape);
            }
            Some(Entry::Asked(_) | Entry::End(_)) => {}
            None => {
                // A recording that was cut off has no last words of its own; elsewhere nothing is left to say.
                self.engine.finish(tape);
                notices.append(&mut self.engine.drain());
                return Ok(false);
            }
        }
        notices.append(&mut self.engine.drain());
        Ok(true)
    }

    fn lost(&mut self, counts: Counts) {
        let records = counts.iter().filter(|(place, _)| place.starts_with("ring_")).map(|(_, count)| count).sum();
        for (place, count) in counts {
            *self.totals.lost.entry(place).or_default() += count;
        }
        if records > 0 {
            self.engine.lost(self.clock, records);
        }
    }
}
