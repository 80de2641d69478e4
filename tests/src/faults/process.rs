//! The process behind the upstream is gone, or was, or keeps going.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Fault, Plan, Setup, fault};
use crate::client::{Ask, Client};
use crate::guard::until;
use crate::service::{Draft, Service, listens};

const IN_FLIGHT: &str = "502 502|closed 502 502 503 -";
const REFUSED: &str = "502 503 503 502 503 -";

pub const FAULTS: &[Fault] = &[
    fault("oom-in-flight", IN_FLIGHT, &["upstream_oom_killed"], |s| dies(s, "eat-memory", Some(48 << 20)))
        .says(&["48"]),
    fault("oom-before", REFUSED, &["upstream_oom_killed"], |s| died(s, "eat-memory", Some(48 << 20))),
    fault("segv-in-flight", IN_FLIGHT, &["upstream_crashed"], |s| dies(s, "segv", None)).says(&["sigsegv"]),
    fault("segv-before", REFUSED, &["upstream_crashed"], |s| died(s, "segv", None)).says(&["sigsegv"]),
    fault("abort-in-flight", IN_FLIGHT, &["upstream_crashed"], |s| dies(s, "abort", None)).says(&["sigabrt"]),
    fault("bus-before", REFUSED, &["upstream_crashed"], |s| died(s, "bus", None)).says(&["sigbus"]),
    fault("exit-in-flight", IN_FLIGHT, &["upstream_exited"], |s| dies(s, "exit:3", None)).says(&["3"]),
    fault("exit-before", REFUSED, &["upstream_exited"], |s| died(s, "exit:3", None)).says(&["3"]),
    fault("kill-in-flight", IN_FLIGHT, &["upstream_killed"], killed_in_flight).says(&["sigkill"]),
    fault("kill-before", REFUSED, &["upstream_killed"], |s| killed_before(s, libc::SIGKILL)).says(&["sigkill"]),
    fault("term-before", REFUSED, &["upstream_killed"], |s| killed_before(s, libc::SIGTERM)).says(&["sigterm"]),
    fault("starting", REFUSED, &["upstream_starting"], starting),
    fault("crash-loop", REFUSED, &["upstream_crash_loop"], crash_loop),
];

/// A service of this cell's own that is well until asked for `/die`.
fn mortal(setup: &Setup, role: &str, conduct: &str, memory: Option<u64>) -> Result<(Service, String)> {
    let at = format!("127.0.0.1:{}", setup.world.port());
    let name = setup.service(role);
    let mut draft = Draft::upstream(&setup.world, &setup.world.proxies, &name, &[&format!("{at}={conduct}")])?;
    draft.memory = memory;
    Ok((draft.start()?, at))
}

/// It dies of the request that the proxy sends it.
fn dies(setup: &Setup, conduct: &str, memory: Option<u64>) -> Result<Plan> {
    let (service, at) = mortal(setup, "cart", conduct, memory)?;
    let route = setup.route(at.clone()).patient();
    Ok(Plan::new(route, move |session| {
        service.listening(&at)?;
        session.well(session.get())?;
        session.fail(Ask::get(session.path("die")))
    }))
}

/// It died before, of somebody else's request; the proxy finds nobody.
fn died(setup: &Setup, conduct: &str, memory: Option<u64>) -> Result<Plan> {
    let (service, at) = mortal(setup, "stock", conduct, memory)?;
    let route = setup.route(at.clone());
    Ok(Plan::new(route, move |session| {
        service.listening(&at)?;
        session.well(session.get())?;
        Client::connect(at.parse()?)?.ask(&Ask::get("/die"));
        service.gone();
        session.fail(session.get())
    }))
}

fn killed_in_flight(setup: &Setup) -> Result<Plan> {
    let (service, at) = mortal(setup, "slow", "silent", None)?;
    let route = setup.route(at.clone());
    Ok(Plan::new(route, move |session| {
        service.listening(&at)?;
        let pid = service.pid();
        // The request is in its hands as soon as it sleeps on it.
        let killer = std::thread::spawn(move || {
            until(Duration::from_secs(5), || asleep_on_request(pid).then_some(()));
            crate::guard::signal_pid(pid, libc::SIGKILL);
        });
        let done = session.fail(session.get());
        killer.join().ok().context("the killing thread panicked")?;
        done
    }))
}

/// The lab's upstream sleeps with `nanosleep` only when it holds a request that it will not answer.
fn asleep_on_request(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|word| word.parse::<i64>().ok());
    number.is_some_and(|number| number == libc::SYS_nanosleep || number == libc::SYS_clock_nanosleep)
}

fn killed_before(setup: &Setup, signal: i32) -> Result<Plan> {
    let (service, at) = mortal(setup, "mail", "ok", None)?;
    let route = setup.route(at.clone());
    Ok(Plan::new(route, move |session| {
        service.listening(&at)?;
        session.well(session.get())?;
        service.kill(signal);
        session.fail(session.get())
    }))
}

/// Restarted by its supervisor, and slow to listen again.
fn starting(setup: &Setup) -> Result<Plan> {
    let world = setup.world.clone();
    let port = world.port();
    let at = format!("127.0.0.1:{port}");
    let name = setup.service("boot");
    let program = world.alias(&name)?.display().to_string();
    let spec = format!("{at}=ok");
    // The first one listens at once and leaves by itself, the next one is slow.
    let script = format!("{program} brief 1500 0 {spec}; {program} after 9000 {spec}; true");
    let supervisor = setup.service("init");
    Ok(Plan::new(setup.route(at.clone()), move |session| {
        let world = session.world;
        let supervisor =
            Draft::program(world, &world.proxies, &supervisor, "/bin/sh", &["-c", &script]).start_at(&at)?;
        session.well(session.get())?;
        until(Duration::from_secs(5), || (!listens(supervisor.pid(), port)).then_some(()))
            .context("it still listens")?;
        let slow = |pid: &&u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.starts_with(program.as_bytes()) && words.windows(5).any(|word| word == b"after")
        };
        until(Duration::from_secs(5), || supervisor.pids().iter().find(slow).map(drop))
            .context("it was not restarted")?;
        session.fail(session.get())?;
        session.keep(supervisor);
        Ok(())
    }))
}

/// A supervisor that starts what cannot live.
fn crash_loop(setup: &Setup) -> Result<Plan> {
    let world = setup.world.clone();
    let port = world.port();
    let at = format!("127.0.0.1:{port}");
    let program = world.alias(&setup.service("loop"))?.display().to_string();
    let spec = format!("{at}=ok");
    let keeper = setup.service("keeper");
    Ok(Plan::new(setup.route(at), move |session| {
        let world = session.world;
        let args = ["supervise", "4", "200", &program, "brief", "100", "7", &spec];
        let keeper = Draft::upstream(world, &world.proxies, &keeper, &args)?.start()?;
        // Four starts and four deaths later the supervisor gives up.
        keeper.gone();
        session.fail(session.get())
    })
    .says("7"))
}
