//! Measure two: ten faults and health mixed, 64 requests at a time, and each request's own cause must be right. Each
//! client on connections of its own, or as streams of one connection behind TLS.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use trace502::causes;
use trace502::model::{Confidence, Group};

use crate::cells;
use crate::client::{Answer, Ask, Client};
use crate::faults::{self, Setup};
use crate::load;
use crate::proxies::{Kind, Proxy};
use crate::route::Route;
use crate::truth::{Exchange, Record};
use crate::world::{Place, Ports, World, lock};

/// Faults that hold still: whoever asks gets the same, however often.
const MIXED: [&str; 10] = [
    "no-listener",
    "wrong-address",
    "nft-reset-in",
    "unix-missing",
    "no-route",
    "close-early",
    "reset",
    "half-head-fin",
    "own-502",
    "own-504",
];

/// What HAProxy tells a stream's client by a reset, upon which the client asks again by itself.
const ASKED_AGAIN: [&str; 3] = ["close-early", "reset", "half-head-fin"];

pub const CONCURRENCY: usize = 64;

#[derive(Debug)]
pub struct Exactness {
    pub kind: Kind,
    pub requests: usize,
    /// Requests with exactly the record that they should have: the failed ones theirs, the others none.
    pub right: usize,
    pub false_alarms: usize,
    /// Failed requests that were told another cause than theirs, however likely, and as certain.
    pub mistaken: usize,
    pub mistaken_for_certain: usize,
    /// By what is wrong, how often, with one example.
    pub wrong: BTreeMap<String, (usize, String)>,
}

impl fmt::Display for Exactness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, right, requests) = (self.kind.name(), self.right, self.requests);
        let (mistaken, certain) = (self.mistaken, self.mistaken_for_certain);
        write!(
            f,
            "exactness {name}: {right} of {requests} right, {mistaken} told another cause ({certain} as certain), "
        )?;
        write!(f, "{} false alarms", self.false_alarms)
    }
}

/// What a failed request's record must say, and nothing a healthy one's.
struct Truth {
    exchange: Exchange,
    causes: Option<&'static [&'static str]>,
}

/// How the clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// In plain text, each on connections of its own.
    Plain,
    /// As streams of one HTTP/2 connection inside TLS.
    Streams,
}

/// Without the agent, only what the clients get is looked at.
pub fn run(kind: Kind, count: usize, clients: Clients, with_agent: bool) -> Result<Exactness> {
    let world = World::new(Ports::Plenty)?;
    let mut routes = Vec::new();
    let mut hold = Vec::new();
    let mut rows: Vec<_> = faults::all().into_iter().filter(|fault| MIXED.contains(&fault.name)).collect();
    let again = clients == Clients::Streams && kind == Kind::Haproxy;
    rows.retain(|fault| !(again && ASKED_AGAIN.contains(&fault.name)));
    for fault in &rows {
        let plan = (fault.prepare)(&Setup { world: world.clone(), kind, fault: fault.name })?;
        hold.extend(plan.hold);
        routes.push(plan.route);
    }
    routes.push(Route::to("healthy", world.shared_at(Place::Loopback, "ok")).keepalive());
    world.start_shared()?;
    let proxy = Proxy::start(kind, &world, &routes)?;
    let agent = if with_agent { Some(cells::start_agent(&world)?) } else { None };
    let truths = Mutex::new(Vec::with_capacity(count));
    let row = |n: usize| rows.get(load::scatter(n) % (2 * rows.len()));
    match clients {
        Clients::Plain => load::run(&world, CONCURRENCY, count, |kept: &mut Option<Client>, n| {
            let truth = ask(&proxy, kept, n, row(n))?;
            lock(&truths).push(truth);
            Ok(())
        })?,
        Clients::Streams => load::run(&world, 1, count.div_ceil(CONCURRENCY), |_: &mut (), batch| {
            let numbers = (batch * CONCURRENCY..(batch + 1) * CONCURRENCY).map(|n| (n, row(n)));
            let asked = streams(&world, &proxy, &numbers.collect::<Vec<_>>())?;
            lock(&truths).extend(asked);
            Ok(())
        })?,
    }
    let truths = truths.into_inner().unwrap_or_default();
    let failed = truths.iter().filter(|truth| truth.causes.is_some()).count();
    let Some(agent) = agent else { return Ok(unjudged(kind, &truths)) };
    agent.settled(failed, Duration::from_secs(60));
    let result = judge(kind, &truths, agent.all().into_iter().filter(|record| cells::ours(record, &[&proxy])));
    agent.stop()?;
    Ok(result)
}

/// One request, on the thread's connection or on one of its own.
fn ask(proxy: &Proxy, kept: &mut Option<Client>, n: usize, row: Option<&faults::Fault>) -> Result<Truth> {
    let name = row.map_or("healthy", |fault| fault.name);
    let ask = Ask::get(format!("/{name}/{}/{n}", proxy.kind.name()));
    let mut client = match kept.take() {
        Some(client) if !n.is_multiple_of(3) => client,
        _ => Client::connect(proxy.addr)?,
    };
    let local = client.local().map(|addr| addr.to_string()).unwrap_or_default();
    let answer = client.ask(&ask);
    if matches!(answer, Answer::Status(_)) && !client.ended {
        *kept = Some(client);
    }
    let exchange = Exchange { path: ask.path, client: local, answer, secure: false, judged: row.is_some() };
    Ok(Truth { exchange, causes: row.map(|fault| fault.causes) })
}

