//! What trace502 takes while nothing happens: its size, its memory, and the time until it watches.

use std::time::Instant;

use anyhow::Result;
use trace502::kernel::{Kernel, Options};

use super::stats::{Spread, least};
use super::usage;
use super::{Effort, Report, Row};
use crate::agent::{Agent, binary};
use crate::world::{Ports, World};

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let size = std::fs::metadata(binary()?)?.len() as f64 / 1e6;
    report.add(Row::new("footprint", "binary").value("size", size, "MB"));
    let mut took = Vec::new();
    for _ in 0..effort.pick(5, 20) {
        let start = Instant::now();
        let kernel = Kernel::load(&Options::default())?;
        took.push(start.elapsed().as_secs_f64() * 1000.0);
        kernel.complete()?;
    }
    let spread = Spread::of(&took);
    report.add(
        Row::new("footprint", "start to attached")
            .value("least", least(&took), "ms")
            .value("median", spread.median, "ms")
            .value("from", spread.low, "ms")
            .value("to", spread.high, "ms")
            .at_most("median", spread.median, 300.0, "ms"),
    );
    let world = World::new(Ports::Plenty)?;
    let agent = Agent::start(world.dir().join("agent.log"), &[])?;
    agent.wait_ready(&world)?;
    let resident = usage::resident(agent.pid()) as f64 / 1e6;
    report.add(Row::new("footprint", "live after its first error").value("memory", resident, "MB"));
    agent.stop().map(drop)
}
