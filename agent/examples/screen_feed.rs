//! Feeds the screen with recorded incidents: what its tests drive, and a way to look at it without a kernel.
//!
//! `screen_feed FILE [--past] [--quiet] [--rate N] [--lost N]`; SIGUSR1 makes the feeding thread panic.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use trace502::model::Incident;
use trace502::screen::source::{MissingProbe, UpstreamSeen, WatchedProxy};
use trace502::screen::{Feed, Options, Past, Snapshot, Source, channel, run};
use trace502::when::{now_micros, rfc3339};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let file = args.next().context("say which file of incidents")?;
    let (mut past, mut quiet, mut rate, mut lost) = (false, false, 0_u64, 0_u64);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--past" => past = true,
            "--quiet" => quiet = true,
            "--rate" => rate = args.next().context("--rate wants a number")?.parse()?,
            "--lost" => lost = args.next().context("--lost wants a number")?.parse()?,
            other => anyhow::bail!("no option {other}"),
        }
    }
    let lines = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let incidents: Vec<Incident> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut source: Box<dyn Source> = if past {
        Box::new(Past::new(incidents))
    } else {
        let (feed, live) = channel(20_000);
        let panic = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&panic))?;
        let incidents = if quiet { Vec::new() } else { incidents };
        thread::spawn(move || serve(&feed, &incidents, rate, lost, &panic));
        Box::new(live)
    };
    let directory = std::env::current_dir()?;
    let farewell = run(source.as_mut(), Options { directory, ..Options::default() })?;
    // The terminal may be gone.
    let _ = writeln!(std::io::stdout(), "trace502: {farewell}");
    Ok(())
}

/// Every incident once, at this time; then again and again at the rate asked for.
fn serve(feed: &Feed, incidents: &[Incident], rate: u64, lost: u64, panic: &AtomicBool) {
    let begun = Instant::now();
    let mut given = 0_u64;
    loop {
        assert!(!panic.load(Ordering::Relaxed), "asked to panic");
        let elapsed = begun.elapsed();
        feed.publish(snapshot(elapsed, lost));
        let due = match rate {
            0 => incidents.len() as u64,
            rate => (elapsed.as_secs_f64() * rate as f64) as u64,
        };
        while given < due && !incidents.is_empty() {
            let mut incident = incidents[(given % incidents.len() as u64) as usize].clone();
            incident.time = rfc3339(now_micros());
            feed.offer(Arc::new(incident));
            given += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn snapshot(elapsed: Duration, lost: u64) -> Snapshot {
    let requests = (elapsed.as_secs_f64() * 412.0) as u64;
    let upstream = |addr: &str, share: u64| UpstreamSeen { addr: addr.into(), connections: requests / share };
    let mut snapshot = Snapshot {
        proxies: vec![WatchedProxy { name: "nginx".into(), pid: 7353 }],
        upstreams: vec![upstream("127.0.0.1:8000", 2), upstream("127.0.0.1:9000", 3), upstream("10.0.0.7:8080", 6)],
        requests: Some(requests),
        ..Snapshot::default()
    };
    if lost > 0 {
        snapshot.lost.insert("ring_buffer".into(), lost);
        let (probe, without) = ("ssl_write".into(), "errors inside TLS are not seen".into());
        snapshot.missing.push(MissingProbe { probe, without });
    }
    snapshot
}