/// Requests at once on one connection, by the curl of the distribution.
fn streams(world: &World, proxy: &Proxy, numbers: &[(usize, Option<&faults::Fault>)]) -> Result<Vec<Truth>> {
    let at = format!("https://secure.test:{}", proxy.secure);
    let mut paths = BTreeMap::new();
    let mut config = format!(
        "silent\nhttp2\nparallel\nparallel-max = {CONCURRENCY}\nmax-time = 30\ncacert = {}\n\
         resolve = secure.test:{}:127.0.0.1\nwrite-out = \"%{{url}} %{{http_code}} %{{local_ip}}:%{{local_port}}\\n\"\n",
        world.certs.cert("ca"),
        proxy.secure
    );
    for (n, row) in numbers {
        let path = format!("/{}/{}/{n}", row.map_or("healthy", |fault| fault.name), proxy.kind.name());
        config.push_str(&format!("url = {at}{path}\noutput = /dev/null\n"));
        paths.insert(path, *row);
    }
    let file = world.dir().join("streams.curl");
    std::fs::write(&file, config)?;
    let output = std::process::Command::new("curl").arg("--config").arg(&file).output().context("cannot run curl")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut truths = Vec::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [url, status, client] = words[..] else { continue };
        let path = url.strip_prefix(&at).unwrap_or(url).to_owned();
        let row = paths.remove(&path).context("curl told of a request that was not made")?;
        let answer = match status.parse()? {
            0 => Answer::Closed,
            status => Answer::Status(status),
        };
        let exchange = Exchange { path, client: client.to_owned(), answer, secure: true, judged: row.is_some() };
        truths.push(Truth { exchange, causes: row.map(|fault| fault.causes) });
    }
    ensure!(paths.is_empty(), "curl told nothing of {} requests: {said}", paths.len());
    Ok(truths)
}

impl Exactness {
    fn of(kind: Kind, truths: &[Truth]) -> Self {
        let wrong = BTreeMap::new();
        Self { kind, requests: truths.len(), right: 0, false_alarms: 0, mistaken: 0, mistaken_for_certain: 0, wrong }
    }
}

fn unjudged(kind: Kind, truths: &[Truth]) -> Exactness {
    let mut result = Exactness::of(kind, truths);
    for truth in truths {
        let got = truth.exchange.answer.word();
        match (truth.causes, got.as_str()) {
            (None, "200") => result.right += 1,
            (Some(_), got) if got != "200" => result.right += 1,
            (causes, got) => {
                let what = format!("the lab: {} got {got}", causes.map_or("health", |causes| causes[0]));
                result.wrong.entry(what).or_insert((0, truth.exchange.path.clone())).0 += 1;
            }
        }
    }
    result
}

fn judge(kind: Kind, truths: &[Truth], records: impl Iterator<Item = Record>) -> Exactness {
    let mut by_path: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in records {
        by_path.entry(record.incident.request.path.clone().unwrap_or_default()).or_default().push(record);
    }
    let mut result = Exactness::of(kind, truths);
    for truth in truths {
        let records = by_path.remove(&truth.exchange.path).unwrap_or_default();
        match wrong(truth, &records) {
            None => result.right += 1,
            Some(what) => {
                let mistaken = truth.causes.and_then(|causes| records.iter().find(|record| misleads(record, causes)));
                let mistaken = mistaken.filter(|record| !stood_still(record, truth));
                result.mistaken += usize::from(mistaken.is_some());
                let certain = mistaken.is_some_and(|record| record.incident.confidence == Confidence::Certain);
                result.mistaken_for_certain += usize::from(certain);
                let example = records.first().map_or(truth.exchange.path.clone(), |record| record.line.clone());
                result.wrong.entry(what).or_insert((0, example)).0 += 1;
            }
        }
    }
    by_path.retain(|path, _| !path.starts_with("/warm-up/"));
    for record in by_path.into_values().flatten() {
        result.false_alarms += 1;
        result.wrong.entry(format!("about nothing asked: {}", record.incident.cause)).or_insert((0, record.line)).0 +=
            1;
    }
    let alarms = |(what, (count, _)): (&String, &(usize, String))| if what.starts_with("healthy") { *count } else { 0 };
    result.false_alarms += result.wrong.iter().map(alarms).sum::<usize>();
    result
}

/// A machine that stands still for a second makes another fault than was asked for: the client got 504, though its upstream
/// answers at once with something else, because nobody read in time. Told as a wait, that is so.
fn stood_still(record: &Record, truth: &Truth) -> bool {
    let exchange = &truth.exchange;
    let waited = causes::by_id(&record.incident.cause).is_some_and(|cause| cause.group == Group::Wait);
    let own = truth.causes.is_some_and(|causes| causes.contains(&"upstream_error"));
    waited && !own && exchange.answer == Answer::Status(504) && record.incident.status_word() == exchange.answer.word()
}

/// It tells a cause, and none of these.
fn misleads(record: &Record, causes: &[&str]) -> bool {
    let cause = record.incident.cause.as_str();
    cause != "unattributed" && !causes.contains(&cause)
}

fn wrong(truth: &Truth, records: &[Record]) -> Option<String> {
    let exchange = &truth.exchange;
    let got = exchange.answer.word();
    let Some(causes) = truth.causes else {
        return match records {
            [] if got == "200" => None,
            [] => Some(format!("the lab: a healthy request got {got}")),
            [record, ..] => Some(format!("healthy, reported as {}", record.incident.cause)),
        };
    };
    let [record] = records else {
        return Some(format!("{}: {} records ({got})", causes[0], records.len()));
    };
    let cause = record.incident.cause.as_str();
    if !causes.contains(&cause) {
        return Some(format!("{}, reported as {cause} ({got})", causes[0]));
    }
    let status = record.incident.status_word();
    (status != got).then(|| format!("{cause}: status {status}, the client got {got}"))
}
