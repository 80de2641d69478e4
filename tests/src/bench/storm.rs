//! Processes that have nothing to do with a proxy, connecting as fast as they can: each connect and close passes the
//! hooks on the life of sockets.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::Result;
use trace502::kernel::{Kernel, Options};

use super::stats::{Spread, least};
use super::usage;
use super::{Effort, Report, Row};

/// The storm that the goal speaks of.
const PER_SECOND: f64 = 10_000.0;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let (rounds, batches) = effort.pick((3, 20), (10, 40));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (mut bare, mut extra) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let without = best(&listener, batches)?;
        let kernel = Kernel::load(&Options::default())?;
        kernel.complete()?;
        let with = best(&listener, batches)?;
        drop(kernel);
        bare.push(without);
        extra.push(with - without);
    }
    let spread = Spread::of(&extra);
    let share = spread.median * PER_SECOND / 1e9 * 100.0;
    let row = Row::new("storm", "connect, accept and close")
        .value("least", least(&bare), "ns")
        .value("extra", spread.median, "ns")
        .value("from", spread.low, "ns")
        .value("to", spread.high, "ns")
        .value("at 10,000/s", share, "% of a CPU")
        .at_most("at 10,000/s", share, 3.0, "%");
    report.add(row);
    Ok(())
}

/// CPU nanoseconds of one connection, the best of some batches.
fn best(listener: &TcpListener, batches: u32) -> Result<f64> {
    const EACH: u32 = 100;
    let at = listener.local_addr()?;
    let mut found = Vec::new();
    for _ in 0..batches {
        let start = usage::own_cpu();
        for _ in 0..EACH {
            connection(listener, at)?;
        }
        found.push((usage::own_cpu() - start) as f64 / f64::from(EACH));
    }
    Ok(least(&found))
}

fn connection(listener: &TcpListener, at: SocketAddr) -> Result<()> {
    let dialled = TcpStream::connect(at)?;
    let (accepted, _) = listener.accept()?;
    drop(dialled);
    drop(accepted);
    Ok(())
}
