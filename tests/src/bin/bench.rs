//! `cargo xtask bench`: what watching costs, as a table and as JSON.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use trace502_tests::bench::{
    Effort, Report, call, footprint, growth, hooks, incidents, limits, requests, shares, soak, storm,
};
use trace502_tests::guard;

const USAGE: &str = "\
usage: cargo xtask bench [--quick] [--json FILE] [--only NAME]...
  --quick  fewer rounds
  --json   the figures go there too
  --only   one of: call, hooks, request, programs, storm, incident, footprint, growth, limits, agent; all by default";

type Measure = fn(Effort, &mut Report) -> Result<()>;

const MEASURES: [(&str, Measure); 10] = [
    ("call", call::run),
    ("hooks", hooks::run),
    ("request", requests::run),
    ("programs", shares::run),
    ("storm", storm::run),
    ("incident", incidents::run),
    ("footprint", footprint::run),
    ("growth", growth::run),
    ("limits", limits::run),
    ("agent", soak::run),
];

fn main() -> Result<()> {
    let (mut effort, mut file, mut only) = (Effort::Full, None, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--quick" => effort = Effort::Quick,
            "--json" => file = Some(PathBuf::from(value()?)),
            "--only" => only.push(value()?),
            // Not for people: how this program plays the proxy of a storm.
            incidents::PLAY => return incidents::play(),
            // And how it holds more connections than one process may have.
            growth::HOLD => return growth::hold(&value()?, &value()?),
            "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => bail!("{arg:?} is unknown\n{USAGE}"),
        }
    }
    if let Some(strange) = only.iter().find(|name| MEASURES.iter().all(|(known, _)| known != name)) {
        bail!("{strange:?} is no measure\n{USAGE}");
    }
    guard::clean_on_signal();
    guard::sweep();
    let mut report = Report::default();
    for (name, measure) in MEASURES {
        if only.is_empty() || only.iter().any(|wanted| wanted == name) {
            measure(effort, &mut report).with_context(|| format!("measure {name}"))?;
        }
    }
    if let Some(file) = file {
        let text = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(&file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("{} goals missed", report.missed());
    Ok(())
}
