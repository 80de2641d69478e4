//! The time that the programs on a send and a receive take, as the kernel counts it, beside that of programs that do
//! nothing. It moves with the code, and hardly with what else happens on the machine: what the tests hold.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result, ensure};
use trace502::kernel::{Kernel, Options};
use trace502_ebpf::PROC_PROXY;

use super::call::{Manner, Pair};
use super::programs::{self, Clock, FLOOR, Floor, Ran};
use super::stats::least;
use super::{Effort, Report, Row};

/// The programs on both lengths, where the kernel has these hooks.
const OURS: [&str; 2] = ["sent", "received"];

/// Nanoseconds of the programs for one send and one receive, the kernel's own accounting included.
#[derive(Clone, Copy, Debug)]
pub struct Price {
    pub floor: f64,
    pub untracked: f64,
    pub flow: f64,
    pub turns: f64,
}

impl Price {
    /// Of the least of some batches each.
    pub fn take(batches: u32) -> Result<Price> {
        let _clock = Clock::start()?;
        let floor = Floor::attach()?;
        let idle = spent(Manner::Turns, batches, |ran| ran.name == FLOOR)?;
        drop(floor);
        let before = programs::ran().iter().map(|ran| ran.id).max().unwrap_or(0);
        let mut kernel = Kernel::load(&Options::default())?;
        kernel.complete()?;
        let ours = |ran: &Ran| ran.id > before && OURS.contains(&ran.name.as_str());
        ensure!(programs::ran().iter().any(ours), "this kernel has other hooks than the ones that are measured");
        let untracked = spent(Manner::Turns, batches, ours)?;
        kernel.track(std::process::id(), PROC_PROXY)?;
        let flow = spent(Manner::Flow, batches, ours)?;
        let turns = spent(Manner::Turns, batches, ours)?;
        Ok(Price { floor: idle, untracked, flow, turns })
    }

    /// How many programs that do nothing each costs, by the name it is held under.
    pub fn floors(&self) -> [(&'static str, f64); 3] {
        [("untracked", self.untracked), ("flow", self.flow), ("turns", self.turns)]
            .map(|(name, nanos)| (name, nanos / self.floor))
    }
}

/// The sum over these programs of the least that one run took.
fn spent(manner: Manner, batches: u32, wanted: impl Fn(&Ran) -> bool) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut pair = Pair::new(&listener)?;
    pair.batch(manner, 200)?;
    let mut found: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    let mut before: BTreeMap<u32, Ran> = BTreeMap::new();
    for _ in 0..=batches {
        for ran in programs::ran().into_iter().filter(&wanted) {
            if let Some(last) = before.get(&ran.id)
                && ran.runs > last.runs
            {
                let each = (ran.nanos - last.nanos) as f64 / (ran.runs - last.runs) as f64;
                found.entry(ran.id).or_default().push(each);
            }
            before.insert(ran.id, ran);
        }
        pair.batch(manner, 500)?;
    }
    ensure!(found.len() == 2, "the programs on a send and a receive did not run");
    found.values().map(|samples| least(samples)).reduce(|sum, next| sum + next).context("no program ran")
}

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let price = Price::take(effort.pick(20, 60))?;
    report.add(Row::new("hooks", "two programs that do nothing").value("both", price.floor, "ns"));
    for ((name, floors), nanos) in price.floors().into_iter().zip([price.untracked, price.flow, price.turns]) {
        report.add(Row::new("hooks", name).value("both", nanos, "ns").value("floors", floors, "×"));
    }
    Ok(())
}
