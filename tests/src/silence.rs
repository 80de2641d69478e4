//! Measure three: a lot of healthy traffic with everything that looks like trouble and is none; not a word is right.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use trace502::model::{Incident, Seen};

use crate::cells;
use crate::client::{Answer, Ask, Client};
use crate::load;
use crate::proxies::{Kind, Proxy};
use crate::route::{Route, Special};
use crate::service::{Draft, Service};
use crate::world::{Place, Ports, World, lock};

#[derive(Debug)]
pub struct Silence {
    pub kind: Kind,
    pub requests: usize,
    /// Requests that failed after all (a real failure is no false alarm): left out of the count.
    pub failed: usize,
    pub reloads: usize,
    pub restarts: usize,
    pub alarms: Vec<String>,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "silence {}: {} incidents in {} healthy requests ({} reloads, {} restarts of a peer, {} failed for real)",
            self.kind.name(),
            self.alarms.len(),
            self.requests,
            self.reloads,
            self.restarts,
            self.failed
        )
    }
}

/// A peer that can be restarted.
struct Peer {
    at: String,
    name: &'static str,
    running: Option<Service>,
}

impl Peer {
    fn start(&mut self, world: &World) -> Result<()> {
        let spec = format!("{}=ok", self.at);
        let draft = Draft::upstream(world, &world.proxies, self.name, &["graceful", &spec])?;
        self.running = Some(draft.start_at(&self.at)?);
        Ok(())
    }

    /// Ends it as a supervisor would, and starts it anew.
    fn restart(&mut self, world: &World) -> Result<()> {
        if let Some(service) = self.running.take() {
            service.kill(libc::SIGTERM);
        }
        self.start(world)
    }
}

