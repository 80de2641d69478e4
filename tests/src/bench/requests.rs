//! The price of one proxied request: CPU time of real proxies, with and without trace502, in turn.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustls::ClientConfig;
use trace502::kernel::{Kernel, Options};
use trace502_ebpf::{PROC_LATE, PROC_OLDEST, PROC_PROXY};

use super::programs::Floor;
use super::stats::{Spread, quantile};
use super::usage;
use super::{Effort, Report, Row};
use crate::client::{Answer, Ask, Client, trusting};
use crate::load;
use crate::netns;
use crate::proxies::{Kind, Proxy};
use crate::route::{Route, Speaks};
use crate::world::{Place, Ports, World, lock};

const CLIENTS: usize = 4;
const BODIES: [(&str, usize); 2] = [("200 B", 200), ("64 KB", 65536)];

/// What is asked of whom.
pub struct Case<'a> {
    world: &'a World,
    proxy: &'a Proxy,
    class: u32,
    path: String,
    /// Clients keep their connection, and the proxy that to the upstream.
    keepalive: bool,
    /// Clients speak TLS and trust this.
    trust: Option<Arc<ClientConfig>>,
    pub requests: usize,
}

/// One batch: CPU of the proxy for a request in microseconds, and the latency that 99 of 100 stay below.
pub struct Batch {
    cpu: f64,
    p99: f64,
}

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let (rounds, requests) = effort.pick((4, 1000), (16, 3000));
    each(requests, |case, name| {
        report.add(compare(case, rounds, name)?);
        Ok(())
    })
}

/// Every case with its name, one after the other.
pub fn each(requests: usize, mut take: impl FnMut(&Case, &str) -> Result<()>) -> Result<()> {
    let world = World::new(Ports::Plenty)?;
    let upstream = serve(&world)?;
    let routes = [
        Route::to("once", upstream.to_string()),
        Route::to("kept", upstream.to_string()).keepalive(),
        Route::to("inside", world.shared_at(Place::Loopback, "node:https-good"))
            .speaking(Speaks::Tls { verify: true })
            .keepalive(),
    ];
    world.start_shared()?;
    for (kind, class) in [(Kind::Nginx, PROC_PROXY), (Kind::Haproxy, PROC_PROXY | PROC_OLDEST | PROC_LATE)] {
        let proxy = Proxy::start(kind, &world, &routes)?;
        for (route, keepalive) in [("kept", true), ("once", false)] {
            for (name, size) in BODIES {
                let path = format!("/{route}/{size}");
                let case = Case { world: &world, proxy: &proxy, class, path, keepalive, trust: None, requests };
                let manner = if keepalive { "keepalive" } else { "new connections" };
                take(&case, &format!("{} {manner} {name}", kind.name()))?;
                if keepalive && kind == Kind::Nginx {
                    let case = Case { trust: Some(trusting(&world.certs.cert("ca"))?), ..case };
                    take(&case, &format!("{} keepalive TLS {name}", kind.name()))?;
                }
            }
        }
        // Whatever is asked for, its answer is small.
        let path = "/inside/1".into();
        let case = Case { world: &world, proxy: &proxy, class, path, keepalive: true, trust: None, requests };
        take(&case, &format!("{} keepalive, upstream in TLS", kind.name()))?;
    }
    Ok(())
}

fn compare(case: &Case, rounds: usize, name: &str) -> Result<Row> {
    let (mut bare, mut hooks, mut more, mut late) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    case.batch()?;
    for round in 0..rounds {
        // Who comes first takes turns as well.
        let (off, floor, on) = if round % 2 == 0 {
            let off = case.batch()?;
            (off, case.hooked()?, case.watched()?)
        } else {
            let on = case.watched()?;
            let floor = case.hooked()?;
            (case.batch()?, floor, on)
        };
        bare.push(off.cpu);
        hooks.push((floor.cpu / off.cpu - 1.0) * 100.0);
        more.push((on.cpu / off.cpu - 1.0) * 100.0);
        late.push((on.p99 / off.p99 - 1.0) * 100.0);
    }
    let (spread, late) = (Spread::of(&more), Spread::of(&late));
    Ok(Row::new("request", name)
        .value("CPU", Spread::of(&bare).median, "µs")
        .value("with programs that do nothing", Spread::of(&hooks).median, "%")
        .value("more", spread.median, "%")
        .value("from", spread.low, "%")
        .value("to", spread.high, "%")
        .value("p99", late.median, "%")
        .value("p99 from", late.low, "%")
        .value("p99 to", late.high, "%")
        .at_most("more", spread.median, 2.0, "%"))
}

