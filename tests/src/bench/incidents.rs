//! A storm of gateway errors: what one costs the agent, whether all are told, and how long that takes.
//!
//! The proxy is this program under the name of one (see [`play`]): no real one fails fast enough on a small machine.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{ChildStdout, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};

use super::stats::quantile;
use super::usage;
use super::{Effort, Report, Row};
use crate::agent::binary;
use crate::guard::{Kid, Launch, TempDir, until};
use crate::world::lock;

/// What makes this program play a proxy.
pub const PLAY: &str = "--play-proxy";
const REQUEST: &[u8] = b"GET /storm HTTP/1.1\r\nHost: storm.test\r\n\r\n";
/// The same, each at another upstream.
pub const BROAD: &[u8] = b"GET /broad HTTP/1.1\r\nHost: storm.test\r\n\r\n";
/// A request that goes well. As long as the others, and so is its answer.
pub const QUIET: &[u8] = b"GET /quiet HTTP/1.1\r\nHost: storm.test\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
const WELL: &[u8] = b"HTTP/1.1 200 All Is Well\r\nContent-Length: 0\r\n\r\n";
const CLIENTS: usize = 4;
/// One in so many records has its latency taken.
const SAMPLE: usize = 20;

/// Asks an upstream that refuses, and says so, for as long as it is asked. Its port is the first line it prints.
pub fn play() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let upstream = TcpListener::bind("127.0.0.1:0")?;
    let well = upstream.local_addr()?;
    println!("{}", listener.local_addr()?);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for mut stream in upstream.incoming().flatten() {
                let mut room = [0; QUIET.len()];
                let _ = stream.read_exact(&mut room).and_then(|()| stream.write_all(WELL));
            }
        });
        for mut stream in listener.incoming().flatten() {
            scope.spawn(move || {
                let mut room = [0; REQUEST.len()];
                let _ = stream.set_nodelay(true);
                while stream.read_exact(&mut room).is_ok() {
                    let answer = if room == QUIET { forward(well) } else { refused(&room) };
                    if answer.and_then(|answer| stream.write_all(answer)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}

fn forward(upstream: SocketAddr) -> std::io::Result<&'static [u8]> {
    let mut stream = TcpStream::connect(upstream)?;
    stream.write_all(QUIET)?;
    let mut room = [0; WELL.len()];
    stream.read_exact(&mut room)?;
    Ok(WELL)
}

fn refused(request: &[u8]) -> std::io::Result<&'static [u8]> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let [.., high, low] = NEXT.fetch_add(usize::from(request == BROAD), Ordering::Relaxed).to_be_bytes();
    // Nobody has port 1, on any address of the loopback.
    let at = if request == BROAD { [127, 1, high, low] } else { [127, 0, 0, 1] };
    match TcpStream::connect(SocketAddr::from((at, 1))) {
        Ok(_) => Err(std::io::Error::other("somebody listens on port 1")),
        Err(_) => Ok(ANSWER),
    }
}

/// This program under the name of a proxy, and where it listens.
pub struct Player {
    pub at: SocketAddr,
    _kid: Kid,
}

impl Player {
    pub fn start(dir: &std::path::Path) -> Result<Player> {
        let name = dir.join("nginx");
        let me = std::env::current_exe()?;
        if std::fs::hard_link(&me, &name).is_err() {
            std::fs::copy(&me, &name).with_context(|| format!("cannot copy {}", me.display()))?;
        }
        let mut launch = Launch::new(&name).args([PLAY]);
        launch.command.stdout(Stdio::piped());
        let kid = launch.start()?;
        let mut line = String::new();
        BufReader::new(kid.take_stdout().context("the proxy has no stdout")?).read_line(&mut line)?;
        let at = line.trim().parse().context("the proxy does not say where it listens")?;
        Ok(Player { at, _kid: kid })
    }
}

/// The agent, its records counted and some of them timed as they come.
struct Told {
    kid: Kid,
    count: Arc<AtomicUsize>,
    /// Seconds from the proxy's write to the line.
    late: Arc<Mutex<Vec<f64>>>,
}

impl Told {
    fn start(log: &std::path::Path) -> Result<Told> {
        let mut launch = Launch::new(binary()?).args(["live", "--json"]).log(log)?;
        launch.command.stdout(Stdio::piped());
        let kid = launch.start()?;
        let out = kid.take_stdout().context("the agent has no stdout")?;
        let told = Told { kid, count: Arc::default(), late: Arc::default() };
        let (count, late) = (told.count.clone(), told.late.clone());
        std::thread::spawn(move || follow(out, &count, &late));
        Ok(told)
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits for this many, or until none has come for a while.
    fn settled(&self, wanted: usize) -> usize {
        let (mut seen, mut since) = (self.count(), Instant::now());
        while seen < wanted && since.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
            if self.count() != seen {
                (seen, since) = (self.count(), Instant::now());
            }
        }
        self.count()
    }
}

fn follow(out: ChildStdout, count: &AtomicUsize, late: &Mutex<Vec<f64>>) {
    let mut out = BufReader::with_capacity(1 << 18, out);
    let mut line = Vec::new();
    while out.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE)
            && let Some(delay) = delay(&line)
        {
            lock(late).push(delay);
        }
        line.clear();
    }
}

