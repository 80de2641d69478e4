//! The price of one send and one receive on a loopback connection.
//!
//! This process plays both ends. Where it is tracked it plays the proxy on both of them: what dials is an upstream
//! connection, what accepts a client's. The goals are about a connection on which bytes flow (`flow`). Where every
//! call begins a request or its answer (`turns`), each of them is one of the few that cost most.

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

/// What passes over the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// One end sends and the other receives, always the same way.
    Flow,
    /// A request and its answer, in turn.
    Turns,
}

impl Manner {
    const ALL: [Manner; 2] = [Manner::Flow, Manner::Turns];

    fn name(self) -> &'static str {
        match self {
            Manner::Flow => "flow",
            Manner::Turns => "turns",
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
pub struct Pair {
    dialled: TcpStream,
    accepted: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Pair {
    pub fn new(listener: &TcpListener) -> Result<Pair> {
        let dialled = TcpStream::connect(listener.local_addr()?)?;
        let (accepted, _) = listener.accept()?;
        for stream in [&dialled, &accepted] {
            stream.set_nodelay(true)?;
        }
        let request = fill(b"GET /an/ordinary/path?with=a&query HTTP/1.1\r\nHost: shop.example\r\nX-Fill: ");
        let answer = fill(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: text/plain\r\n\r\n");
        Ok(Pair { dialled, accepted, request, answer })
    }

    /// Nanoseconds of one send and one receive, over this many pairs of them.
    pub fn batch(&mut self, manner: Manner, exchanges: u32) -> Result<f64> {
        let mut room = [0; BYTES];
        let start = Instant::now();
        for _ in 0..exchanges {
            self.dialled.write_all(&self.request)?;
            self.accepted.read_exact(&mut room)?;
            let (answers, back) = match manner {
                Manner::Turns => (&mut self.accepted, &mut self.dialled),
                Manner::Flow => (&mut self.dialled, &mut self.accepted),
            };
            answers.write_all(&self.answer)?;
            back.read_exact(&mut room)?;
        }
        Ok(start.elapsed().as_nanos() as f64 / f64::from(exchanges * 2))
    }
}

fn fill(begin: &[u8]) -> Vec<u8> {
    let mut bytes = begin.to_vec();
    bytes.resize(BYTES, b'.');
    bytes
}

/// Samples of one watcher: the best batch of each round, of each manner.
struct Samples {
    watcher: Watcher,
    rounds: Vec<[f64; 2]>,
}

impl Samples {
    fn of(&self, manner: Manner) -> Vec<f64> {
        self.rounds.iter().map(|round| round[manner as usize]).collect()
    }
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
    for manner in Manner::ALL {
        tell(&all, manner, report);
    }
    Ok(())
}

/// The best of some batches with this watcher, and whether others' programs came or went meanwhile.
fn round(watcher: Watcher, batches: u32) -> Result<([f64; 2], bool)> {
    let early = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let watching = watch(watcher, early.local_addr()?.port())?;
    // A proxy's listener is known as one when it begins to listen under the agent's eyes.
    let late = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let listener = if watcher == Watcher::Tcpdump { &early } else { &late };
    let programs = programs::loaded();
    let exchanges = if watcher == Watcher::Strace { 50 } else { 200 };
    let mut best = [0.0; 2];
    for manner in Manner::ALL {
        let mut pair = Pair::new(listener)?;
        pair.batch(manner, exchanges)?;
        let found = (0..batches).map(|_| pair.batch(manner, exchanges)).collect::<Result<Vec<f64>>>()?;
        best[manner as usize] = least(&found);
    }
    let foreign = programs != programs::loaded();
    drop(watching);
    Ok((best, foreign))
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

fn tell(all: &[Samples], manner: Manner, report: &mut Report) {
    let Some(bare) = all.iter().find(|samples| samples.watcher == Watcher::Nobody) else { return };
    let bare = bare.of(manner);
    let extra = |samples: &Samples| {
        let with = samples.of(manner);
        let each: Vec<f64> = with.iter().zip(&bare).map(|(with, without)| with - without).collect();
        Spread::of(&each)
    };
    let floor =
        all.iter().find(|samples| samples.watcher == Watcher::Floor).map_or(0.0, |samples| extra(samples).median);
    for samples in all {
        let name = format!("{}: {}", manner.name(), samples.watcher.name());
        let mut row = Row::new("call", name).value("least", least(&samples.of(manner)), "ns");
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
        report.add(match (samples.watcher, manner) {
            (Watcher::Untracked, _) => {
                row.at_most("extra", spread.median, 200.0, "ns").at_most("floors", times, 1.5, "")
            }
            (Watcher::Tracked, Manner::Flow) => {
                row.at_most("extra", spread.median, 500.0, "ns").at_most("floors", times, 3.5, "")
            }
            _ => row,
        });
    }
}
