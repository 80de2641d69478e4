//! nginx in front of PHP-FPM: children, their queue, their master.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Fault, Plan, Setup, connect, fault};
use crate::client::{Ask, Client};
use crate::guard::{signal_pid, until};
use crate::route::{Route, Speaks};
use crate::service::{Draft, Service};
use crate::world::Place;

pub const FAULTS: &[Fault] = &[
    fault("fpm-child-killed", "- - - - - 502", &["upstream_killed"], |s| child(s, libc::SIGKILL)),
    fault("fpm-child-segv", "- - - - - 502", &["upstream_crashed", "upstream_killed"], |s| child(s, libc::SIGSEGV)),
    fault("fpm-oom", "- - - - - 502", &["upstream_oom_killed"], |s| {
        word(s, "eat", Pool { memory: Some(96 << 20), ..POOL })
    }),
    fault("fpm-terminated", "- - - - - 502", &["upstream_killed"], |s| {
        word(s, "sleep", Pool { terminate: 1, patient: true, ..POOL })
    }),
    fault("fpm-slow", "- - - - - 504", &["response_timeout"], |s| word(s, "sleep", POOL)).says(&["sleep"]),
    fault("fpm-big-head", "- - - - - 502", &["header_too_big"], |s| word(s, "big", POOL)),
    fault("fpm-own-502", "- - - - - 502", &["upstream_error"], |s| word(s, "fail", POOL)),
    fault("fpm-own-502-behind-errors", "- - - - - 502", &["upstream_error"], |s| word(s, "complain", POOL))
        .says(&["the cart is on fire"]),
    fault("fpm-queue-full", "- - - - - 502", &["accept_queue_full"], queue_full),
    fault("fpm-children-busy", "- - - - - 504", &["never_accepted"], children_busy),
    fault("fpm-master-terminated", "- - - - - 502", &["upstream_killed"], master_terminated),
    fault("fpm-socket-missing", "- - - - - 502", &["socket_missing"], |s| dial(s, connect::unix(s, "nofpm"))),
    fault("fpm-socket-stale", "- - - - - 502", &["no_listener"], |s| dial(s, connect::stale(s)?)),
    fault("fpm-socket-denied", "- - - - - 502", &["permission_denied"], socket_denied),
    fault(
        "fpm-to-http",
        "- - - - - 504|502",
        &["response_timeout", "upstream_closed_early", "invalid_response"],
        |s| dial(s, s.world.shared_at(Place::Loopback, "ok")),
    ),
    fault("http-to-fpm", "- - - - - 502", &["upstream_reset", "upstream_closed_early"], http_to_fpm),
];

#[derive(Clone, Copy)]
struct Pool {
    children: u32,
    backlog: u32,
    /// request_terminate_timeout in seconds.
    terminate: u32,
    memory: Option<u64>,
    patient: bool,
}

const POOL: Pool = Pool { children: 1, backlog: 16, terminate: 0, memory: None, patient: false };

fn dial(setup: &Setup, at: String) -> Result<Plan> {
    Ok(Plan::get(setup.route(at).speaking(Speaks::FastCgi)))
}

/// A PHP-FPM with one pool on a socket of its own.
fn start(setup: &Setup, pool: Pool) -> Result<(Service, String, Route)> {
    let name = setup.service("fpm");
    let path = setup.world.unix(&name);
    let dir = setup.world.dir();
    let terminate =
        if pool.terminate > 0 { format!("request_terminate_timeout = {}s\n", pool.terminate) } else { String::new() };
    let config = format!(
        "[global]\nerror_log = {0}/{name}.log\ndaemonize = no\n[shop]\nuser = www-data\ngroup = www-data\nlisten = {path}\n\
         listen.owner = www-data\nlisten.mode = 0660\nlisten.backlog = {1}\npm = static\npm.max_children = {2}\n{terminate}",
        dir.display(),
        pool.backlog,
        pool.children
    );
    let file = dir.join(format!("{name}.conf")).display().to_string();
    std::fs::write(&file, config)?;
    let args = ["-n", "-y", &file, "-F"];
    let mut draft = Draft::program(&setup.world, &setup.world.proxies, &name, "/usr/sbin/php-fpm8.2", &args);
    draft.memory = pool.memory;
    let mut route = setup.route(format!("unix:{path}")).speaking(Speaks::FastCgi);
    if pool.patient {
        route = route.patient();
    }
    Ok((draft.start()?, path, route))
}

