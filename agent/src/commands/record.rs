//! `trace502 record` and `trace502 replay`: the kernel's events to a file, and the same attribution from it.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::live::{End, Live, LogWords, Printer};
use super::tuning::Tuning;
use super::{Usage, known_causes, tell};
use crate::filter::Filter;
use crate::model::Notice;
use crate::recording::{Counts, Ending, Play, Reader, Recorder, RecordingError, Replay as Tape};
use crate::sinks::{Summary, json, plain};
use crate::text;
use crate::watch::{Choice, Stop, Totals, Wanted, Watch, WatchError};
use crate::when;

/// Write raw kernel events to a file, for `trace502 replay` on any machine
#[derive(Clone, Debug, clap::Args)]
pub struct Record {
    /// Where to; an existing file is replaced; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Treat these as proxies too: names of executables, process ids, or all processes in a cgroup
    #[arg(long, value_name = "NAME|PID|cgroup:PATH", value_delimiter = ',')]
    pub proxy: Vec<String>,
    /// Also print each error as one JSON object on a line, as `replay --json` will
    #[arg(long)]
    pub json: bool,
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
        let piped = is_stdio(&self.output);
        if piped && self.json {
            return Err(Usage("-o - and --json would both write to standard output; record to a file".into()).into());
        }
        if piped && std::io::stdout().is_terminal() {
            return Err(Usage("a recording is no text for a terminal; send it into a pipe or a file".into()).into());
        }
        let (stop, stopper) = Stop::new().context("cannot make a pair of sockets")?;
        stopper.at_signals().context("cannot wait for signals")?;
        let proxies = Wanted::new(self.proxy.iter().map(String::as_str))?;
        let choice = Choice { kernel: self.tuning.options(), proxies, logs: self.logs.wanted() };
        let mut recorder = None;
        let mut watch = Watch::start::<StartError>(&choice, |header| {
            let started = if piped { Recorder::to_stdout(header)? } else { Recorder::create(&self.output, header)? };
            Ok(Some(recorder.insert(started).tape()))
        })?;
        if std::io::stderr().is_terminal() {
            let to = if piped { "standard output".into() } else { self.output.display().to_string() };
            tell(format_args!("recording to {to}; Ctrl-C ends it"));
        }
        if let Some(duration) = self.duration {
            std::thread::Builder::new().name("deadline".into()).spawn(move || {
                std::thread::sleep(duration);
                stopper.stop();
            })?;
        }
        let mut notices = Vec::new();
        let mut told = Summary::default();
        let mut on = true;
        while on {
            on = watch.step(&stop, &mut notices);
            if !on {
                watch.finish(&mut notices);
            }
            for notice in notices.drain(..) {
                if let Notice::Incident(incident) = notice {
                    told.add(&incident);
                    if self.json {
                        print(&json::line(&incident)?)?;
                    }
                }
            }
            if recorder.as_ref().is_some_and(Recorder::failed) {
                on = false;
            }
        }
        let totals: Counts = watch.totals().lost.clone();
        told.counters(&watch.counters());
        watch.leave();
        let recorder = recorder.context("there is no recording")?;
        let summary = recorder.finish(totals)?;
        told.lose("entries of the recording", summary.lost);
        tell(format_args!("{} entries in {}", summary.entries, text::size(summary.bytes)));
        std::io::stderr().write_all(told.text().as_bytes())?;
        Ok(0)
    }
}

/// Whether the name means standard input or output; a file of that name is `./-`.
fn is_stdio(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The recording is what counts: whoever read the lines may have seen enough.
fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the records"),
        _ => Ok(()),
    }
}

/// Attribute the gateway errors of a recording: no privileges, any machine, the same result
#[derive(Clone, Debug, clap::Args)]
pub struct Replay {
    /// What `record` wrote; - is standard input
    pub file: PathBuf,
    #[command(flatten)]
    pub filter: Filter,
    /// One JSON object on a line for each error
    #[arg(long)]
    pub json: bool,
    /// Stop after this many errors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

impl Replay {
    pub fn run(self) -> anyhow::Result<u8> {
        known_causes(&self.filter)?;
        let piped = is_stdio(&self.file);
        let file = if piped { "standard input".to_owned() } else { self.file.display().to_string() };
        let reader = if piped { Reader::of_stdin() } else { Reader::open(&self.file) };
        let reader = reader.map_err(|error| match error {
            // It names the file itself.
            RecordingError::File { .. } => anyhow::Error::new(error),
            other => anyhow::Error::new(other).context(file.clone()),
        })?;
        let mut tape = Tape::new(reader);
        let mut printer = Printer::new(Live::printing(self.filter, self.json, self.count), plain::Blocks::new);
        let mut play = Play::new(tape.reader().header());
        let mut notices = Vec::new();
        let mut on = true;
        'tape: while on {
            on = play.step(&mut tape, &mut notices).with_context(|| file.clone())?;
            for notice in notices.drain(..) {
                if let Notice::Incident(incident) = notice
                    && !printer.print(&incident)?
                {
                    printer.flush()?;
                    break 'tape;
                }
            }
            on &= printer.flush()?;
        }
        if let Ending::Cut { at } = tape.reader().ending() {
            tell(format_args!("{file} is cut off at byte {at}; what comes before was used"));
        }
        // Beyond the cut no question has an answer.
        let whole = matches!(tape.reader().ending(), Ending::Complete(_));
        if let Some(mismatch) = tape.mismatch().filter(|_| whole) {
            tell(format_args!(
                "this version asks other questions than the recording answers ({mismatch}), {}",
                text::count(tape.mismatches(), "time")
            ));
        }
        let (counters, lost) = play.end();
        printer.close(&End { counters, totals: Totals { lost, ..Totals::default() }, unprinted: 0 });
        Ok(0)
    }
}
