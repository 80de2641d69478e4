//! `trace502 agent`: the daemon: metrics, history, and a reload that keeps the probes attached.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::{Config, Flags, Settings};
use crate::daemon::{self, Outlet, Source};
use crate::http::Access;
use crate::journal;
use crate::kernel::Options;
use crate::status::{Probe, Status, Watched};
use crate::watch::{Choice, FOUND, Stop, Wanted, Watch, WatchError, WordError, places};

/// Watch always: metrics for Prometheus, and a history of every gateway error on disk
///
/// SIGHUP reloads the configuration (what can change live is marked), SIGTERM ends the agent within a second.
#[derive(Clone, Debug, clap::Args)]
pub struct Agent {
    /// TOML file with settings; flags win over it [default: /etc/trace502/agent.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check configuration, token and certificate, and start nothing
    #[arg(long, conflicts_with = "print_config")]
    pub check: bool,
    /// Print all settings in force as a file, with what each means and where it came from
    #[arg(long)]
    pub print_config: bool,
    #[command(flatten)]
    pub flags: Flags,
}

impl Agent {
    /// `trace502 agent` on this host.
    pub fn run(&self) -> anyhow::Result<u8> {
        run(self, &mut std::io::stdout().lock(), attach)?;
        Ok(0)
    }
}

fn wanted(settings: &Settings) -> Result<Wanted, WordError> {
    Wanted::new(settings.proxy.iter().map(String::as_str))
}

fn attach(settings: &Settings) -> anyhow::Result<Box<dyn Source>> {
    let ring_bytes = u32::try_from(settings.ring_size).unwrap_or(u32::MAX);
    let found = if settings.any { FOUND } else { 0 };
    let kernel = Options {
        ring_bytes,
        head: settings.head_bytes.into(),
        places: settings.connections,
        tls: !settings.no_tls,
        found,
        ..Options::default()
    };
    let choice = Choice { kernel, proxies: wanted(settings)?, logs: settings.log.iter().collect() };
    let watch = Watch::start(&choice, |_| Ok::<_, WatchError>(None))?;
    for line in watch.logs() {
        journal::info(&line);
    }
    Ok(Box::new(watch))
}

impl Source for Watch {
    fn run(mut self: Box<Self>, mut outlet: Outlet, stop: &Stop) -> anyhow::Result<()> {
        const REPORT: Duration = Duration::from_secs(1);
        /// A look through a table in the kernel.
        const COUNT: Duration = Duration::from_secs(5);
        let mut notices = Vec::new();
        let (mut reported, mut counted) = (Instant::now(), Instant::now());
        outlet.status(status(&self));
        let mut on = true;
        while on {
            on = self.step(stop, &mut notices);
            if !on {
                self.finish(&mut notices);
            }
            for notice in notices.drain(..) {
                outlet.notice(notice);
            }
            if let Some(new) = outlet.reloaded()
                && let Err(error) = wanted(&new).map_err(anyhow::Error::from).and_then(|new| Ok(self.want(&new)?))
            {
                journal::error(&format!("the new proxies are not watched: {error}"));
            }
            if !on || reported.elapsed() >= REPORT {
                reported = Instant::now();
                outlet.status(status(&self));
            }
            if !on || counted.elapsed() >= COUNT {
                counted = Instant::now();
                for new in self.traffic().connected {
                    let proxy = self.proxy_name(new.pid).unwrap_or("unknown");
                    outlet.connected(proxy, &new.upstream.to_string(), &new.times);
                }
            }
        }
        self.leave();
        Ok(())
    }
}

/// What the watch says of itself.
fn status(watch: &Watch) -> Status {
    let probes = watch.probes().iter().map(|report| Probe {
        name: report.name.to_owned(),
        provider: report.provider.clone().unwrap_or_else(|| "none".to_owned()),
        attached: report.attached,
        required: report.required,
    });
    let totals = watch.totals();
    let counters = watch.counters();
    let mut lost = totals.lost.clone();
    // There from the start, so that the first loss shows as an increase.
    for place in places().chain(["decode".to_owned()]) {
        lost.entry(place).or_default();
    }
    lost.insert("waiting_attempts".to_owned(), counters.attempts_overflow);
    lost.insert("waiting_errors".to_owned(), counters.pending_overflow);
    lost.insert("remembered_facts".to_owned(), counters.memory_overflow + counters.done_overflow);
    Status {
        probes: probes.collect(),
        events: totals.events.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
        lost,
        proxies: watch.proxies().iter().map(|(pid, name)| Watched { name: name.clone(), pid: *pid }).collect(),
    }
}

/// Runs the agent until it is told to stop. `attach` loads the kernel side; it is called once, with all privileges.
pub fn run(
    args: &Agent,
    out: &mut impl Write,
    attach: impl FnOnce(&Settings) -> anyhow::Result<Box<dyn Source>>,
) -> anyhow::Result<()> {
    let load = || Config::load(args.config.as_deref(), &args.flags);
    if args.print_config {
        out.write_all(load()?.print().as_bytes())?;
        return Ok(());
    }
    if args.check {
        Access::load(&load()?.settings)?;
        writeln!(out, "the configuration is right")?;
        return Ok(());
    }
    daemon::run(&load, attach)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        agent: Agent,
    }

    fn said(args: &[&str]) -> anyhow::Result<String> {
        let cli = Cli::try_parse_from(std::iter::once("agent").chain(args.iter().copied()))?;
        let mut out = Vec::new();
        run(&cli.agent, &mut out, |_| panic!("nothing is attached"))?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn check_looks_at_files_and_starts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        let config = format!("--config={}", file.display());
        std::fs::write(&file, "max-series = 100\n").unwrap();
        assert_eq!(said(&[&config, "--check"]).unwrap(), "the configuration is right\n");
        let made = dir.path().join("made/history.db");
        said(&[&config, "--check", "--history", made.to_str().unwrap()]).unwrap();
        assert!(!made.parent().unwrap().exists(), "a folder was made");
        std::fs::write(&file, "max-serie = 100\n").unwrap();
        assert!(said(&[&config, "--check"]).unwrap_err().to_string().contains("did you mean `max-series`?"));
        std::fs::write(&file, "token-file = '/nonexistent'\n").unwrap();
        assert!(said(&[&config, "--check"]).unwrap_err().to_string().contains("/nonexistent: cannot be read"));
    }

    #[test]
    fn print_config_prints_what_can_be_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "history = 'off'\n").unwrap();
        let config = format!("--config={}", file.display());
        let printed = said(&[&config, "--print-config", "--keep-privileges"]).unwrap();
        assert!(
            printed.contains("keep-privileges = true  # flag") && printed.contains("history = \"off\""),
            "{printed}"
        );
        std::fs::write(&file, &printed).unwrap();
        assert!(said(&[&config, "--print-config"]).unwrap().contains("keep-privileges = true"));
    }
}
