//! `trace502 report`: one page for the post-mortem, from the history or from JSON lines.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::history::{self, moment};
use super::{Usage, known_causes, no_cgroups, tell};
use crate::filter::Filter;
use crate::history::{Reader, Span};
use crate::model::Incident;
use crate::report::{Report, page};
use crate::when::{self, Micros};

/// Longest line of JSON that is taken for a record.
const LONGEST: u64 = 4 << 20;

/// One self-contained page for the post-mortem: time line, causes, upstreams, incidents with their evidence
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// From when: 1h, 90m, 14:30, today, yesterday, 2026-11-21 [default: 24h; with --json everything]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<String>,
    /// Until when, written the same way [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<String>,
    /// Where the page goes; - is stdout
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub filter: Filter,
    /// Read what `live --json` or `history --json` printed instead of the history; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["history", "config"])]
    pub json: Option<PathBuf>,
    /// The agent's history [default: what its configuration says]
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// The agent's configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ReportArgs {
    pub fn run(&self) -> Result<u8> {
        known_causes(&self.filter)?;
        no_cgroups(&self.filter)?;
        let now = when::now_micros();
        let report = match &self.json {
            Some(file) => self.of_json(file, now)?,
            None => self.of_history(now)?,
        };
        let html = page(&report);
        if self.output == Path::new("-") {
            io::stdout().lock().write_all(html.as_bytes())?;
        } else {
            let to = self.output.display();
            fs::write(&self.output, html).with_context(|| format!("cannot write {to}; name another file with -o"))?;
            tell(format_args!("{} in {to}", crate::text::count(report.total, "gateway error")));
        }
        Ok(0)
    }

    fn span(&self, now: Micros) -> Result<Span> {
        let read = |text: &Option<String>| text.as_deref().map(|text| when::parse_moment(text, now)).transpose();
        let (since, until) = (read(&self.since).map_err(Usage)?, read(&self.until).map_err(Usage)?);
        if since.zip(until).is_some_and(|(since, until)| until < since) {
            return Err(Usage("--until is before --since: nothing can lie between".to_owned()).into());
        }
        Ok(Span { since, until })
    }

    fn of_history(&self, now: Micros) -> Result<Report> {
        let file = history::file(self.history.as_deref(), self.config.as_deref())?;
        let mut span = self.span(now)?;
        let since = *span.since.get_or_insert(now - 86_400_000_000);
        let mut report = self.report(since, span.until.unwrap_or(now), now);
        let unreadable = Reader::open(&file)?.each(span, &self.filter, |incident| {
            report.add(incident);
            ControlFlow::Continue(())
        })?;
        remark_unreadable(&mut report, unreadable);
        Ok(report)
    }

    fn of_json(&self, file: &Path, now: Micros) -> Result<Report> {
        let span = self.span(now)?;
        let (incidents, unreadable) = if file == Path::new("-") {
            read(io::stdin().lock())
        } else {
            let name = file.display();
            read(fs::File::open(file).with_context(|| format!("cannot open {name}"))?)
        }
        .with_context(|| format!("cannot read {}", file.display()))?;
        if incidents.is_empty() && unreadable > 0 {
            bail!(
                "{}: none of {unreadable} lines is a record of trace502; give it what `live --json` prints",
                file.display()
            );
        }
        let mut timed: Vec<(Micros, Incident)> = incidents
            .into_iter()
            .map(|incident| (when::parse_rfc3339(&incident.time).unwrap_or(now), incident))
            .filter(|(at, _)| {
                span.since.is_none_or(|since| *at >= since) && span.until.is_none_or(|until| *at <= until)
            })
            .filter(|(_, incident)| self.filter.matches(incident))
            .collect();
        timed.sort_by_key(|(at, _)| *at);
        let first = span.since.or(timed.first().map(|(at, _)| *at)).unwrap_or(now);
        let last = span.until.or(timed.last().map(|(at, _)| *at)).unwrap_or(now).max(first);
        let mut report = self.report(first, last, now);
        timed.into_iter().for_each(|(_, incident)| report.add(incident));
        remark_unreadable(&mut report, unreadable);
        Ok(report)
    }

    fn report(&self, from: Micros, to: Micros, now: Micros) -> Report {
        let mut report = Report::over(from, to, now);
        if !self.filter.is_empty() {
            let query = crate::screen::query::Query { filter: self.filter.clone(), words: Vec::new() };
            report.remarks.push(format!("Only errors that match {query}."));
        }
        report
    }
}

fn remark_unreadable(report: &mut Report, unreadable: u64) {
    if unreadable > 0 {
        report.remarks.push(format!("{unreadable} records could not be read and are not counted."));
    }
}

/// Records, and how many lines are none.
fn read(input: impl Read) -> io::Result<(Vec<Incident>, u64)> {
    let mut input = BufReader::new(input);
    let (mut incidents, mut unreadable) = (Vec::new(), 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok((incidents, unreadable));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(incident) => incidents.push(incident),
            Err(_) => unreadable += 1,
        }
    }
}
