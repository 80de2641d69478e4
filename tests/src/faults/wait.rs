//! Connected, and then nothing comes.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Fault, Plan, Setup, fault};
use crate::guard::until;
use crate::service::{Draft, Service};

const LATE: &str = "504 504 502 504 504 -";

pub const FAULTS: &[Fault] = &[
    fault("never-accepted", LATE, &["never_accepted"], |s| app(s, "lazy", "no-accept")),
    fault("not-read", LATE, &["request_not_read"], |s| app(s, "deaf", "no-read")),
    fault("asleep", LATE, &["response_timeout"], |s| app(s, "dreamer", "silent")),
    // nginx and Caddy take the end of a client's half for the end of the client.
    fault("half-closed", "- 504 502 - - -", &["response_timeout"], half_closed),
    fault("spinning", LATE, &["response_timeout"], |s| app(s, "spinner", "spin")),
    fault("blocked", LATE, &["response_timeout"], |s| app(s, "blocked", "blocked")).says(&["blocked"]),
    fault("stopped", LATE, &["request_not_read", "never_accepted", "response_timeout"], stopped).says(&["stopped"]),
    fault("stopped-in-flight", LATE, &["response_timeout"], stopped_in_flight).says(&["stopped"]),
    // Apache's timer starts again with every byte.
    fault("trickle", "504 504 - 504 504 -", &["response_timeout"], |s| app(s, "trickler", "trickle")),
    // Envoy's clock does not run before the request is out.
    fault("stops-reading", "504 504|closed 504 502|504 - -", &["send_timeout"], stops_reading),
];

fn start(setup: &Setup, role: &str, conduct: &str) -> Result<(Service, String)> {
    let at = format!("127.0.0.1:{}", setup.world.port());
    let name = setup.service(role);
    let service = Draft::upstream(&setup.world, &setup.world.proxies, &name, &[&format!("{at}={conduct}")])?.start()?;
    Ok((service, at))
}

/// Its client says that it will send no more, and waits for the answer.
fn half_closed(setup: &Setup) -> Result<Plan> {
    let (service, at) = start(setup, "halfway", "silent")?;
    Ok(Plan::new(setup.route(at.clone()), move |session| {
        service.listening(&at)?;
        let mut client = session.connect()?;
        let ask = session.get();
        let (path, local) = (ask.path.clone(), client.local().map(|at| at.to_string()).unwrap_or_default());
        client.send(&ask.bytes());
        client.end_half();
        let answer = client.answer(Duration::from_secs(25));
        session.note(path, local, answer, true);
        Ok(())
    }))
}

fn app(setup: &Setup, role: &str, conduct: &str) -> Result<Plan> {
    let (service, at) = start(setup, role, conduct)?;
    Ok(Plan::new(setup.route(at.clone()), move |session| {
        service.listening(&at)?;
        session.fail(session.get())
    }))
}

/// Stopped before: the kernel completes the handshake, and nobody comes.
fn stopped(setup: &Setup) -> Result<Plan> {
    let (service, at) = start(setup, "frozen", "ok")?;
    Ok(Plan::new(setup.route(at.clone()), move |session| {
        service.listening(&at)?;
        service.signal(libc::SIGSTOP);
        until(Duration::from_secs(5), || (state(service.pid())? == 'T').then_some(())).context("it does not stop")?;
        session.fail(session.get())
    }))
}

/// Stopped with the request in its hands.
fn stopped_in_flight(setup: &Setup) -> Result<Plan> {
    let (service, at) = start(setup, "halted", "slow:300")?;
    Ok(Plan::new(setup.route(at.clone()), move |session| {
        service.listening(&at)?;
        let pid = service.pid();
        let stopper = std::thread::spawn(move || {
            until(Duration::from_secs(5), || sleeps(pid).then_some(()));
            crate::guard::signal_pid(pid, libc::SIGSTOP);
        });
        let done = session.fail(session.get());
        stopper.join().ok().context("the stopping thread panicked")?;
        done
    }))
}

/// Does any of its threads sleep by the clock?
fn sleeps(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.into_iter().any(|task| {
        let call = std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        let number = call.split(' ').next().and_then(|word| word.parse::<i64>().ok());
        number.is_some_and(|number| number == libc::SYS_clock_nanosleep || number == libc::SYS_nanosleep)
    })
}

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// It takes the head of an upload and then no more, until both windows are full.
fn stops_reading(setup: &Setup) -> Result<Plan> {
    let (service, at) = start(setup, "full-up", "stop-reading")?;
    Ok(Plan::new(setup.route(at.clone()), move |session| {
        service.listening(&at)?;
        session.fail(session.post(16 << 20))
    }))
}
