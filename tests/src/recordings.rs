//! Golden recordings: faults of real proxies, recorded while they happened, and no larger than what they show.
//!
//! Each is recorded with `record --json`, whose lines `replay --json` must repeat byte for byte. Then every entry
//! without which the same lines come out is left out: what remains is a few kilobytes, and tells nothing of the host
//! that it was made on but the lab's own processes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use trace502::model::Notice;
use trace502::recording::{Counts, Entry, Header, Play, Reader, Recorder, Replay};

use crate::agent::binary;
use crate::cells::{self, Choice};
use crate::proxies::Kind;

/// What is recorded of each proxy: faults whose stories differ.
const CHOSEN: [(Kind, &[&str]); 6] = [
    (Kind::Nginx, &["oom-in-flight", "port-mistaken", "idle-raced", "all-down"]),
    (Kind::Haproxy, &["wrong-address", "reset-unread", "asleep"]),
    (Kind::Apache, &["close-early", "not-read", "unix-missing"]),
    (Kind::Caddy, &["kill-before", "own-502"]),
    (Kind::Envoy, &["half-head-fin", "never-accepted", "big-head"]),
    (Kind::Fpm, &["fpm-own-502", "fpm-big-head", "fpm-socket-missing"]),
];

/// What `trace502 replay --json` says of a file.
pub fn replayed(file: &Path) -> Result<String> {
    let done = Command::new(binary()?).args(["replay", "--json"]).arg(file).output().context("cannot run replay")?;
    ensure!(done.status.success(), "replay failed: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).context("replay wrote no text")
}

/// Records faults of one proxy. Hands back the lines that the recorder wrote meanwhile, and those of the faults.
pub fn record(kind: Kind, faults: &[&str], file: &Path) -> Result<(String, Vec<String>)> {
    let choice = Choice {
        proxies: vec![kind],
        faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
        agent: true,
        workers: 1,
        whole_names: true,
        record: Some(file.to_owned()),
        ..Choice::default()
    };
    let report = cells::run(&choice)?;
    let wrong: Vec<String> = report.outcomes.iter().filter(|cell| !cell.right()).map(ToString::to_string).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(!report.outcomes.is_empty(), "{} has none of the faults {faults:?}", kind.name());
    let told: BTreeSet<String> = report.outcomes.into_iter().flat_map(|cell| cell.records).collect();
    let kept = report.lines.iter().filter(|line| told.contains(*line)).cloned().collect();
    Ok((report.lines.iter().map(|line| format!("{line}\n")).collect(), kept))
}

/// Makes every recording again.
pub fn make(to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for (kind, faults) in CHOSEN {
        let whole = to.join(kind.name()).with_extension("whole");
        let (said, kept) = record(kind, faults, &whole)?;
        ensure!(replayed(&whole)? == said, "{}: the replay says something else than the recorder", kind.name());
        let file = to.join(kind.name()).with_extension("rec");
        let home = home()?;
        let live: BTreeSet<String> = said.lines().map(|line| line.replace(&home, HOME)).collect();
        let kept: Vec<String> = kept.iter().map(|line| line.replace(&home, HOME)).collect();
        let (before, after) = reduce(&whole, &live, &kept, &file)?;
        let lines = replayed(&file)?;
        ensure!(lines.lines().all(|line| live.contains(line)), "{}: it says what was never said", kind.name());
        ensure!(kept.iter().all(|line| lines.contains(line)), "{}: it does not say enough", kind.name());
        std::fs::write(file.with_extension("jsonl"), &lines)?;
        std::fs::remove_file(&whole)?;
        println!("{}: {} errors, {after} of {before} steps kept", file.display(), lines.lines().count());
    }
    Ok(())
}

/// Where the lab's programs are, wherever it was built.
const HOME: &str = "/opt/lab";

fn home() -> Result<String> {
    let program = std::env::current_exe()?;
    let home = program.ancestors().nth(2).context("the lab lies in no folder")?;
    Ok(home.display().to_string())
}

/// The answer of a host that has the lab's programs elsewhere.
fn elsewhere(entry: &Entry, home: &str) -> Result<Entry> {
    Ok(serde_json::from_str(&serde_json::to_string(entry)?.replace(home, HOME))?)
}

/// One thing that happened, and what was asked because of it.
type Step = Vec<Entry>;

/// Writes what is needed of a recording for these lines, in halves, quarters, and so on.
fn reduce(from: &Path, live: &BTreeSet<String>, lines: &[String], to: &Path) -> Result<(usize, usize)> {
    let mut reader = Reader::open(from)?;
    let header = reader.header().clone();
    let home = home()?;
    let mut steps: Vec<Step> = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        match (&entry, steps.last_mut()) {
            (Entry::Asked(_), Some(step)) => step.push(elsewhere(&entry, &home)?),
            _ => steps.push(vec![entry]),
        }
    }
    let before = steps.len();
    let scratch = to.with_extension("part");
    let mut size = steps.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < steps.len() {
            let end = (at + size).min(steps.len());
            let rest: Vec<Step> = [&steps[..at], &steps[end..]].concat();
            let said = says(&header, &rest, &scratch)?;
            // Nothing but what was said then, and all that matters of it.
            if said.iter().all(|line| live.contains(line)) && lines.iter().all(|line| said.contains(line)) {
                steps = rest;
            } else {
                at = end;
            }
        }
        if size == 1 {
            break;
        }
        size = size.div_ceil(2);
    }
    std::fs::rename(write(&header, &steps, &scratch)?, to)?;
    Ok((before, steps.len()))
}

fn write<'a>(header: &Header, steps: &[Step], to: &'a Path) -> Result<&'a Path> {
    let recorder = Recorder::create(to, header)?;
    let tape = recorder.tape();
    steps.iter().flatten().for_each(|entry| tape.put(entry.clone()));
    drop(tape);
    ensure!(recorder.finish(Counts::new())?.lost == 0, "the reduced recording did not fit into its channel");
    Ok(to)
}

/// The lines of what is left; none of them if it is asked what it does not know.
fn says(header: &Header, steps: &[Step], scratch: &Path) -> Result<Vec<String>> {
    let mut tape = Replay::new(Reader::open(write(header, steps, scratch)?)?);
    let mut play = Play::new(header);
    let mut notices = Vec::new();
    while play.step(&mut tape, &mut notices)? {}
    if tape.mismatches() > 0 {
        return Ok(Vec::new());
    }
    let incidents = notices.iter().filter_map(|notice| match notice {
        Notice::Incident(incident) => Some(serde_json::to_string(incident)),
        _ => None,
    });
    Ok(incidents.collect::<Result<_, _>>()?)
}
