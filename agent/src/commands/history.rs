//! `trace502 history`: what happened while nobody looked: the summary first, then the incidents.
//!
//! Reads the file that the agent writes, while it writes. Renders; counts are made in `history::summary`.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{Usage, known_causes, no_cgroups, tell};
use crate::config::{Config, Flags};
use crate::filter::Filter;
use crate::history::{Reader, Span, Summary, Table, ranked};
use crate::model::Incident;
use crate::sinks::{json, plain};
use crate::text::{clipped, safe};
use crate::when::{self, Micros};

/// Incidents shown after the summary, unless `--count` says otherwise.
const SHOWN: usize = 20;
/// Rows of each table of the summary.
const ROWS: usize = 10;

/// What happened while nobody looked: a summary by cause, upstream and process, then the incidents
#[derive(Clone, Debug, clap::Args)]
pub struct History {
    /// From when: 1h, 90m, 14:30, today, yesterday, 2026-11-21, "2026-11-21 03:00" (local time)
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = moment)]
    pub since: String,
    /// Until when, written the same way [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<String>,
    /// Only the incident with this id, as an exemplar of the metrics names it
    #[arg(long, value_name = "ID", conflicts_with_all = ["since", "until", "summary", "count"])]
    pub id: Option<String>,
    /// Show the last N incidents [default: 20; with --json all]
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
    /// Only the summary; with --json one object
    #[arg(long)]
    pub summary: bool,
    /// One JSON object per line, as `live --json` prints them
    #[arg(long)]
    pub json: bool,
    /// Look at them on the full screen of `live`
    #[arg(long, conflicts_with_all = ["json", "summary", "id", "count"])]
    pub tui: bool,
    /// The agent's history [default: what its configuration says]
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// The agent's configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub filter: Filter,
}

/// Whether it is a time; which one is said once it is known what is now.
pub fn moment(text: &str) -> Result<String, String> {
    when::parse_moment(text, when::now_micros()).map(|_| text.to_owned())
}

impl History {
    /// `trace502 history` on standard output.
    pub fn run(&self) -> anyhow::Result<u8> {
        if self.tui {
            return super::past::show(self, when::now_micros());
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        run(self, when::now_micros(), &mut out)?;
        match out.flush() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write the output"),
            _ => Ok(0),
        }
    }

    /// Where the agent writes.
    pub fn file(&self) -> anyhow::Result<PathBuf> {
        file(self.history.as_deref(), self.config.as_deref())
    }

    pub fn span(&self, now: Micros) -> anyhow::Result<Span> {
        let read = |text: &str| when::parse_moment(text, now).map_err(Usage);
        let since = read(&self.since)?;
        let until = self.until.as_deref().map(read).transpose()?;
        if until.is_some_and(|until| until < since) {
            return Err(Usage("--until is before --since: nothing can lie between".to_owned()).into());
        }
        Ok(Span { since: Some(since), until })
    }
}

/// The file that was named, or the one that the agent's configuration names.
pub fn file(history: Option<&Path>, config: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(file) = history {
        return Ok(file.to_owned());
    }
    let config = Config::load(config, &Flags::default())?;
    let off = || Usage("the configuration says `history = \"off\"`; name a file with --history".to_owned());
    Ok(config.settings.history.ok_or_else(off)?)
}

/// Prints what was asked for. A reader that closes early (`| head`) is no failure.
pub fn run(args: &History, now: Micros, out: &mut impl Write) -> anyhow::Result<()> {
    known_causes(&args.filter)?;
    no_cgroups(&args.filter)?;
    let reader = Reader::open(&args.file()?)?;
    let written = match &args.id {
        Some(id) => one(args, &reader, id, out)?,
        None => many(args, &reader, now, out)?,
    };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write the output"),
        _ => Ok(()),
    }
}

fn one(args: &History, reader: &Reader, id: &str, out: &mut impl Write) -> anyhow::Result<io::Result<()>> {
    let Some(incident) = reader.by_id(id)? else {
        bail!("no incident {} in the history; it may be older than what is kept", safe(id));
    };
    Ok(if args.json { json(out, &incident) } else { shown(out, &mut plain::Blocks::new(style()), &incident) })
}

fn many(args: &History, reader: &Reader, now: Micros, out: &mut impl Write) -> anyhow::Result<io::Result<()>> {
    let span = args.span(now)?;
    let until = span.until.unwrap_or(now);
    let mut summary = Summary::over(span.since.unwrap_or(until), until);
    let most = args.count.unwrap_or(SHOWN);
    let stream = args.json && !args.summary && args.count.is_none();
    let mut last: VecDeque<Incident> = VecDeque::new();
    let mut written = Ok(());
    let unreadable = reader.each(span, &args.filter, |incident| {
        if stream {
            written = json(out, &incident);
            return if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        }
        summary.add(&incident);
        if last.len() == most {
            last.pop_front();
        }
        if most > 0 {
            last.push_back(incident);
        }
        ControlFlow::Continue(())
    })?;
    if unreadable > 0 {
        tell(format_args!("{unreadable} records of another version could not be read and are not counted"));
    }
    if stream || written.is_err() {
        return Ok(written);
    }
    Ok(match (args.json, args.summary) {
        (true, true) => {
            serde_json::to_writer(&mut *out, &summary).map_err(io::Error::from).and_then(|()| writeln!(out))
        }
        (true, false) => last.iter().try_for_each(|incident| json(out, incident)),
        (false, only) => report(out, &summary, if only { None } else { Some(&last) }, span, until, style()),
    })
}