impl Case<'_> {
    /// The same with trace502 in the kernel.
    fn watched(&self) -> Result<Batch> {
        let _kernel = self.watch()?;
        self.batch()
    }

    /// The same with programs that do nothing on the same tracepoints.
    fn hooked(&self) -> Result<Batch> {
        let _floor = Floor::attach_all()?;
        self.batch()
    }

    /// trace502 in the kernel, knowing this proxy.
    pub fn watch(&self) -> Result<Kernel> {
        let mut kernel = Kernel::load(&Options::default())?;
        kernel.complete()?;
        for pid in self.pids() {
            kernel.track(pid, self.class)?;
            kernel.watch_connect(pid);
            kernel.watch_tls(pid);
        }
        kernel.find_existing();
        Ok(kernel)
    }

    fn pids(&self) -> Vec<u32> {
        let mut pids = self.proxy.workers();
        pids.push(self.proxy.pid());
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    fn connect(&self) -> Result<Client> {
        match &self.trust {
            Some(trust) => Client::secure((self.proxy.addr.ip(), self.proxy.secure).into(), trust),
            None => Client::connect(self.proxy.addr),
        }
    }

    pub fn batch(&self) -> Result<Batch> {
        let cpu = || self.pids().into_iter().map(usage::cpu).sum::<u64>();
        let latencies = Mutex::new(Vec::with_capacity(self.requests));
        let before = cpu();
        load::run(self.world, CLIENTS, self.requests, |kept: &mut Option<Client>, _| {
            let start = Instant::now();
            let mut client = match kept.take() {
                Some(client) => client,
                None => self.connect()?,
            };
            let ask = Ask { close: !self.keepalive, ..Ask::get(self.path.as_str()) };
            let answer = client.ask(&ask);
            ensure!(answer == Answer::Status(200), "a healthy request was answered with {}", answer.word());
            lock(&latencies).push(start.elapsed().as_secs_f64());
            *kept = (self.keepalive && !client.ended).then_some(client);
            Ok(())
        })?;
        let used = cpu().saturating_sub(before) as f64 / 1000.0 / self.requests as f64;
        Ok(Batch { cpu: used, p99: quantile(&lock(&latencies), 0.99) })
    }
}

/// An upstream that is never the bottleneck: answers with as many bytes as the last word of the path says.
fn serve(world: &World) -> Result<SocketAddr> {
    let ns = world.proxies.handle();
    let listener = std::thread::spawn(move || -> Result<TcpListener> {
        netns::enter(&ns)?;
        Ok(TcpListener::bind("127.0.0.1:0")?)
    });
    let listener = listener.join().ok().context("the upstream panicked")??;
    let at = listener.local_addr()?;
    let answers: Arc<[Vec<u8>; 2]> = Arc::new(BODIES.map(|(_, size)| {
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + size, b'x');
        answer
    }));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = answers.clone();
            std::thread::spawn(move || converse(stream, &answers));
        }
    });
    Ok(at)
}

/// Until the other side goes, which is no error.
fn converse(mut stream: TcpStream, answers: &[Vec<u8>; 2]) {
    let (mut room, mut len) = ([0; 4096], 0);
    let _ = stream.set_nodelay(true);
    while let Ok(n @ 1..) = stream.read(&mut room[len..]) {
        len += n;
        if room[..len].ends_with(b"\r\n\r\n") {
            let line = room.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let large = line.windows(7).any(|word| word == b"/65536 ");
            if stream.write_all(&answers[usize::from(large)]).is_err() {
                return;
            }
            len = 0;
        }
    }
}