fn word(setup: &Setup, word: &'static str, pool: Pool) -> Result<Plan> {
    let (service, path, route) = start(setup, pool)?;
    Ok(Plan::new(route, move |session| {
        service.listening(&path)?;
        session.well(session.get())?;
        session.fail(Ask::get(session.path(word)))
    }))
}

/// The children of a master.
fn children(service: &Service) -> Vec<u32> {
    service.pids().into_iter().filter(|pid| *pid != service.pid()).collect()
}

/// A child with a request in its hands gets a signal.
fn child(setup: &Setup, signal: i32) -> Result<Plan> {
    let (service, path, route) = start(setup, POOL)?;
    Ok(Plan::new(route, move |session| {
        service.listening(&path)?;
        session.well(session.get())?;
        let pid = *children(&service).first().context("PHP-FPM has no child")?;
        let killer = std::thread::spawn(move || {
            until(Duration::from_secs(5), || sleeps(pid).then_some(()));
            signal_pid(pid, signal);
        });
        let done = session.fail(Ask::get(session.path("sleep")));
        killer.join().ok().context("the killing thread panicked")?;
        done
    }))
}

fn sleeps(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|word| word.parse::<i64>().ok());
    number.is_some_and(|number| number == libc::SYS_nanosleep || number == libc::SYS_clock_nanosleep)
}

/// Gives every child a script that takes its time, and waits until they have it.
fn occupy(session: &super::Session, service: &Service) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for pid in children(service) {
        let mut client = session.connect()?;
        let path = session.path("hold");
        client.send(&Ask::get(path.clone()).bytes());
        // It takes longer than nginx waits: a failure of its own, judged elsewhere.
        session.note_aside(path);
        until(Duration::from_secs(5), || sleeps(pid).then_some(())).context("the child does not take the request")?;
        clients.push(client);
    }
    Ok(clients)
}

fn queue_full(setup: &Setup) -> Result<Plan> {
    let (service, path, route) = start(setup, Pool { backlog: 1, ..POOL })?;
    Ok(Plan::new(route, move |session| {
        service.listening(&path)?;
        session.well(session.get())?;
        let _busy = occupy(session, &service)?;
        let _waiting = (0..2).map(|_| UnixStream::connect(&path)).collect::<Result<Vec<_>, _>>()?;
        session.fail(session.get())
    }))
}

fn children_busy(setup: &Setup) -> Result<Plan> {
    let (service, path, route) = start(setup, POOL)?;
    Ok(Plan::new(route, move |session| {
        service.listening(&path)?;
        session.well(session.get())?;
        let _busy = occupy(session, &service)?;
        session.fail(session.get())
    }))
}

/// The master is told to end with a request in flight.
fn master_terminated(setup: &Setup) -> Result<Plan> {
    let (service, path, route) = start(setup, POOL)?;
    Ok(Plan::new(route, move |session| {
        service.listening(&path)?;
        session.well(session.get())?;
        let (master, child) = (service.pid(), *children(&service).first().context("PHP-FPM has no child")?);
        let killer = std::thread::spawn(move || {
            until(Duration::from_secs(5), || sleeps(child).then_some(()));
            signal_pid(master, libc::SIGTERM);
        });
        let done = session.fail(Ask::get(session.path("sleep")));
        killer.join().ok().context("the killing thread panicked")?;
        done
    }))
}

fn socket_denied(setup: &Setup) -> Result<Plan> {
    use std::os::unix::fs::PermissionsExt;
    let (service, path, route) = start(setup, POOL)?;
    Ok(Plan::new(route, move |session| {
        service.listening(&path)?;
        std::os::unix::fs::chown(&path, Some(0), Some(0))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        session.fail(session.get())
    }))
}

fn http_to_fpm(setup: &Setup) -> Result<Plan> {
    let (service, path, route) = start(setup, POOL)?;
    Ok(Plan::new(route.speaking(Speaks::Http), move |session| {
        service.listening(&path)?;
        session.fail(session.get())
    }))
}
