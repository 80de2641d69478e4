//! The daemon over a long time: what it takes idle and under errors, whether its memory grows, and what a scrape costs
//! once it has seen more upstreams than it tells apart. A soak by events: what hours would bring, one after the other.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::incidents::{BROAD, Player, QUIET, storm};
use super::stats::{Spread, quantile};
use super::usage;
use super::{Effort, Report, Row};
use crate::daemon::{Daemon, get};
use crate::guard::TempDir;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    starts(effort, report)?;
    let dir = TempDir::new()?;
    let daemon = Daemon::start(dir.path(), &[])?;
    let player = Player::start(dir.path())?;
    let seconds = Duration::from_secs(effort.pick(10, 60));
    let used = usage::cpu(daemon.kid.pid());
    std::thread::sleep(seconds);
    report.add(busy(&daemon, "idle", used, seconds.as_secs_f64()));
    let used = usage::cpu(daemon.kid.pid());
    let took = storm(player.at, &[BROAD], 1000 * seconds.as_secs() as usize, 1000.0)?;
    report.add(busy(&daemon, "1,000 errors a second", used, took));
    soak(effort, &daemon, &player, report)?;
    scrape(&daemon, report)
}

/// From exec to ready, history and metrics included.
fn starts(effort: Effort, report: &mut Report) -> Result<()> {
    let mut took = Vec::new();
    for round in 0..effort.pick(5, 20) {
        let dir = TempDir::of(&format!("start-{round}"))?;
        let start = Instant::now();
        let daemon = Daemon::start(dir.path(), &[])?;
        took.push(start.elapsed().as_secs_f64() * 1000.0);
        drop(daemon);
    }
    let spread = Spread::of(&took);
    let row = Row::new("agent", "from exec to ready").value("median", spread.median, "ms");
    report.add(row.value("from", spread.low, "ms").value("to", spread.high, "ms"));
    Ok(())
}

fn busy(daemon: &Daemon, case: &str, before: u64, seconds: f64) -> Row {
    let share = (usage::cpu(daemon.kid.pid()) - before) as f64 / 1e9 / seconds * 100.0;
    let memory = usage::resident(daemon.kid.pid()) as f64 / 1e6;
    Row::new("agent", case).value("CPU", share, "% of a core").value("memory", memory, "MB")
}

/// Errors at ten thousands of upstreams and as many requests that go well, as fast as they can be made.
fn soak(effort: Effort, daemon: &Daemon, player: &Player, report: &mut Report) -> Result<()> {
    const PARTS: usize = 10;
    let errors: usize = effort.pick(60_000, 1_000_000);
    let before = told(daemon);
    let mut memory = Vec::new();
    let mut took = 0.0;
    for _ in 0..PARTS {
        took += storm(player.at, &[BROAD, QUIET], 2 * errors / PARTS, f64::INFINITY)?;
        ensure!(daemon.kid.ended().is_none(), "the agent ended: {}", daemon.said());
        memory.push(usage::resident(daemon.kid.pid()) as f64 / 1e6);
    }
    // The last ones are on their way.
    let start = Instant::now();
    while told(daemon) - before < errors as f64 && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let lost = errors as f64 - (told(daemon) - before);
    let unwritten = daemon.sample(r#"trace502_events_lost_total{where="history"}"#).unwrap_or_default();
    // Caches and pools fill in the beginning; what grows after that would grow for ever.
    let (early, late) = (quantile(&memory[2..5], 0.5), quantile(&memory[7..], 0.5));
    report.add(
        Row::new("agent", format!("soak of {errors} errors"))
            .value("at", errors as f64 / took, "/s")
            .value("lost", lost, "")
            .value("not in the history", unwritten, "")
            .value("first", memory[0], "MB")
            .value("early", early, "MB")
            .value("late", late, "MB")
            .at_most("lost", lost, 0.0, "")
            .at_most("growth", late - early, early / 20.0, "MB"),
    );
    Ok(())
}

/// Errors that the metrics count, of all series.
fn told(daemon: &Daemon) -> f64 {
    daemon.sample("trace502_attribution_seconds_count").unwrap_or_default()
}

fn scrape(daemon: &Daemon, report: &mut Report) -> Result<()> {
    const SCRAPES: usize = 20;
    let mut took = Vec::new();
    let used = usage::cpu(daemon.kid.pid());
    let mut text = String::new();
    for _ in 0..SCRAPES {
        let start = Instant::now();
        text = get(daemon.addr, "/metrics").unwrap_or_default();
        took.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let used = (usage::cpu(daemon.kid.pid()) - used) as f64 / 1e6 / SCRAPES as f64;
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    report.add(
        Row::new("agent", "a scrape, all series taken")
            .value("median", Spread::of(&took).median, "ms")
            .value("CPU", used, "ms")
            .value("size", text.len() as f64 / 1e6, "MB")
            .value("samples", samples as f64, ""),
    );
    Ok(())
}