/// Without the agent, only what the clients get is looked at.
pub fn run(kind: Kind, count: usize, with_agent: bool) -> Result<Silence> {
    let world = World::new(Ports::Plenty)?;
    let mut peers = ["peer-one", "peer-two"].map(|name| {
        let at = format!("127.0.0.1:{}", world.port());
        Peer { at, name, running: None }
    });
    for peer in &mut peers {
        peer.start(&world)?;
    }
    let routes = routes(&world, &peers);
    world.start_shared()?;
    let proxy = Proxy::start_with(kind, &world, &routes, 2, kind.name())?;
    let agent = if with_agent { Some(cells::start_agent(&world)?) } else { None };
    let done = AtomicBool::new(false);
    let (reloads, restarts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = Mutex::new(BTreeSet::new());
    let closed = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| -> Result<()> {
        let trouble = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1500));
                peers[0].restart(&world)?;
                restarts.fetch_add(1, Ordering::Relaxed);
                if proxy.reload() {
                    reloads.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        let loaded = load::run(&world, 64, count, |kept: &mut Option<Client>, n| {
            match ask(&proxy, kept, n)? {
                Outcome::Well => {}
                Outcome::Failed(path) => drop(lock(&failed).insert(path)),
                Outcome::Closed(path) => drop(lock(&closed).insert(path)),
                Outcome::Both { closed: path, again } => {
                    lock(&closed).insert(path);
                    lock(&failed).insert(again);
                }
            }
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        trouble.join().ok().context("the restarting thread panicked")??;
        loaded
    })?;
    let failed = failed.into_inner().unwrap_or_default();
    let closed = closed.into_inner().unwrap_or_default();
    let alarm = |incident: &Incident| {
        let path = incident.request.path.as_deref().unwrap_or_default();
        // Apache ends a client's connection when its upstream breaks: with an attempt to show for it, that is true.
        let broke = closed.contains(path) && incident.seen == Seen::Closed && !incident.attempts.is_empty();
        !path.starts_with("/warm-up/") && !failed.contains(path) && !broke
    };
    let mut alarms = Vec::new();
    if let Some(agent) = agent {
        agent.settled(usize::MAX, Duration::from_secs(3));
        let records = agent.all().into_iter().filter(|record| cells::ours(record, &[&proxy]));
        alarms.extend(records.filter(|record| alarm(&record.incident)).map(|record| record.line));
        agent.stop()?;
    }
    Ok(Silence {
        kind,
        requests: count,
        failed: failed.len(),
        reloads: reloads.into_inner(),
        restarts: restarts.into_inner(),
        alarms,
    })
}

fn routes(world: &World, peers: &[Peer; 2]) -> Vec<Route> {
    let dead = format!("127.0.0.1:{}", world.port());
    let ok = world.shared_at(Place::Loopback, "ok");
    let mut rescued = Route::to("rescued", "").servers(&[dead, ok.clone()]);
    rescued.retry = true;
    let mut rolling = Route::to("rolling", "").servers(&[peers[0].at.clone(), peers[1].at.clone()]).keepalive();
    rolling.retry = true;
    vec![
        Route::to("kept", ok.clone()).keepalive(),
        Route::to("fresh", ok),
        Route::to("slow", world.shared_at(Place::Loopback, "slow:100")),
        Route::to("own-500", world.shared_at(Place::Loopback, "answer:500")),
        Route::to("own-404", world.shared_at(Place::Loopback, "answer:404")),
        rescued.special(Special::None),
        rolling,
    ]
}

/// What became of what a client did.
enum Outcome {
    Well,
    /// It failed although it should not have.
    Failed(String),
    /// Its kept connection ended instead of an answer, and it went well when asked again.
    Closed(String),
    /// Its kept connection ended instead of an answer, and it failed when asked again.
    Both {
        closed: String,
        again: String,
    },
}

/// One thing that a client does.
fn ask(proxy: &Proxy, kept: &mut Option<Client>, n: usize) -> Result<Outcome> {
    let (word, wanted) = match load::scatter(n) % 20 {
        0..=6 => ("kept", 200),
        7..=10 => ("fresh", 200),
        11..=12 => ("rescued", 200),
        13..=15 => ("rolling", 200),
        16 => ("own-500", 500),
        17 => ("own-404", 404),
        18 => return leave(proxy, n).map(|()| Outcome::Well),
        _ => return pipeline(proxy, n),
    };
    let path = format!("/{word}/{}/{n}", proxy.kind.name());
    let mut client = match kept.take() {
        Some(client) if word != "fresh" => client,
        _ => Client::connect(proxy.addr)?,
    };
    let mut answer = client.ask(&Ask::get(path.clone()));
    let closed = answer == Answer::Closed;
    if closed {
        // A proxy that reloads may close an idle connection as it is used; every client asks again then.
        client = Client::connect(proxy.addr)?;
        answer = client.ask(&Ask::get(format!("{path}/again")));
    }
    if matches!(answer, Answer::Status(_)) && !client.ended {
        *kept = Some(client);
    }
    Ok(match answer {
        Answer::Status(status) if status == wanted && closed => Outcome::Closed(path),
        Answer::Status(status) if status == wanted => Outcome::Well,
        _ if closed => Outcome::Both { again: format!("{path}/again"), closed: path },
        _ => Outcome::Failed(path),
    })
}

/// A client that does not wait.
fn leave(proxy: &Proxy, n: usize) -> Result<()> {
    let mut client = Client::connect(proxy.addr)?;
    let sent = client.send(&Ask::get(format!("/slow/{}/{n}", proxy.kind.name())).bytes());
    ensure!(sent, "the proxy took no request");
    // Some leave before the proxy has asked, some while it waits.
    std::thread::sleep(Duration::from_millis((n % 4) as u64 * 10));
    Ok(())
}

/// Two requests in one packet.
fn pipeline(proxy: &Proxy, n: usize) -> Result<Outcome> {
    let mut client = Client::connect(proxy.addr)?;
    let paths = ["a", "b"].map(|part| format!("/kept/{}/{n}/{part}", proxy.kind.name()));
    let both: Vec<u8> = paths.iter().flat_map(|path| Ask::get(path.clone()).bytes()).collect();
    client.send(&both);
    for path in paths {
        if client.answer(Duration::from_secs(20)) != Answer::Status(200) {
            return Ok(Outcome::Failed(path));
        }
    }
    Ok(Outcome::Well)
}
