//! The proxy makes no attempt at all.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Fault, Plan, Setup, fault};
use crate::guard::{Launch, until};
use crate::proxies::Kind;
use crate::route::Special;
use crate::service;
use crate::world::Place;

const NAMES: &[&str] = &["dns_failure", "no_live_upstream"];

pub const FAULTS: &[Fault] = &[
    // Apache asks members that failed again when it has no other.
    fault("all-down", "502 503 - 503 503 -", &["no_live_upstream"], all_down).likely(),
    // Nothing but its time ties a look-up to a request: certain only when nobody else asks.
    // Where upstreams fail their checks at the same time, HAProxy's answer tells no more than that none is left.
    fault("name-missing", "502 503 500 502 503 -", NAMES, |s| name(s, "nx.test")).likely().says(&["nx.test"]),
    fault("name-failing", "502 503 500 502 503 -", NAMES, |s| name(s, "fail.test")).likely().says(&["fail.test"]),
    fault("name-unanswered", "502 503 500 502 503 -", NAMES, |s| name(s, "mute.test")).likely().says(&["mute.test"]),
    fault("no-servers", "- 503 - - - -", &["no_live_upstream"], |s| {
        Ok(Plan::get(s.route("127.0.0.1:1").special(Special::NoServers)).no_upstream())
    })
    .likely(),
    // Nothing but its log tells these two from any other answer of its own.
    fault("no-resolver", "502 - - - - -", &["dns_failure"], |s| {
        Ok(Plan::get(s.route("shop.test:8080").special(Special::NoResolver)).no_upstream())
    })
    .says(&["shop.test"]),
    fault("rate-limit", "503 - - - - -", &["proxy_limit"], rate_limit).says(&["limit_req"]),
    fault("one-connection", "- 503 503 - 503 -", &["proxy_limit"], one_connection).likely(),
    // While the checks of another backend fail: what it says by itself is not about them.
    fault("own-rule-503", "- 503 - - - -", &["unattributed"], |s| {
        Ok(Plan::get(s.route("127.0.0.1:1").special(Special::Own503)).no_upstream())
    })
    .unknown()
    .alone(),
    fault("own-rule", "502 502 502 502 502 -", &["unattributed"], |s| {
        Ok(Plan::get(s.route("127.0.0.1:1").special(Special::Own502)).no_upstream())
    })
    .unknown()
    .alone(),
    // The last one: Envoy's health checks and look-ups crash it when they get no descriptor.
    fault("descriptors", "500|502 503 503 502 503 -", &["proxy_limit"], descriptors).alone(),
];

/// Two servers that nobody has; what marks them down differs by proxy.
fn all_down(setup: &Setup) -> Result<Plan> {
    let servers = [setup.world.port(), setup.world.port()].map(|port| format!("127.0.0.1:{port}"));
    let route = setup.route("").servers(&servers).special(Special::MarkedDown);
    let kind = setup.kind;
    Ok(Plan::new(route, move |session| {
        match kind {
            // By failures of requests, which are incidents of their own: see no-listener.
            Kind::Nginx | Kind::Caddy => {
                for _ in 0..2 {
                    session.aside(session.get())?;
                }
            }
            // By health checks, which run since the proxy started, or by the configuration.
            _ => std::thread::sleep(Duration::from_secs(1)),
        }
        session.fail(session.get())
    })
    .no_upstream())
}

/// A rule of the proxy's own refuses what comes too soon after the first request.
fn rate_limit(setup: &Setup) -> Result<Plan> {
    let route = setup.route(setup.world.shared_at(Place::Loopback, "ok")).special(Special::Limited);
    Ok(Plan::new(route, |session| {
        session.well(session.get())?;
        session.fail(session.get())
    })
    .no_upstream())
}

fn name(setup: &Setup, name: &str) -> Result<Plan> {
    let mut route = setup.route(format!("{name}:8080"));
    route.resolve = true;
    let kind = setup.kind;
    Ok(Plan::new(route, move |session| {
        if matches!(kind, Kind::Haproxy | Kind::Envoy) {
            // It asks by itself from time to time: one look-up must have been seen, and have had its time.
            std::thread::sleep(Duration::from_millis(2500));
        }
        session.fail(session.get())
    })
    .no_upstream())
}

