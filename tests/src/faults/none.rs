//! The proxy makes no attempt at all.

use anyhow::{Context, Result};

use super::{Fault, Plan, Setup, fault};
use crate::proxies::Kind;
use crate::route::Special;
use crate::world::Place;

pub const FAULTS: &[Fault] = &[
    fault("all-down", "502 503 503 503 503 -", &["no_live_upstream"], all_down).likely(),
    fault("name-missing", "502 503 500 502 503 -", &["dns_failure"], |s| name(s, "nx.test")).says(&["nx.test"]),
    fault("name-failing", "502 503 500 502 503 -", &["dns_failure"], |s| name(s, "fail.test")).says(&["fail.test"]),
    fault("name-unanswered", "502 503 500 502 503 -", &["dns_failure"], |s| name(s, "mute.test")).says(&["mute.test"]),
    fault("descriptors", "500|502 503 503 502 503 -", &["proxy_limit"], descriptors).alone(),
    fault("one-connection", "- 503 503 - 503 -", &["proxy_limit"], one_connection).likely(),
    fault("own-rule", "502 502 502 502 502 -", &["unattributed"], |s| {
        Ok(Plan::get(s.route("127.0.0.1:1").special(Special::Own502)).no_upstream())
    })
    .unknown(),
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
            _ => std::thread::sleep(std::time::Duration::from_secs(1)),
        }
        session.fail(session.get())
    })
    .no_upstream())
}

fn name(setup: &Setup, name: &str) -> Result<Plan> {
    let mut route = setup.route(format!("{name}:8080"));
    route.resolve = true;
    Ok(Plan::get(route).no_upstream())
}

/// The proxy may open no further descriptor once it has accepted the client.
fn descriptors(setup: &Setup) -> Result<Plan> {
    let route = setup.route(setup.world.shared_at(Place::Loopback, "ok"));
    Ok(Plan::new(route, |session| {
        session.well(session.get())?;
        let mut client = session.connect()?;
        session.well_on(&mut client, session.get())?;
        let limits = session.proxy.workers().into_iter().map(FileLimit::exhaust).collect::<Result<Vec<_>>>()?;
        let done = session.fail_on(&mut client, session.get());
        drop(limits);
        done
    })
    .no_upstream())
}

/// A process's limit of open files, for a while as low as what it has open.
struct FileLimit {
    pid: u32,
    before: libc::rlimit,
}

impl FileLimit {
    fn exhaust(pid: u32) -> Result<Self> {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).context("a worker of the proxy is gone")?;
        // The limit is on the number of the descriptor: all below the highest in use, and free, would still be given.
        let numbers = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        let numbers: std::collections::BTreeSet<u64> = numbers.collect();
        let first_free = (0..).find(|n| !numbers.contains(n)).unwrap_or(0);
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both pointers are valid or null for the call.
        unsafe { libc::prlimit(pid as i32, libc::RLIMIT_NOFILE, std::ptr::null(), &mut before) };
        let low = libc::rlimit { rlim_cur: first_free, rlim_max: before.rlim_max };
        // SAFETY: as above.
        let ret = unsafe { libc::prlimit(pid as i32, libc::RLIMIT_NOFILE, &low, std::ptr::null_mut()) };
        anyhow::ensure!(ret == 0, "cannot lower the limit of {pid} to {first_free}: {}", std::io::Error::last_os_error());
        Ok(Self { pid, before })
    }
}

impl Drop for FileLimit {
    fn drop(&mut self) {
        // SAFETY: both pointers are valid or null for the call.
        unsafe { libc::prlimit(self.pid as i32, libc::RLIMIT_NOFILE, &self.before, std::ptr::null_mut()) };
    }
}

/// Its only allowed connection is taken by another request.
fn one_connection(setup: &Setup) -> Result<Plan> {
    let route = setup.route(setup.world.shared_at(Place::Loopback, "slow:900")).special(Special::OneConnection);
    Ok(Plan::new(route, |session| {
        let mut first = session.connect()?;
        let ask = session.get();
        let (path, local) = (ask.path.clone(), first.local().map(|a| a.to_string()).unwrap_or_default());
        first.send(&ask.bytes());
        session.note(path, local, crate::client::Answer::Status(200), false);
        std::thread::sleep(std::time::Duration::from_millis(200));
        let done = session.fail(session.get());
        let answer = first.answer(std::time::Duration::from_secs(10));
        anyhow::ensure!(answer.word() == "200", "the first request got {}", answer.word());
        done
    })
    .no_upstream())
}
