//! Measure one: every (proxy × fault) cell, and whether the agent named its cause.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::faults::{self, Fault, Plan, Session, Setup};
use crate::netns;
use crate::pace;
use crate::proxies::{Kind, Proxy};
use crate::truth::{self, Exchange, Expect, Outcome, Record, Verdict};
use crate::world::{Ports, World, lock};

/// So many incidents of requests that no cell made are forgiven: the lab's own ways of waiting for a service may fail
/// once.
pub const STRAY: usize = 10;

/// Which cells, and how.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    pub proxies: Vec<Kind>,
    /// Faults whose name contains one of these; all if empty.
    pub faults: Vec<String>,
    /// Those are whole names.
    pub whole_names: bool,
    /// Judge the agent, or only make sure that the faults happen.
    pub agent: bool,
    /// This many cells at a time.
    pub workers: usize,
    /// Show what the proxies' own logs said about each cell.
    pub logs: bool,
    /// Also write a recording here.
    pub record: Option<PathBuf>,
}

#[derive(Debug, Default)]
pub struct Report {
    pub outcomes: Vec<Outcome>,
    /// Records about requests that went well, or about none that was made.
    pub false_alarms: Vec<String>,
    pub complaints: Vec<String>,
    /// Everything that the agent wrote.
    pub lines: Vec<String>,
}

impl Report {
    pub fn right(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.right()).count()
    }

    pub fn line(&self) -> String {
        let (right, all, alarms) = (self.right(), self.outcomes.len(), self.false_alarms.len());
        format!("cells: {right} of {all} right, {alarms} false alarms")
    }

    /// Faults down, proxies across: `+` right, `X` wrong, `!` not made, `·` does not apply.
    pub fn table(&self) -> String {
        let mut text = format!("{:24}", "");
        for kind in Kind::ALL {
            text.push_str(&format!("{:>8}", kind.name()));
        }
        for fault in faults::all() {
            if !self.outcomes.iter().any(|outcome| outcome.fault == fault.name) {
                continue;
            }
            text.push_str(&format!("\n{:24}", fault.name));
            for kind in Kind::ALL {
                let cell = self.outcomes.iter().find(|outcome| outcome.kind == kind && outcome.fault == fault.name);
                let mark = match cell.map(|outcome| &outcome.verdict) {
                    Some(Verdict::Right) => "+",
                    Some(Verdict::Wrong(_)) => "X",
                    Some(Verdict::NotMade(_)) => "!",
                    None => "·",
                };
                text.push_str(&format!("{mark:>8}"));
            }
        }
        text.push('\n');
        text
    }
}

struct Cell {
    proxy: usize,
    fault: Fault,
    plan: Plan,
}

impl Choice {
    fn rows(&self, kind: Kind) -> Vec<Fault> {
        let named = |name: &str, word: &String| name == word || (!self.whole_names && name.contains(word.as_str()));
        let picked = |fault: &Fault| self.faults.is_empty() || self.faults.iter().any(|word| named(fault.name, word));
        faults::all().into_iter().filter(|fault| picked(fault) && !fault.answers(kind).is_empty()).collect()
    }
}

