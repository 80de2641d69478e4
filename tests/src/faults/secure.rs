//! Clients that speak TLS and HTTP/2, by the curl of the distribution: what they ask is seen inside the proxy.

use anyhow::{Context, Result, ensure};

use super::{Fault, Plan, Session, Setup, fault};
use crate::client::Answer;
use crate::guard::tool;
use crate::world::Place;

const REFUSED: &str = "502 503 503 - - -";
const BROKEN: &str = "502 502 502 - - -";
const LATE: &str = "504 504 502 - - -";

pub const FAULTS: &[Fault] = &[
    fault("tls-client-refused", REFUSED, &["no_listener"], |s| nobody(s, &[Say::Fail])),
    fault("tls-client-second", REFUSED, &["no_listener"], |s| nobody(s, &[Say::Fail, Say::Fail])),
    fault("tls-client-closed", BROKEN, &["upstream_closed_early"], |s| shared(s, "close-early")),
    fault("tls-client-silent", LATE, &["response_timeout"], |s| shared(s, "silent")),
    fault("tls-client-own-502", "502 502 502 - - -", &["upstream_error"], |s| shared(s, "answer:502")),
];

/// What one of several requests of a connection is to come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Say {
    Fail,
}

fn nobody(setup: &Setup, requests: &'static [Say]) -> Result<Plan> {
    let route = setup.route(format!("127.0.0.1:{}", setup.world.port()));
    Ok(Plan::new(route, move |session| curl(session, &["--http1.1"], requests)))
}

fn shared(setup: &Setup, conduct: &str) -> Result<Plan> {
    let route = setup.route(setup.world.shared_at(Place::Loopback, conduct));
    Ok(Plan::new(route, |session| curl(session, &["--http1.1"], &[Say::Fail])))
}

/// Requests on one connection, one after the other.
fn curl(session: &Session, how: &[&str], requests: &[Say]) -> Result<()> {
    let at = format!("https://secure.test:{}", session.proxy.secure);
    let resolve = format!("secure.test:{}:127.0.0.1", session.proxy.secure);
    let ca = session.world.certs.cert("ca");
    let mut args = vec!["--silent", "--show-error", "--max-time", "20", "--cacert", &ca, "--resolve", &resolve];
    args.extend(how);
    args.extend(["--write-out", "%{http_code} %{local_ip}:%{local_port}\n"]);
    let base = session.path("x");
    let paths: Vec<String> = (0..requests.len()).map(|n| format!("{base}/{n}")).collect();
    let urls: Vec<String> = paths.iter().map(|path| format!("{at}{path}")).collect();
    for url in &urls {
        args.extend(["--output", "/dev/null", url]);
    }
    let said = tool("curl", &args)?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.len() == paths.len(), "curl said {said:?}");
    for ((path, line), say) in paths.into_iter().zip(lines).zip(requests) {
        let (status, client) = line.split_once(' ').context("curl said too little")?;
        session.note_secure(path, client.to_owned(), Answer::Status(status.parse()?), *say == Say::Fail);
    }
    Ok(())
}
