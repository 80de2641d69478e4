//! The program under test, as a user runs it: a child whose JSON lines are read as they come.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::{Ask, ask_once};
use crate::guard::{Kid, Launch};
use crate::netns;
use crate::pace;
use crate::proxies::{Kind, Proxy};
use crate::route::Route;
use crate::truth::Record;
use crate::world::{World, lock, sibling};

pub struct Agent {
    kid: Kid,
    seen: Arc<Seen>,
    reader: std::thread::JoinHandle<()>,
    log: PathBuf,
}

#[derive(Default)]
struct Seen {
    records: Mutex<Vec<Record>>,
    /// Lines that are no record.
    strange: Mutex<Vec<String>>,
    more: Condvar,
}

/// How long it may take to be in place: its programs are checked by the kernel, one by one on old ones.
const START: Duration = Duration::from_secs(100);

/// The binary to test: `TRACE502_BIN`, or the one built with the lab.
pub fn binary() -> Result<PathBuf> {
    match std::env::var_os("TRACE502_BIN") {
        Some(path) => Ok(path.into()),
        None => sibling("trace502").context("build the workspace, or set TRACE502_BIN"),
    }
}

impl Agent {
    pub fn start(log: PathBuf, args: &[&str]) -> Result<Self> {
        Self::start_as("live", log, args)
    }

    /// As `live` or `record`: both print what they find.
    pub fn start_as(verb: &str, log: PathBuf, args: &[&str]) -> Result<Self> {
        Self::launch(Launch::new(binary()?).args([verb, "--json"]).args(args), log)
    }

    /// However it is started; it is told to print JSON.
    pub fn launch(launch: Launch, log: PathBuf) -> Result<Self> {
        let mut launch = launch.log(&log)?;
        launch.command.stdout(Stdio::piped());
        let kid = launch.start()?;
        let out = kid.take_stdout().context("the agent has no stdout")?;
        let seen = Arc::new(Seen::default());
        let sink = seen.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(incident) => lock(&sink.records).push(Record { incident, line }),
                    Err(error) => lock(&sink.strange).push(format!("{error}: {line}")),
                }
                sink.more.notify_all();
            }
        });
        Ok(Self { kid, seen, reader, log })
    }

    /// Asks a proxy for what cannot be had until the agent tells of it: then its probes are in place.
    pub fn wait_ready(&self, world: &World) -> Result<()> {
        let at = format!("127.0.0.1:{}", world.port());
        let proxy = Proxy::start_with(Kind::Nginx, world, &[Route::to("warm-up", at)], 1, "warm-up")?;
        let ns = world.proxies.handle();
        let ask = move |n: u32| -> Result<()> {
            netns::enter(&ns)?;
            ask_once(proxy.addr, &Ask::get(format!("/warm-up/{n}"))).map(drop)
        };
        let moment = pace::duration(Duration::from_millis(300));
        let limit = pace::duration(START);
        let asked = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let begun = Instant::now();
                    let late = || begun.elapsed() > limit || self.kid.ended().is_some();
                    (0..).find_map(|n| match ask(n) {
                        Ok(()) if self.records(1, moment, |_| true).is_empty() => late().then_some(None),
                        done => Some(Some(done)),
                    })?
                })
                .join()
        });
        match asked.ok().context("the warm-up panicked")? {
            Some(done) => done,
            None => anyhow::bail!("the agent tells nothing of the first errors:\n{}", self.log()),
        }
    }

    pub fn pid(&self) -> u32 {
        self.kid.pid()
    }

    /// All records that `wanted` picks, as soon as there are `count`, or when the time is up.
    pub fn records(&self, count: usize, limit: Duration, wanted: impl Fn(&Record) -> bool) -> Vec<Record> {
        let start = Instant::now();
        let mut all = lock(&self.seen.records);
        loop {
            let found: Vec<Record> = all.iter().filter(|record| wanted(record)).cloned().collect();
            let left = limit.saturating_sub(start.elapsed());
            if found.len() >= count || left.is_zero() {
                return found;
            }
            let waited = self.seen.more.wait_timeout(all, left);
            all = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Waits until there are this many, and then until no more come for a moment.
    pub fn settled(&self, count: usize, limit: Duration) {
        let mut before = self.records(count, limit, |_| true).len();
        loop {
            let now = self.records(before + 1, Duration::from_secs(1), |_| true).len();
            if now == before {
                return;
            }
            before = now;
        }
    }

    pub fn all(&self) -> Vec<Record> {
        lock(&self.seen.records).clone()
    }

    pub fn count(&self) -> usize {
        lock(&self.seen.records).len()
    }

    /// Lines on its stdout that are no records, and whether it still runs.
    pub fn complaints(&self) -> Vec<String> {
        let mut all = lock(&self.seen.strange).clone();
        if let Some(status) = self.kid.ended() {
            all.push(format!("the agent ended with {status}: {}", self.log()));
        }
        all
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a service manager would; its exit code must be 0. Hands back all that it wrote, its last words too.
    pub fn stop(self) -> Result<Vec<Record>> {
        self.kid.signal(libc::SIGTERM);
        let status = self.kid.wait(Duration::from_secs(60)).context("the agent does not end on SIGTERM")?;
        anyhow::ensure!(status.success(), "the agent ended with {status}: {}", self.log());
        self.reader.join().ok().context("the reader of the agent's lines panicked")?;
        Ok(lock(&self.seen.records).clone())
    }
}
