//! No connection comes about, and no packet filter is to blame.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Fault, Plan, Setup, fault};
use crate::route::Special;
use crate::service::Draft;
use crate::world::{FAR, FEW_PORTS, HOST, NEAR, NO_ROUTE, NOBODY, PROHIBITED, Place, UNREACHABLE};

const REFUSED: &str = "502 503 503 502 503 -";
const TIMEOUT: &str = "504 503 503 502 503 -";

pub const FAULTS: &[Fault] = &[
    fault("no-listener", REFUSED, &["no_listener"], |s| dial(s, format!("127.0.0.1:{}", s.world.port()))),
    fault("no-listener-host", REFUSED, &["no_listener"], |s| dial(s, format!("{HOST}:{}", s.world.port()))),
    // The first server refuses, and so does the one that is tried in its place: the last one counts.
    fault("redispatch", "- 503 - - - -", &["wrong_interface"], redispatch),
    fault("port-mistaken", REFUSED, &["no_listener"], port_mistaken),
    fault("wrong-address", REFUSED, &["wrong_interface"], |s| {
        dial(s, format!("{NEAR}:{}", s.world.shared(Place::Loopback, "ok")))
    }),
    fault("wrong-family", REFUSED, &["wrong_interface"], |s| {
        dial(s, format!("[::1]:{}", s.world.shared(Place::Loopback, "ok")))
    }),
    fault("wrong-address-host", REFUSED, &["wrong_interface"], wrong_address_host),
    fault("far-refused", REFUSED, &["refused_remote"], |s| dial(s, format!("{FAR}:1080"))),
    fault("far-silent", TIMEOUT, &["syn_timeout"], |s| dial(s, format!("{FAR}:8080"))),
    fault("far-unreachable", REFUSED, &["host_unreachable"], |s| dial(s, format!("{FAR}:3080"))),
    fault("neighbour", REFUSED, &["host_unreachable"], |s| dial(s, format!("{NOBODY}:8080"))),
    fault("route-unreachable", REFUSED, &["host_unreachable"], |s| dial(s, format!("{UNREACHABLE}:8080"))),
    fault("no-route", REFUSED, &["network_unreachable"], |s| dial(s, format!("{NO_ROUTE}:8080"))),
    fault("route-prohibited", REFUSED, &["permission_denied"], |s| dial(s, format!("{PROHIBITED}:8080"))),
    fault("queue-full", TIMEOUT, &["accept_queue_full"], queue_full),
    fault("ports-used-up", REFUSED, &["port_exhaustion"], ports_used_up),
    // Apache's connect() blocks until there is room, its thread with it.
    fault("unix-full", "502 503 - 502 503 -", &["accept_queue_full"], unix_full),
    fault("unix-missing", REFUSED, &["socket_missing"], |s| dial(s, unix(s, "missing"))),
    fault("unix-denied", REFUSED, &["permission_denied"], unix_denied),
    fault("unix-stale", REFUSED, &["no_listener"], |s| dial(s, stale(s)?)),
];

fn dial(setup: &Setup, at: String) -> Result<Plan> {
    Ok(Plan::get(setup.route(at)))
}

fn redispatch(setup: &Setup) -> Result<Plan> {
    let first = format!("127.0.0.1:{}", setup.world.port());
    let second = format!("{NEAR}:{}", setup.world.shared(Place::Loopback, "ok"));
    let route = setup.route("").servers(&[first, second.clone()]).special(Special::Redispatch);
    let mut plan = Plan::get(route);
    plan.upstream = Some(second);
    Ok(plan)
}

pub fn unix(setup: &Setup, role: &str) -> String {
    format!("unix:{}", setup.world.unix(&setup.service(role)))
}

