//! The same with servers as people run them: gunicorn, uvicorn, Node.

use std::time::Duration;

use anyhow::Result;

use super::response::stalled_race;
use super::{Fault, Plan, Setup, fault};
use crate::client::Ask;
use crate::service::{Draft, Service};
use crate::world::{NEAR, Place};

const REFUSED: &str = "502 503 503 502 503 -";

pub const FAULTS: &[Fault] = &[
    fault("gunicorn-timeout", "502 502 502 502 503 -", &["upstream_killed", "upstream_exited"], gunicorn_timeout)
        .likely(),
    fault("gunicorn-busy", "504 504 502 504 504 -", &["never_accepted"], gunicorn_busy),
    fault("uvicorn-loopback", REFUSED, &["wrong_interface"], |s| uvicorn(s, NEAR)).says(&["127.0.0.1"]),
    fault("uvicorn-localhost", REFUSED, &["wrong_interface"], |s| uvicorn(s, "[::1]")).says(&["127.0.0.1"]),
    // The others may see the end first.
    fault("node-keepalive", "502 - - - - -", &["keepalive_race"], node_keepalive).alone(),
];

fn gunicorn(setup: &Setup, role: &str, timeout: &str) -> Result<(Service, String)> {
    let at = format!("127.0.0.1:{}", setup.world.port());
    let dir = setup.world.dir().display().to_string();
    let args =
        ["--bind", &at, "--workers", "1", "--timeout", timeout, "--graceful-timeout", "1", "--chdir", &dir, "wsgi:app"];
    let name = setup.service(role);
    let service = Draft::program(&setup.world, &setup.world.proxies, &name, "/usr/bin/gunicorn", &args).start()?;
    Ok((service, at))
}

/// Its master kills a worker that hangs: with a proxy more patient than gunicorn, a connection that breaks.
fn gunicorn_timeout(setup: &Setup) -> Result<Plan> {
    let (service, at) = gunicorn(setup, "guni", "1")?;
    Ok(Plan::new(setup.route(at.clone()).patient(), move |session| {
        service.listening(&at)?;
        session.well(session.get())?;
        session.fail(Ask::get(session.path("hang")))
    }))
}

/// Its only worker is busy with another's request.
fn gunicorn_busy(setup: &Setup) -> Result<Plan> {
    let (service, at) = gunicorn(setup, "gunb", "30")?;
    Ok(Plan::new(setup.route(at.clone()), move |session| {
        service.listening(&at)?;
        session.well(session.get())?;
        let mut other = crate::client::Client::connect(at.parse()?)?;
        other.send(&Ask::get("/hang").bytes());
        // The worker has it when nothing waits in the listener's queue.
        let taken = || (crate::service::queue(service.pid(), &at)? == 0).then_some(());
        crate::guard::until(Duration::from_secs(5), taken);
        session.fail(session.get())
    }))
}

fn uvicorn(setup: &Setup, dial: &str) -> Result<Plan> {
    let port = setup.world.port();
    let at = format!("127.0.0.1:{port}");
    let dir = setup.world.dir().display().to_string();
    let args = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", &port.to_string(), "--app-dir", &dir, "wsgi:asgi"];
    let name = setup.service("uvi");
    let service = Draft::program(&setup.world, &setup.world.proxies, &name, "/usr/bin/python3", &args).start()?;
    Ok(Plan::new(setup.route(format!("{dial}:{port}")), move |session| {
        service.listening(&at)?;
        session.fail(session.get())
    }))
}

/// Node's keepAliveTimeout runs out just as a busy proxy reuses the connection.
fn node_keepalive(setup: &Setup) -> Result<Plan> {
    let at = setup.world.shared_at(Place::Loopback, "node:brief");
    Ok(Plan::new(setup.route(at).keepalive().patient(), |session| stalled_race(session, Duration::from_millis(2500))))
}