pub fn run(choice: &Choice) -> Result<Report> {
    let world = World::new(Ports::Few)?;
    let mut cells = VecDeque::new();
    let mut alone = VecDeque::new();
    let mut sites = Vec::new();
    let mut outcomes = Vec::new();
    for kind in choice.proxies.iter().copied() {
        let rows = choice.rows(kind);
        if rows.is_empty() {
            continue;
        }
        let mut routes = Vec::new();
        for fault in rows {
            let setup = Setup { world: world.clone(), kind, fault: fault.name };
            match (fault.prepare)(&setup) {
                Ok(plan) => {
                    routes.push(plan.route.clone());
                    let cell = Cell { proxy: sites.len(), fault, plan };
                    if fault.alone { alone.push_back(cell) } else { cells.push_back(cell) }
                }
                Err(error) => outcomes.push(not_made(kind, fault, &format!("{error:#}"))),
            }
        }
        sites.push((kind, routes));
    }
    world.start_shared()?;
    let proxies = sites.iter().map(|(kind, routes)| Proxy::start(*kind, &world, routes)).collect::<Result<Vec<_>>>()?;
    let agent = if choice.agent { Some(start_agent_of(&world, choice.record.as_deref())?) } else { None };
    let bench =
        Bench { world: &world, proxies: &proxies, agent: agent.as_ref(), known: Mutex::default(), logs: choice.logs };
    outcomes.extend(bench.work(cells, choice.workers)?);
    outcomes.extend(bench.work(alone, 1)?);
    outcomes.sort_by_key(|outcome| (outcome.kind, outcome.fault));
    let known = bench.known.into_inner().unwrap_or_default();
    let mut report = Report { outcomes, ..Report::default() };
    if let Some(agent) = agent {
        report.false_alarms = false_alarms(&agent, &proxies, &known);
        report.complaints = agent.complaints();
        let lines = agent.stop()?;
        report.lines = lines.into_iter().map(|record| record.line).collect();
    }
    Ok(report)
}

/// Makes the cells that are not right once more, few at a time: what went wrong among many on a busy machine must do so
/// by itself, too.
pub fn once_more(report: &mut Report, choice: &Choice) -> Result<()> {
    again(report, choice, 2, |outcome| !outcome.right())
}

/// Makes the cells that were told a wrong cause once more, each by itself, with nothing beside it that could disturb it.
pub fn misled_alone(report: &mut Report, choice: &Choice) -> Result<()> {
    again(report, choice, 1, |outcome| outcome.misled)
}

fn again(report: &mut Report, choice: &Choice, workers: usize, which: impl Fn(&Outcome) -> bool) -> Result<()> {
    for kind in choice.proxies.iter().copied() {
        let picked = report.outcomes.iter().filter(|outcome| outcome.kind == kind && which(outcome));
        let faults: Vec<_> = picked.map(|outcome| outcome.fault.to_owned()).collect();
        if faults.is_empty() {
            continue;
        }
        let choice = Choice { proxies: vec![kind], faults, whole_names: true, workers, ..choice.clone() };
        let more = run(&choice)?;
        for outcome in more.outcomes {
            let same = |cell: &&mut Outcome| (cell.kind, cell.fault) == (outcome.kind, outcome.fault);
            if let Some(cell) = report.outcomes.iter_mut().find(same) {
                *cell = outcome;
            }
        }
        report.complaints.extend(more.complaints);
    }
    Ok(())
}

/// Starts the agent and waits until it sees: it is asked about a proxy that refuses until it tells.
pub fn start_agent(world: &World) -> Result<Agent> {
    start_agent_of(world, None)
}

fn start_agent_of(world: &World, record: Option<&Path>) -> Result<Agent> {
    let log = world.dir().join("agent.log");
    let agent = match record {
        Some(file) => Agent::start_as("record", log, &["--output", &file.display().to_string()])?,
        None => Agent::start(log, &[])?,
    };
    agent.wait_ready(world)?;
    Ok(agent)
}

fn not_made(kind: Kind, fault: Fault, why: &str) -> Outcome {
    Outcome {
        kind,
        fault: fault.name,
        expected: fault.causes,
        verdict: Verdict::NotMade(why.to_owned()),
        answers: Vec::new(),
        records: Vec::new(),
        misled: false,
    }
}

fn false_alarms(agent: &Agent, proxies: &[Proxy], known: &BTreeSet<String>) -> Vec<String> {
    let strange = |record: &Record| {
        let path = record.incident.request.path.as_deref().unwrap_or_default();
        ours(record, proxies) && !known.contains(path) && !path.starts_with("/warm-up/")
    };
    agent.all().into_iter().filter(strange).map(|record| record.line).collect()
}

/// Whether a record is about a proxy of this lab: the host may have others, and another lab of the same paths.
pub fn ours<P: std::borrow::Borrow<Proxy>>(record: &Record, proxies: &[P]) -> bool {
    proxies.iter().any(|proxy| proxy.borrow().has(record.incident.proxy.pid))
}

