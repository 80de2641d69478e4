//! What the ring buffer and the tables hold, found by filling them, and what one more comes to.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use trace502::decode;
use trace502::kernel::{Kernel, Options, Ring};
use trace502::model::Fact;
use trace502_ebpf::{Kind, PROC_OWNER, PROC_PROXY, Table};

use super::{Effort, Report, Row};

/// Process ids beyond what a kernel hands out.
const NO_PID: u32 = 1 << 23;
/// Entries that the tables are given here: filling the usual ones takes minutes, and they differ in nothing else.
const ROOM: u32 = 64;

pub fn run(_effort: Effort, report: &mut Report) -> Result<()> {
    ring(report)?;
    processes(report)?;
    listeners(report)?;
    connections(report)
}

fn tracked(options: &Options) -> Result<Kernel> {
    let mut kernel = Kernel::load(options)?;
    kernel.complete()?;
    kernel.track(std::process::id(), PROC_PROXY)?;
    Ok(kernel)
}

/// Failures until one is lost, at each size; then how many of as many again.
fn ring(report: &mut Report) -> Result<()> {
    for megabytes in [1, 8, 64] {
        let mut kernel = tracked(&Options { ring_bytes: megabytes << 20, ..Options::default() })?;
        let mut ring = Ring::new(kernel.take_ring()?);
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let lost = |kernel: &Kernel| kernel.lost()[Kind::Attempt as usize];
        let mut held = 0_u64;
        while lost(&kernel) == 0 {
            ensure!(TcpStream::connect(nobody).is_err() && held < 1_000_000, "the ring buffer has no end");
            held += 1;
        }
        let names = std::mem::take(&mut kernel.names);
        let mut told = 0_u64;
        ring.drain(usize::MAX, |record| {
            told +=
                u64::from(matches!(decode::decode(record, &names), Ok(seen) if matches!(seen.fact, Fact::Attempt(_))));
        });
        let silent = held as f64 - told as f64 - lost(&kernel) as f64;
        report.add(
            Row::new("limits", format!("ring buffer of {megabytes} MiB"))
                .value("failed connects held", told as f64, "")
                .value("one past: counted", lost(&kernel) as f64, "")
                .value("neither told nor counted", silent, "")
                .at_most("neither", silent, 0.0, ""),
        );
    }
    Ok(())
}

/// As many as user space may add before it is refused.
fn processes(report: &mut Report) -> Result<()> {
    let mut kernel = tracked(&Options::default())?;
    let held =
        (0..1_u32 << 20).find(|n| kernel.track(NO_PID + n, PROC_OWNER).is_err()).context("no end of processes")?;
    report.add(Row::new("limits", "processes that matter").value("held", f64::from(held), ""));
    Ok(())
}

fn listeners(report: &mut Report) -> Result<()> {
    let kernel = tracked(&Options { room: Some(ROOM), ..Options::default() })?;
    let full = |kernel: &Kernel| kernel.lost()[Table::Listeners.slot()];
    let mut all = Vec::new();
    while full(&kernel) == 0 && all.len() < 100_000 {
        all.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    told(report, "listeners", all.len() - 1, full(&kernel));
    Ok(())
}

fn connections(report: &mut Report) -> Result<()> {
    let kernel = tracked(&Options { room: Some(ROOM), ..Options::default() })?;
    let full = |kernel: &Kernel| kernel.lost()[Table::Flows.slot()];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut all = Vec::new();
    while full(&kernel) == 0 && all.len() < 100_000 {
        all.push((TcpStream::connect(listener.local_addr()?)?, listener.accept()?));
    }
    told(report, "connections with their other end here", all.len() - 1, full(&kernel));
    Ok(())
}

fn told(report: &mut Report, what: &str, held: usize, counted: u64) {
    let row = Row::new("limits", format!("{what}, of a table of {ROOM}")).value("held", held as f64, "");
    let silent = 1.0 - counted as f64;
    report.add(row.value("one past: counted", counted as f64, "").at_most("silent", silent, 0.0, ""));
}
