//! Which program takes how much of a proxied request, by the kernel's own clock: it moves with the code, and hardly with
//! what else the machine does.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::programs::{self, Clock, Floor};
use super::requests;
use super::{Effort, Report, Row};

/// Programs that took less than this of a request are not shown, in nanoseconds.
const SHOWN: f64 = 20.0;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    requests::each(effort.pick(1000, 3000), |case, name| {
        let mut batches = Vec::new();
        for _ in 0..effort.pick(3, 7) {
            // Beside ours, so that it is met by whatever disturbs those.
            let _floor = Floor::attach()?;
            let before = programs::ran().iter().map(|ran| ran.id).max().unwrap_or(0);
            let kernel = case.watch()?;
            let _clock = Clock::start()?;
            case.batch()?;
            batches.push((spent(before, case.requests), Floor::run().context("no program ran")?));
            drop(kernel);
        }
        // The batch that was disturbed least.
        let total = |batch: &BTreeMap<String, (f64, f64)>| batch.values().map(|(nanos, _)| nanos).sum::<f64>();
        let (best, empty) =
            batches.iter().min_by(|(a, _), (b, _)| total(a).total_cmp(&total(b))).context("no batch")?;
        let runs = best.values().map(|(_, runs)| runs).sum::<f64>();
        let row = Row::new("programs", name).value("all", total(best), "ns").value("runs", runs, "");
        report.add(row.value("as many that do nothing", runs * empty, "ns"));
        for (program, (nanos, runs)) in best.iter().filter(|(_, (nanos, _))| *nanos >= SHOWN) {
            report.add(
                Row::new("programs", format!("{name}: {program}")).value("each", *nanos, "ns").value("runs", *runs, ""),
            );
        }
        Ok(())
    })
}

/// Time and runs for one request, by program, of those that were loaded after this one.
fn spent(after: u32, requests: usize) -> BTreeMap<String, (f64, f64)> {
    let mut found: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for ran in programs::ran().into_iter().filter(|ran| ran.id > after && ran.runs > 0) {
        let (nanos, runs) = found.entry(ran.name).or_default();
        *nanos += ran.nanos as f64 / requests as f64;
        *runs += ran.runs as f64 / requests as f64;
    }
    found
}