/// Seconds since the moment that a record tells of.
fn delay(line: &[u8]) -> Option<f64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64() % 86_400.0;
    let late = now - time_of_day(std::str::from_utf8(line).ok()?)?;
    // Around midnight.
    Some(if late < -43_200.0 { late + 86_400.0 } else { late })
}

fn time_of_day(line: &str) -> Option<f64> {
    let at = line.find("\"time\":\"")? + 8;
    let clock = line.get(at..)?.split_once('T')?.1.split_once('Z')?.0;
    let mut fields = clock.split(':');
    let mut field = || fields.next()?.parse::<f64>().ok();
    Some(field()? * 3600.0 + field()? * 60.0 + field()?)
}

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let dir = TempDir::new()?;
    let told = Told::start(&dir.path().join("agent.log"))?;
    let player = Player::start(dir.path())?;
    let at = player.at;
    until(Duration::from_secs(30), || (storm(at, &[REQUEST], 20, 100.0).is_ok() && told.count() > 0).then_some(()))
        .with_context(|| format!("the agent tells nothing: {:?}", told.kid.ended()))?;
    for rate in [1000, 5000, 20_000] {
        report.add(measure(&told, at, rate, effort.pick(2, 10))?);
    }
    Ok(())
}

fn measure(told: &Told, at: SocketAddr, rate: usize, seconds: usize) -> Result<Row> {
    told.settled(usize::MAX);
    let (before, used) = (told.count(), usage::cpu(told.kid.pid()));
    lock(&told.late).clear();
    let count = rate * seconds;
    let took = storm(at, &[REQUEST], count, rate as f64)?;
    let found = told.settled(before + count) - before;
    ensure!(told.kid.ended().is_none(), "the agent ended in the storm");
    let cpu = (usage::cpu(told.kid.pid()) - used) as f64 / 1000.0 / count as f64;
    let late: Vec<f64> = lock(&told.late).iter().map(|seconds| seconds * 1000.0).collect();
    let (half, most) = (quantile(&late, 0.5), quantile(&late, 0.99));
    let lost = count as f64 - found as f64;
    Ok(Row::new("incident", format!("{rate} a second wanted"))
        .value("had", count as f64 / took, "/s")
        .value("agent", cpu, "µs each")
        .value("lost", lost, "")
        .value("p50", half, "ms")
        .value("p99", most, "ms")
        .value("memory", usage::resident(told.kid.pid()) as f64 / 1e6, "MB")
        .at_most("lost", lost, 0.0, "")
        .at_most("p50", half, 2.0, "ms")
        .at_most("p99", most, 20.0, "ms"))
}

/// So many requests, each of these in turn, at this rate, or as near to it as the machine comes; how long that took.
pub fn storm(at: SocketAddr, requests: &[&[u8]], count: usize, rate: f64) -> Result<f64> {
    let start = Instant::now();
    let each = count / CLIENTS;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(move || -> Result<()> {
                    let mut stream = TcpStream::connect(at)?;
                    stream.set_nodelay(true)?;
                    let mut room = [0; ANSWER.len()];
                    for n in 0..each {
                        let due = Duration::from_secs_f64((n * CLIENTS) as f64 / rate);
                        if let Some(early) = due.checked_sub(start.elapsed()) {
                            std::thread::sleep(early);
                        }
                        stream.write_all(requests[n % requests.len()])?;
                        stream.read_exact(&mut room)?;
                    }
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().ok().context("a client panicked")?)
    })?;
    Ok(start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_record_is_read() {
        let line = r#"{"v":1,"id":"x","time":"2026-11-21T03:00:01.500000Z","status":502}"#;
        assert_eq!(time_of_day(line), Some(10_801.5));
        assert_eq!(time_of_day("{}"), None);
    }
}
