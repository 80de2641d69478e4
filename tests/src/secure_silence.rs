//! Measure four: healthy clients that speak TLS and HTTP/2, by the h2load of the distribution, some of them asking for
//! what lies behind TLS or HTTP/2, too; not a word is right.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cells;
use crate::guard::tool;
use crate::load;
use crate::proxies::{Kind, Proxy};
use crate::route::{Route, Speaks};
use crate::world::{Place, Ports, World};

/// How the clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    /// HTTP/2 without TLS.
    Plain,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Plain];

    fn words(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1 over TLS",
            Self::Http2 => "HTTP/2 over TLS",
            Self::Plain => "HTTP/2 without TLS",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Http1 => &["--h1", "-m", "1"],
            Self::Http2 => &["-m", "16"],
            Self::Plain => &["-p", "h2c", "-m", "16"],
        }
    }
}

#[derive(Debug)]
pub struct Silence {
    pub kind: Kind,
    pub requests: usize,
    /// Requests that failed after all: a real failure is no false alarm, and as many incidents are no news.
    pub failed: usize,
    pub alarms: Vec<String>,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, alarms, requests, failed) = (self.kind.name(), self.alarms.len(), self.requests, self.failed);
        let ways = Protocol::ALL.map(Protocol::words).join(", ");
        write!(
            f,
            "silence {name}: {alarms} incidents in {requests} healthy requests ({ways}; {failed} failed for real)"
        )
    }
}

/// This many requests in each way to speak.
pub fn run(kind: Kind, count: usize, with_agent: bool) -> Result<Silence> {
    let world = World::new(Ports::Plenty)?;
    let ok = world.shared_at(Place::Loopback, "ok");
    let routes = [
        Route::to("kept", ok.clone()).keepalive(),
        Route::to("fresh", ok),
        // Apache verifies the certificate for the address that it dials.
        Route::to("inside", world.shared_at(Place::Loopback, "node:https-good"))
            .speaking(Speaks::Tls { verify: kind != Kind::Apache })
            .keepalive(),
        Route::to("own-404", world.shared_at(Place::Loopback, "answer:404")),
        Route::to("h2", world.shared_at(Place::Loopback, "node:h2")).speaking(Speaks::H2).keepalive(),
        Route::to("h2s", world.shared_at(Place::Loopback, "node:h2s")).speaking(Speaks::SecureH2).keepalive(),
    ];
    world.start_shared()?;
    let proxy = Proxy::start_with(kind, &world, &routes, 2, kind.name())?;
    let agent = if with_agent { Some(cells::start_agent(&world)?) } else { None };
    let failed = AtomicUsize::new(0);
    load::run(&world, 1, Protocol::ALL.len(), |_: &mut (), n| {
        let protocol = Protocol::ALL[n];
        let said = ask(&proxy, protocol, count)?;
        let well = answered(&said).with_context(|| format!("h2load said {said:?}"))?;
        failed.fetch_add(count.saturating_sub(well), Ordering::Relaxed);
        Ok(())
    })?;
    let mut alarms = Vec::new();
    if let Some(agent) = agent {
        agent.settled(usize::MAX, Duration::from_secs(3));
        let strange = |path: Option<&str>| !path.unwrap_or_default().starts_with("/warm-up/");
        let records = agent.all().into_iter().filter(|record| cells::ours(record, &[&proxy]));
        alarms.extend(records.filter(|r| strange(r.incident.request.path.as_deref())).map(|record| record.line));
        agent.stop()?;
    }
    let failed = failed.into_inner();
    Ok(Silence { kind, requests: count * Protocol::ALL.len(), failed, alarms })
}

/// Sixteen clients; the paths take turns.
fn ask(proxy: &Proxy, protocol: Protocol, count: usize) -> Result<String> {
    let at = match protocol {
        Protocol::Plain => format!("http://127.0.0.1:{}", proxy.plain_h2),
        _ => format!("https://127.0.0.1:{}", proxy.secure),
    };
    let mut paths = vec!["kept/1", "fresh/1", "inside/1", "own-404/1", "kept/2"];
    // What HTTP/2 answered has no reason, and h2load takes no status line of HTTP/1 without one.
    if protocol != Protocol::Http1 {
        paths.extend(["h2/1", "h2s/1"]);
    }
    let urls: Vec<String> = paths.iter().map(|path| format!("{at}/{path}")).collect();
    let count = count.to_string();
    let mut args = vec!["-n", &count, "-c", "16", "-T", "60"];
    args.extend(protocol.arguments());
    args.extend(urls.iter().map(String::as_str));
    tool("h2load", &args).context("is the package nghttp2-client installed?")
}

/// How many requests were answered with what is no error of a server.
fn answered(said: &str) -> Option<usize> {
    let of = |what: &str| {
        let (before, _) = said.split_once(what)?;
        before.rsplit(' ').next()?.parse::<usize>().ok()
    };
    Some(of(" 2xx")? + of(" 3xx")? + of(" 4xx")?)
}