/// The proxy may open no further descriptor once it has accepted the client.
fn descriptors(setup: &Setup) -> Result<Plan> {
    let route = setup.route(setup.world.shared_at(Place::Loopback, "ok"));
    Ok(Plan::new(route, |session| {
        session.well(session.get())?;
        let mut client = session.connect()?;
        if session.proxy.kind == Kind::Haproxy {
            // It would use the first request's connection for the second: the first must be the one that fails.
            let at = session.proxy.addr.to_string();
            let accepted = || (service::queue(session.proxy.pid(), &at)? == 0).then_some(());
            until(Duration::from_secs(5), accepted).context("the proxy does not accept")?;
        } else {
            // Apache accepts no connection before it has something to say.
            session.well_on(&mut client, session.get())?;
        }
        settle(&session.proxy.workers());
        let limits = session.proxy.workers().into_iter().map(FileLimit::exhaust).collect::<Result<Vec<_>>>()?;
        let done = session.fail_on(&mut client, session.get());
        // Nobody raises a limit in the very moment in which it was met.
        std::thread::sleep(Duration::from_millis(300));
        drop(limits);
        done
    })
    .no_upstream())
}

/// Waits until what earlier connections left open is closed: the same files twice in a row.
fn settle(pids: &[u32]) {
    let mut last = Vec::new();
    until(Duration::from_secs(5), || {
        let now: Vec<_> = pids.iter().map(|pid| open_files(*pid).ok()).collect();
        let still = now == last;
        last = now;
        std::thread::sleep(Duration::from_millis(100));
        still.then_some(())
    });
}

fn open_files(pid: u32) -> Result<BTreeSet<u64>> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).context("a worker of the proxy is gone")?;
    Ok(open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// A process's limit of open files, for a while as low as what it has open.
struct FileLimit {
    pid: u32,
    before: String,
}

impl FileLimit {
    fn exhaust(pid: u32) -> Result<Self> {
        // The limit is on the number of the descriptor: what is free below the highest in use would still be given.
        let numbers = open_files(pid)?;
        let first_free = (0..).find(|n| !numbers.contains(n)).unwrap_or(0);
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no limit of open files")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (soft, hard) = (words[3], words[4]);
        set_files(pid, &format!("{first_free}:{hard}"))?;
        Ok(Self { pid, before: format!("{soft}:{hard}") })
    }
}

impl Drop for FileLimit {
    fn drop(&mut self) {
        // A worker that is gone needs none.
        let _ = set_files(self.pid, &self.before);
    }
}

/// By the process's own user: in a container, root may lack the capability to do it for others.
fn set_files(pid: u32, limit: &str) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let mut launch = Launch::new("/usr/bin/prlimit").args([format!("--pid={pid}"), format!("--nofile={limit}")]);
    launch.user = Some(std::fs::metadata(format!("/proc/{pid}"))?.uid()).filter(|uid| *uid != 0);
    let status = launch.start()?.wait(Duration::from_secs(5));
    anyhow::ensure!(status.is_some_and(|status| status.success()), "cannot set the limit of {pid} to {limit}");
    Ok(())
}

/// Its only allowed connection is taken by another request.
fn one_connection(setup: &Setup) -> Result<Plan> {
    let route =
        setup.route(setup.world.shared_at(Place::Loopback, "slow:2500")).special(Special::OneConnection).patient();
    Ok(Plan::new(route, |session| {
        let mut first = session.connect()?;
        let ask = session.get();
        let (path, local) = (ask.path.clone(), first.local().map(|a| a.to_string()).unwrap_or_default());
        first.send(&ask.bytes());
        session.note(path, local, crate::client::Answer::Status(200), false);
        std::thread::sleep(Duration::from_millis(200));
        let done = session.fail(session.get());
        let answer = first.answer(Duration::from_secs(10));
        anyhow::ensure!(answer.word() == "200", "the first request got {}", answer.word());
        done
    })
    .no_upstream())
}