/// The proxy's configuration is off by one.
fn port_mistaken(setup: &Setup) -> Result<Plan> {
    let (wrong, right) = (setup.world.port(), setup.world.port());
    let at = format!("127.0.0.1:{right}");
    let name = setup.service("web");
    let service = Draft::upstream(&setup.world, &setup.world.proxies, &name, &[&format!("{at}=ok")])?.start_at(&at)?;
    Ok(Plan::get(setup.route(format!("127.0.0.1:{wrong}"))).hold(service))
}

/// The upstream host has it on its loopback only.
fn wrong_address_host(setup: &Setup) -> Result<Plan> {
    let port = setup.world.port();
    let at = format!("127.0.0.1:{port}");
    let name = setup.service("inner");
    let service = Draft::upstream(&setup.world, &setup.world.host, &name, &[&format!("{at}=ok")])?.start_at(&at)?;
    Ok(Plan::get(setup.route(format!("{HOST}:{port}"))).hold(service).says("127.0.0.1"))
}

/// An application that does not accept, and others who wait for it already.
fn queue_full(setup: &Setup) -> Result<Plan> {
    let at = format!("127.0.0.1:{}", setup.world.port());
    let name = setup.service("busy");
    let service = Draft::upstream(&setup.world, &setup.world.proxies, &name, &[&format!("{at}=full:1")])?.start()?;
    let route = setup.route(at.clone());
    Ok(Plan::new(route, move |session| {
        service.listening(&at)?;
        let address: SocketAddr = at.parse()?;
        // One more than the backlog fits.
        let waiting = (0..2).map(|_| TcpStream::connect(address)).collect::<Result<Vec<_>, _>>();
        let _waiting = waiting.context("the queue was to take two connections")?;
        session.fail(session.get())
    }))
}

/// All local ports of the proxy's namespace lead to this upstream already.
fn ports_used_up(setup: &Setup) -> Result<Plan> {
    let at = format!("127.0.0.1:{}", setup.world.port());
    let name = setup.service("hoard");
    let service = Draft::upstream(&setup.world, &setup.world.proxies, &name, &[&format!("{at}=full:4000")])?.start()?;
    let route = setup.route(at.clone());
    Ok(Plan::new(route, move |session| {
        service.listening(&at)?;
        let address: SocketAddr = at.parse()?;
        let mut held = Vec::new();
        // A port may be in use as a listener's or a client's; the kernel says when there is none left.
        while held.len() <= usize::from(FEW_PORTS) {
            match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
                Ok(stream) => held.push(stream),
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => break,
                Err(error) => return Err(error).context("using up the ports"),
            }
        }
        session.fail(session.get())
    }))
}

fn unix_full(setup: &Setup) -> Result<Plan> {
    let at = unix(setup, "uxfull");
    let path = at.trim_start_matches("unix:").to_owned();
    let name = setup.service("uxbusy");
    let service = Draft::upstream(&setup.world, &setup.world.proxies, &name, &[&format!("{path}=full:1")])?.start()?;
    Ok(Plan::new(setup.route(at), move |session| {
        service.listening(&path)?;
        let waiting = (0..2).map(|_| UnixStream::connect(&path)).collect::<Result<Vec<_>, _>>();
        let _waiting = waiting.context("the queue was to take two connections")?;
        session.fail(session.get())
    }))
}

fn unix_denied(setup: &Setup) -> Result<Plan> {
    let at = unix(setup, "denied");
    let path = at.trim_start_matches("unix:").to_owned();
    let name = setup.service("private");
    let service = Draft::upstream(&setup.world, &setup.world.proxies, &name, &[&format!("{path}=ok")])?.start()?;
    Ok(Plan::new(setup.route(at), move |session| {
        use std::os::unix::fs::PermissionsExt;
        service.listening(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        session.fail(session.get())
    }))
}

/// The file is there, and nobody behind it.
pub fn stale(setup: &Setup) -> Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let at = unix(setup, "stale");
    let path = at.trim_start_matches("unix:").to_owned();
    drop(UnixListener::bind(&path)?);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
    Ok(at)
}