/// The running lab, as its cells need it.
struct Bench<'a> {
    world: &'a World,
    proxies: &'a [Proxy],
    agent: Option<&'a Agent>,
    /// Paths that may have records.
    known: Mutex<BTreeSet<String>>,
    logs: bool,
}

impl Bench<'_> {
    fn work(&self, cells: VecDeque<Cell>, workers: usize) -> Result<Vec<Outcome>> {
        let cells = Mutex::new(cells);
        let outcomes = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(|| self.worker(&cells, &outcomes))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().ok().context("a worker of the lab panicked")?)
        })?;
        Ok(outcomes.into_inner().unwrap_or_default())
    }

    fn worker(&self, cells: &Mutex<VecDeque<Cell>>, outcomes: &Mutex<Vec<Outcome>>) -> Result<()> {
        netns::enter(&self.world.proxies.handle())?;
        loop {
            let Some(cell) = lock(cells).pop_front() else { return Ok(()) };
            let outcome = self.cell(cell);
            eprintln!("{outcome}");
            if self.logs {
                self.show_logs(&outcome);
            }
            lock(outcomes).push(outcome);
        }
    }

    fn show_logs(&self, outcome: &Outcome) {
        let Some(proxy) = self.proxies.iter().find(|proxy| proxy.kind == outcome.kind) else { return };
        eprintln!("    the client got {}", outcome.answers.join(", "));
        let mark = format!("/{}/", outcome.fault);
        for line in proxy.logs().lines().filter(|line| line.contains(&mark)) {
            eprintln!("    {}", line.trim_end());
        }
    }

    fn cell(&self, cell: Cell) -> Outcome {
        let proxy = &self.proxies[cell.proxy];
        let expect = cell.plan.expect(&cell.fault, proxy.kind);
        let session = Session::new(self.world, proxy, cell.fault.name);
        let done = (cell.plan.act)(&session);
        let exchanges = session.exchanges();
        let judged = exchanges.iter().filter(|exchange| exchange.judged).map(|exchange| exchange.path.clone());
        lock(&self.known).extend(judged.chain(session.asides()));
        let mut outcome = not_made(proxy.kind, cell.fault, "");
        outcome.answers = exchanges.iter().map(|exchange| exchange.answer.word()).collect();
        let made = done.map_err(|error| format!("{error:#}")).and_then(|()| truth::made(&expect, &exchanges));
        outcome.verdict = match (made, self.agent) {
            (Err(why), _) => Verdict::NotMade(why),
            (Ok(()), None) => Verdict::Right,
            (Ok(()), Some(agent)) => judge(agent, proxy, &expect, &exchanges, &mut outcome),
        };
        outcome
    }
}

/// How long a record may take after its client has its answer.
const PATIENCE: Duration = Duration::from_secs(4);

fn judge(agent: &Agent, proxy: &Proxy, expect: &Expect, exchanges: &[Exchange], outcome: &mut Outcome) -> Verdict {
    let mut wrong = Vec::new();
    for exchange in exchanges.iter().filter(|exchange| exchange.judged) {
        let records =
            agent.records(1, pace::duration(PATIENCE), |record| ours(record, &[proxy]) && about(record, exchange));
        outcome.misled |= truth::misled(expect, &records);
        outcome.records.extend(records.iter().map(|record| record.line.clone()));
        wrong.extend(truth::faults_of(expect, exchange, &records));
    }
    if wrong.is_empty() { Verdict::Right } else { Verdict::Wrong(wrong) }
}

/// By its path, or where a record has none, by its client and proxy.
pub fn about(record: &Record, exchange: &Exchange) -> bool {
    match record.incident.request.path.as_deref() {
        Some(path) => path == exchange.path,
        None => record.incident.client.as_deref() == Some(exchange.client.as_str()),
    }
}

/// Causes of the catalogue that no cell expects.
pub fn uncovered(catalogue: &[String]) -> Vec<String> {
    let covered: BTreeSet<&str> = faults::all().iter().flat_map(|fault| fault.causes.iter().copied()).collect();
    catalogue.iter().filter(|id| !covered.contains(id.as_str())).cloned().collect()
}
