//! Whether an event costs more the more there is: connections, listeners, processes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use trace502::kernel::{Kernel, Options};
use trace502_ebpf::{PROC_OWNER, PROC_PROXY};

use super::call::{Manner, Pair};
use super::stats::{least, quantile};
use super::{Effort, Report, Row, usage};

/// The goal: what the last step costs, of what the first one does.
const FLAT: f64 = 1.25;
/// Process ids beyond what a kernel hands out.
const NO_PID: u32 = 1 << 23;

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    descriptors()?;
    let batches = effort.pick(15, 40);
    connections(effort.pick(&[10, 1000, 20_000], &[10, 100, 1000, 10_000, 50_000, 100_000]), batches, report)?;
    listeners(effort.pick(&[1, 1000], &[1, 10, 100, 1000, 5000]), batches, report)?;
    processes(effort.pick(&[100, 20_000], &[100, 1000, 5000, 20_000]), batches, report)
}

/// What makes this program hold connections with itself: as many as one process may open files for.
pub const HOLD: &str = "--hold-connections";
/// Connections of one holder; each takes two descriptors.
const EACH_HOLDS: usize = 8000;

/// Waits for a line, connects, says so, and holds what it has until its input ends.
pub fn hold(count: &str, host: &str) -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    descriptors()?;
    let listener = TcpListener::bind((host, 0))?;
    let mut held = Vec::new();
    for _ in 0..count.parse().context("how many connections?")? {
        held.push((TcpStream::connect(listener.local_addr()?)?, listener.accept()?));
    }
    println!("holding");
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

/// As many files as this process may open.
fn descriptors() -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid place for the answer, and a limit that the kernel itself gave us.
    let set = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    ensure!(set == 0, "cannot open as many files as allowed: {}", std::io::Error::last_os_error());
    Ok(())
}

/// A proxy with idle connections, gone with this value.
struct Holder {
    child: Child,
}

impl Holder {
    fn start(kernel: &mut Kernel, count: usize, nth: usize) -> Result<Holder> {
        let host = format!("127.1.{}.1", nth + 1);
        let mut command = Command::new(std::env::current_exe()?);
        command.args([HOLD, &count.to_string(), &host]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Holder { child: command.spawn()? };
        kernel.track(holder.child.id(), PROC_PROXY)?;
        writeln!(holder.child.stdin.as_mut().context("no stdin")?)?;
        let mut line = String::new();
        BufReader::new(holder.child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        ensure!(line == "holding\n", "a process could not make {count} connections");
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn tracked() -> Result<Kernel> {
    let mut kernel = Kernel::load(&Options::default())?;
    kernel.complete()?;
    kernel.track(std::process::id(), PROC_PROXY)?;
    Ok(kernel)
}

/// One curve: what an event costs at each step.
struct Curve {
    case: &'static str,
    first: Option<f64>,
    last: f64,
}

impl Curve {
    fn new(case: &'static str) -> Curve {
        Curve { case, first: None, last: 0.0 }
    }

    fn step(&mut self, count: usize, unit: &str, cost: f64, report: &mut Report) {
        self.first.get_or_insert(cost);
        self.last = cost;
        report.add(Row::new("growth", format!("{} with {count} {unit}", self.case)).value("costs", cost, "ns"));
    }

    fn end(self, report: &mut Report) {
        let grew = self.last / self.first.unwrap_or(self.last);
        let row = Row::new("growth", self.case).value("last to first", grew, "×");
        report.add(row.at_most("last to first", grew, FLAT, "×"));
    }
}

/// Idle connections of a proxy beside those on which something happens.
fn connections(steps: &[usize], batches: u32, report: &mut Report) -> Result<()> {
    let mut kernel = tracked()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (mut holders, mut held) = (Vec::new(), 0);
    let (mut calls, mut failures) = (Curve::new("a send and a receive"), Curve::new("a refused connect"));
    for &count in steps {
        while held < count {
            let more = EACH_HOLDS.min(count - held);
            holders.push(Holder::start(&mut kernel, more, holders.len())?);
            held += more;
        }
        let mut pair = Pair::new(&listener)?;
        pair.batch(Manner::Turns, 200)?;
        let found = (0..batches).map(|_| pair.batch(Manner::Turns, 200)).collect::<Result<Vec<f64>>>()?;
        calls.step(count, "connections", least(&found), report);
        failures.step(count, "connections", refused(batches)?, report);
    }
    calls.end(report);
    failures.end(report);
    Ok(())
}

/// CPU nanoseconds of a connect that is refused and told.
fn refused(batches: u32) -> Result<f64> {
    const EACH: u32 = 100;
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut found = Vec::new();
    for _ in 0..batches {
        let start = usage::own_cpu();
        for _ in 0..EACH {
            let _ = TcpStream::connect(nobody);
        }
        found.push((usage::own_cpu() - start) as f64 / f64::from(EACH));
    }
    // The ring fills up, after which a record is only counted: both ways have their share.
    Ok(quantile(&found, 0.1))
}

fn listeners(steps: &[usize], batches: u32, report: &mut Report) -> Result<()> {
    let kernel = tracked()?;
    let (mut others, mut curve) = (Vec::new(), Curve::new("a refused connect, by listeners"));
    for &count in steps {
        while others.len() < count {
            others.push(TcpListener::bind((Ipv4Addr::new(127, 2, 0, 1), 0))?);
        }
        curve.step(count, "listeners", refused(batches)?, report);
    }
    curve.end(report);
    drop(kernel);
    Ok(())
}

/// Processes that the kernel side keeps: entries of its table. That they are none does not make them cheaper.
fn processes(steps: &[usize], batches: u32, report: &mut Report) -> Result<()> {
    let mut kernel = tracked()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (mut kept, mut curve) = (0, Curve::new("a connect of a process that is not tracked"));
    kernel.track(std::process::id(), 0)?;
    for &count in steps {
        while kept < count {
            kernel.track(NO_PID + kept as u32, PROC_OWNER)?;
            kept += 1;
        }
        curve.step(count, "processes", connected(&listener, batches)?, report);
    }
    curve.end(report);
    Ok(())
}

fn connected(listener: &TcpListener, batches: u32) -> Result<f64> {
    const EACH: u32 = 100;
    let at: SocketAddr = listener.local_addr()?;
    let mut found = Vec::new();
    for _ in 0..batches {
        let start = usage::own_cpu();
        for _ in 0..EACH {
            let dialled = TcpStream::connect(at)?;
            drop((listener.accept()?, dialled));
        }
        found.push((usage::own_cpu() - start) as f64 / f64::from(EACH));
    }
    Ok(least(&found))
}
