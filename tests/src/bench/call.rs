//! The price of one send and one receive: a request and its answer, again and again, on a loopback connection.
//!
//! This process plays both ends. Where it is tracked it plays the proxy on both of them: what dials is an upstream
//! connection, what accepts a client's, and each call runs the way of a healthy proxied request.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result};
use trace502::kernel::{Kernel, Options};
use trace502_ebpf::PROC_PROXY;

use super::programs::{self, Floor};
use super::rivals::Rival;
use super::stats::{Spread, least};
use super::{Effort, Report, Row};

/// Bytes of each request and each answer.
const BYTES: usize = 200;

/// Who watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Watcher {
    Nobody,
    Floor,
    Untracked,
    Tracked,
    Bpftrace,
    Strace,
    Tcpdump,
}

impl Watcher {
    const ALL: [Watcher; 7] = [
        Watcher::Nobody,
        Watcher::Floor,
        Watcher::Untracked,
        Watcher::Tracked,
        Watcher::Bpftrace,
        Watcher::Strace,
        Watcher::Tcpdump,
    ];

    fn name(self) -> &'static str {
        match self {
            Watcher::Nobody => "nobody",
            Watcher::Floor => "two empty programs (the floor)",
            Watcher::Untracked => "trace502, not a proxy's socket",
            Watcher::Tracked => "trace502, a proxy's socket",
            Watcher::Bpftrace => "bpftrace",
            Watcher::Strace => "strace",
            Watcher::Tcpdump => "tcpdump",
        }
    }
}

/// Whatever must live while it watches.
enum Watching {
    Nobody,
    Floor { _floor: Floor },
    Us { _kernel: Box<Kernel> },
    Rival { _rival: Rival },
}

/// A connection of this process with itself.
struct Pair {
    dialled: TcpStream,
    accepted: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Pair {
    fn new(listener: &TcpListener) -> Result<Pair> {
        let dialled = TcpStream::connect(listener.local_addr()?)?;
        let (accepted, _) = listener.accept()?;
        for stream in [&dialled, &accepted] {
            stream.set_nodelay(true)?;
        }
        let request = fill(b"GET /an/ordinary/path?with=a&query HTTP/1.1\r\nHost: shop.example\r\nX-Fill: ");
        let answer = fill(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: text/plain\r\n\r\n");
        Ok(Pair { dialled, accepted, request, answer })
    }

    /// Nanoseconds of one send and one receive, over this many requests and answers.
    fn batch(&mut self, exchanges: u32) -> Result<f64> {
        let mut room = [0; BYTES];
        let start = Instant::now();
        for _ in 0..exchanges {
            self.dialled.write_all(&self.request)?;
            self.accepted.read_exact(&mut room)?;
            self.accepted.write_all(&self.answer)?;
            self.dialled.read_exact(&mut room)?;
        }
        Ok(start.elapsed().as_nanos() as f64 / f64::from(exchanges * 2))
    }
}

fn fill(begin: &[u8]) -> Vec<u8> {
    let mut bytes = begin.to_vec();
    bytes.resize(BYTES, b'.');
    bytes
}

/// Samples of one watcher: the best batch of each round.
struct Samples {
    watcher: Watcher,
    rounds: Vec<f64>,
}

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let (rounds, batches) = effort.pick((3, 40), (12, 80));
    let mut all: Vec<Samples> = Watcher::ALL.map(|watcher| Samples { watcher, rounds: Vec::new() }).into();
    let mut disturbed = 0;
    for _ in 0..rounds {
        for samples in &mut all {
            match round(samples.watcher, batches) {
                Ok((best, foreign)) => {
                    disturbed += usize::from(foreign);
                    samples.rounds.push(best);
                }
                Err(error) if samples.watcher as u8 > Watcher::Tracked as u8 && samples.rounds.is_empty() => {
                    report.note(format!("{} was left out: {error:#}", samples.watcher.name()));
                }
                Err(error) => return Err(error.context(samples.watcher.name())),
            }
        }
        all.retain(|samples| !samples.rounds.is_empty());
    }
    if disturbed > 0 {
        report.note(format!("in {disturbed} rounds somebody else loaded or removed kernel programs"));
    }
    tell(&all, report);
    Ok(())
}

/// The best of some batches with this watcher, and whether others' programs came or went meanwhile.
fn round(watcher: Watcher, batches: u32) -> Result<(f64, bool)> {
    let early = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let watching = watch(watcher, early.local_addr()?.port())?;
    // A proxy's listener is known as one when it begins to listen under the agent's eyes.
    let late = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut pair = Pair::new(if watcher == Watcher::Tcpdump { &early } else { &late })?;
    let programs = programs::loaded();
    let exchanges = if watcher == Watcher::Strace { 50 } else { 200 };
    pair.batch(exchanges)?;
    let mut found = Vec::new();
    for _ in 0..batches {
        found.push(pair.batch(exchanges)?);
    }
    let foreign = programs != programs::loaded();
    drop(watching);
    Ok((least(&found), foreign))
}

fn watch(watcher: Watcher, port: u16) -> Result<Watching> {
    Ok(match watcher {
        Watcher::Nobody => Watching::Nobody,
        Watcher::Floor => Watching::Floor { _floor: Floor::attach()? },
        Watcher::Untracked | Watcher::Tracked => {
            let mut kernel = Kernel::load(&Options::default())?;
            kernel.complete()?;
            if watcher == Watcher::Tracked {
                kernel.track(std::process::id(), PROC_PROXY)?;
            }
            Watching::Us { _kernel: Box::new(kernel) }
        }
        Watcher::Bpftrace => Watching::Rival { _rival: Rival::bpftrace().context("bpftrace")? },
        Watcher::Strace => Watching::Rival { _rival: Rival::strace().context("strace")? },
        Watcher::Tcpdump => Watching::Rival { _rival: Rival::tcpdump(port).context("tcpdump")? },
    })
}

fn tell(all: &[Samples], report: &mut Report) {
    let Some(bare) = all.iter().find(|samples| samples.watcher == Watcher::Nobody) else { return };
    let extra = |samples: &Samples| {
        let each: Vec<f64> = samples.rounds.iter().zip(&bare.rounds).map(|(with, without)| with - without).collect();
        Spread::of(&each)
    };
    let floor =
        all.iter().find(|samples| samples.watcher == Watcher::Floor).map_or(0.0, |samples| extra(samples).median);
    for samples in all {
        let mut row = Row::new("call", samples.watcher.name()).value("least", least(&samples.rounds), "ns");
        let spread = extra(samples);
        if samples.watcher != Watcher::Nobody {
            row =
                row.value("extra", spread.median, "ns").value("from", spread.low, "ns").value("to", spread.high, "ns");
        }
        let times = spread.median / floor;
        row = match samples.watcher {
            Watcher::Nobody | Watcher::Floor => row,
            _ => row.value("floors", times, "×"),
        };
        report.add(match samples.watcher {
            Watcher::Untracked => row.at_most("extra", spread.median, 200.0, "ns").at_most("floors", times, 1.5, ""),
            Watcher::Tracked => row.at_most("extra", spread.median, 500.0, "ns").at_most("floors", times, 3.5, ""),
            _ => row,
        });
    }
}