/// Colour where a person looks on and did not say no.
fn style() -> plain::Style {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|word| !word.is_empty());
    plain::Style { colour: io::stdout().is_terminal() && !unwanted && !cfg!(test) }
}

fn json(out: &mut impl Write, incident: &Incident) -> io::Result<()> {
    out.write_all(json::line(incident)?.as_bytes())
}

fn report(
    out: &mut impl Write,
    summary: &Summary,
    last: Option<&VecDeque<Incident>>,
    span: Span,
    until: Micros,
    style: plain::Style,
) -> io::Result<()> {
    let since = span.since.unwrap_or(until);
    let (from, to) = (when::local(since).stamp(), when::local(until).stamp());
    if summary.total == 0 {
        return writeln!(out, "no gateway errors from {from} to {to}");
    }
    let part = summary.attributed as f64 * 100.0 / summary.total as f64;
    writeln!(out, "{} gateway errors from {from} to {to}; the cause of {part:.1} % is known", grouped(summary.total))?;
    time_line(out, summary, &from, &to)?;
    let tables = [
        ("cause", &summary.by_cause),
        ("upstream", &summary.by_upstream),
        ("upstream process", &summary.by_process),
        ("proxy", &summary.by_proxy),
        ("status", &summary.by_status),
    ];
    let names = tables.iter().flat_map(|(_, table)| ranked(table).into_iter().take(ROWS));
    let widest = names.map(|(n, _)| name(n).chars().count()).max().unwrap_or(0).max("upstream process".len());
    tables.iter().try_for_each(|(title, rows)| table(out, title, rows, widest))?;
    let Some(last) = last.filter(|last| !last.is_empty()) else { return Ok(()) };
    if (last.len() as u64) < summary.total {
        writeln!(out, "\nthe last {} (more: --count N; all: --json)", last.len())?;
    }
    writeln!(out)?;
    let mut blocks = plain::Blocks::new(style);
    last.iter().try_for_each(|incident| shown(out, &mut blocks, incident))
}

/// As `live` shows it, with its id to ask for it again.
fn shown(out: &mut impl Write, blocks: &mut plain::Blocks, incident: &Incident) -> io::Result<()> {
    let block = blocks.next(incident);
    writeln!(out, "{}\n  id        {}\n", block.trim_end_matches('\n'), clipped(&incident.id, 100))
}

fn time_line(out: &mut impl Write, summary: &Summary, from: &str, to: &str) -> io::Result<()> {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let Some((most, at, width)) = summary.peak() else { return Ok(()) };
    let bar = |count: u64| match count {
        0 => ' ',
        // The smallest count is visible, the largest is full.
        count => BARS[usize::try_from((count * 8 - 1) / most).unwrap_or(7).min(7)],
    };
    let line: String = summary.slices.iter().map(|count| bar(*count)).collect();
    let width = when::show_duration(std::time::Duration::from_secs((width / 1_000_000).max(1).unsigned_abs()));
    writeln!(out, "\n  {line}  most: {} in {width} from {}", grouped(most), when::local(at).stamp())?;
    writeln!(out, "  {from}{to:>width$}", width = summary.slices.len() - from.len())
}

/// As much of a name as a column shows.
fn name(name: &str) -> String {
    clipped(name, 44)
}

fn table(out: &mut impl Write, title: &str, table: &Table, widest: usize) -> io::Result<()> {
    let rows = ranked(table);
    writeln!(out, "\n  {title:<widest$}  {:>9}  {:<19}  last", "count", "first")?;
    for (n, row) in rows.iter().take(ROWS) {
        let stamp =
            |time: &str| when::parse_rfc3339(time).map_or_else(|| clipped(time, 19), |t| when::local(t).stamp());
        let (first, last) = (stamp(&row.first), stamp(&row.last));
        writeln!(out, "  {:<widest$}  {:>9}  {first}  {last}", name(n), grouped(row.count))?;
    }
    if rows.len() > ROWS {
        let rest: u64 = rows.iter().skip(ROWS).map(|(_, row)| row.count).sum();
        writeln!(out, "  {:<widest$}  {:>9}", format!("{} more", rows.len() - ROWS), grouped(rest))?;
    }
    Ok(())
}

/// `12,345`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
