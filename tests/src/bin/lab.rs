//! `cargo xtask lab`: the measures.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use trace502_tests::cells::{self, Choice};
use trace502_tests::exact::Clients;
use trace502_tests::proxies::Kind;
use trace502_tests::{exact, guard, pace, recordings, secure_silence, silence};

const USAGE: &str = "\
usage: cargo xtask lab -- [--measure cells|exact|streams|silence|secure]... [--proxy NAME]... [--fault WORD]... [--quick]
                       [--workers N | --serial] [--slow N] [--least N] [--logs] [--no-agent] [--json] [--record DIR]
  --measure   one of the five; all but streams and secure (silence of clients with TLS and HTTP/2) by default
  --proxy     nginx, haproxy, apache, caddy, envoy, php-fpm; all by default
  --fault     only cells whose fault has this in its name
  --quick     a tenth of the requests
  --workers   this many cells at a time
  --serial    one cell at a time
  --slow      nginx and the lab wait this many times as long: for machines that are emulated
  --least     of the cells: tries those that are not right once more, those told a wrong cause then once more alone, and
              fails where fewer than this many are right then, where any is told a wrong cause, however likely, or where
              the agent tells more than 10 incidents that nobody made, or anything that is no record
  --logs      what the proxies' own logs said
  --no-agent  only make sure that the faults happen
  --json      the records of what is wrong
  --record    make the golden recordings in this folder again (agent/tests/recordings), and measure nothing";

struct Options {
    choice: Choice,
    measures: Vec<String>,
    quick: bool,
    json: bool,
    record: Option<PathBuf>,
    least: Option<usize>,
}

fn parse() -> Result<Options> {
    let choice = Choice { agent: true, workers: 24, ..Choice::default() };
    let mut options = Options { choice, measures: Vec::new(), quick: false, json: false, record: None, least: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--proxy" => options.choice.proxies.push(Kind::parse(&value()?)?),
            "--fault" => options.choice.faults.push(value()?),
            "--measure" => options.measures.push(value()?),
            "--no-agent" => options.choice.agent = false,
            "--serial" => options.choice.workers = 1,
            "--workers" => options.choice.workers = value()?.parse().context("--workers needs a number")?,
            "--slow" => pace::set(value()?.parse().context("--slow needs a number")?),
            "--least" => options.least = Some(value()?.parse().context("--least needs a number")?),
            "--logs" => options.choice.logs = true,
            "--quick" => options.quick = true,
            "--json" => options.json = true,
            "--record" => options.record = Some(value()?.into()),
            "--help" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            _ => bail!("{arg:?} is unknown\n{USAGE}"),
        }
    }
    if options.choice.proxies.is_empty() {
        options.choice.proxies = Kind::ALL.to_vec();
    }
    if options.measures.is_empty() {
        options.measures = ["cells", "exact", "silence"].map(str::to_owned).to_vec();
    }
    Ok(options)
}

fn main() -> Result<()> {
    let options = parse()?;
    guard::clean_on_signal();
    guard::sweep();
    if let Some(to) = &options.record {
        return recordings::make(to);
    }
    // PHP-FPM's proxy is nginx: its measures two and three are nginx's.
    let loaded: Vec<Kind> = options.choice.proxies.iter().copied().filter(|kind| *kind != Kind::Fpm).collect();
    for measure in &options.measures {
        match measure.as_str() {
            "cells" => print_cells(&options)?,
            "exact" | "streams" => {
                let clients = if measure == "exact" { Clients::Plain } else { Clients::Streams };
                for kind in &loaded {
                    let count = if options.quick { 1000 } else { 10_000 };
                    let result = exact::run(*kind, count, clients, options.choice.agent)?;
                    println!("{result}");
                    for (what, (count, example)) in &result.wrong {
                        println!("    {count} × {what}");
                        if options.json {
                            println!("        {example}");
                        }
                    }
                }
            }
            "silence" => {
                for kind in &loaded {
                    let result =
                        silence::run(*kind, if options.quick { 10_000 } else { 100_000 }, options.choice.agent)?;
                    println!("{result}");
                    for line in result.alarms.iter().take(10) {
                        println!("    {line}");
                    }
                }
            }
            "secure" => {
                for kind in &loaded {
                    let count = if options.quick { 1000 } else { 10_000 };
                    let result = secure_silence::run(*kind, count, options.choice.agent)?;
                    println!("{result}");
                    for line in result.alarms.iter().take(10) {
                        println!("    {line}");
                    }
                }
            }
            _ => bail!("{measure:?} is no measure\n{USAGE}"),
        }
    }
    Ok(())
}

fn print_cells(options: &Options) -> Result<()> {
    let mut report = cells::run(&options.choice)?;
    if options.least.is_some() {
        cells::once_more(&mut report, &options.choice)?;
        cells::misled_alone(&mut report, &options.choice)?;
    }
    print!("{}", report.table());
    for outcome in report.outcomes.iter().filter(|outcome| !outcome.right()) {
        println!("{outcome}");
        if options.json {
            for record in &outcome.records {
                println!("    {record}");
            }
        }
    }
    for line in report.false_alarms.iter().map(|line| format!("false alarm: {line}")).chain(report.complaints.clone()) {
        println!("{line}");
    }
    println!("{}", report.line());
    if let Some(least) = options.least {
        let misled: Vec<_> = report.outcomes.iter().filter(|outcome| outcome.misled).collect();
        let names: Vec<String> =
            misled.iter().map(|outcome| format!("{} × {}", outcome.kind.name(), outcome.fault)).collect();
        ensure!(misled.is_empty(), "told a wrong cause: {}", names.join(", "));
        ensure!(report.right() >= least, "only {} cells are right, not {least}", report.right());
        let alarms = report.false_alarms.len();
        ensure!(alarms <= cells::STRAY, "{alarms} incidents that nobody made, more than {}", cells::STRAY);
        ensure!(report.complaints.is_empty(), "the agent said what is no record: {}", report.complaints.join("; "));
    }
    Ok(())
}
