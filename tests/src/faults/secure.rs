//! Clients that speak TLS and HTTP/2, by the curl of the distribution: what they ask is seen inside the proxy, and
//! HTTP/2 without TLS on the wire.

use anyhow::{Context, Result, ensure};

use super::{Fault, Plan, Session, Setup, fault};
use crate::client::Answer;
use crate::guard::tool;
use crate::route::Speaks;
use crate::truth::Exchange;
use crate::world::Place;

const REFUSED: &str = "502 503 503 502 503 -";
const BROKEN: &str = "502 502 502 502 503 -";
const LATE: &str = "504 504 502 504 504 -";

pub const FAULTS: &[Fault] = &[
    fault("tls-client-refused", REFUSED, &["no_listener"], |s| nobody(s, H1, 1)),
    fault("tls-client-second", REFUSED, &["no_listener"], |s| nobody(s, H1, 2)),
    fault("tls-client-closed", BROKEN, &["upstream_closed_early"], |s| shared(s, "close-early", H1)),
    // Its upstream serves one at a time.
    fault("tls-client-silent", LATE, &["response_timeout"], |s| shared(s, "silent", H1)).alone(),
    fault("tls-client-own-502", "502 502 502 502 502 -", &["upstream_error"], |s| shared(s, "answer:502", H1)),
    // Apache serves streams on other threads: where nothing is sent to the upstream, only chance would tell them apart.
    fault("h2-client-refused", "502 503 - 502 503 -", &["no_listener"], |s| nobody(s, H2, 1)).likely(),
    // From the second on, the status is a reference into the connection's table of headers.
    fault("h2-client-third", "502 503 - 502 503 -", &["no_listener"], |s| nobody(s, H2, 3)).likely(),
    fault("h2-client-closed", "502 - 500 502 503 -", &["upstream_closed_early"], |s| shared(s, "close-early", H2)),
    fault("h2-client-silent", LATE, &["response_timeout"], |s| shared(s, "silent", H2)),
    fault("h2-client-own-503", "503 503 503 503 503 -", &["upstream_error"], |s| shared(s, "answer:503", H2)),
    fault("h2-client-own-504", "504 504 504 504 504 -", &["upstream_error"], |s| shared(s, "answer:504", H2)),
    fault("plain-h2-refused", "502 503 - 502 503 -", &["no_listener"], |s| nobody(s, PLAIN_H2, 1)).likely(),
    fault("plain-h2-closed", "502 - 500 502 503 -", &["upstream_closed_early"], |s| shared(s, "close-early", PLAIN_H2)),
    fault("plain-h2-silent", "504 504 502 504 504 -", &["response_timeout"], |s| shared(s, "silent", PLAIN_H2)),
    fault("plain-h2-own-503", "503 503 503 503 503 -", &["upstream_error"], |s| shared(s, "answer:503", PLAIN_H2)),
    // Only Envoy says it in gRPC's own way.
    fault("grpc-refused", "502 - - 502 grpc -", &["no_listener"], |s| {
        grpc(s, &format!("127.0.0.1:{}", s.world.port()))
    })
    .likely(),
    fault("grpc-closed", "502 - - 502 grpc -", &["upstream_closed_early"], |s| {
        grpc(s, &s.world.shared_at(Place::Loopback, "close-early"))
    }),
];

const PLAIN_H2: &str = "--http2-prior-knowledge";
const H1: &str = "--http1.1";
const H2: &str = "--http2";

fn nobody(setup: &Setup, protocol: &'static str, requests: usize) -> Result<Plan> {
    let route = setup.route(format!("127.0.0.1:{}", setup.world.port()));
    Ok(Plan::new(route, move |session| curl(session, protocol, requests)))
}

fn shared(setup: &Setup, conduct: &str, protocol: &'static str) -> Result<Plan> {
    // A listener of its own: where the process has no other, it serves one request at a time.
    let own = format!("{conduct}#{}-{}", setup.fault, setup.kind.name());
    let route = setup.route(setup.world.shared_at(Place::Loopback, &own));
    Ok(Plan::new(route, move |session| curl(session, protocol, 1)))
}

/// A call of gRPC; of it the type of its body is enough.
fn grpc(setup: &Setup, server: &str) -> Result<Plan> {
    let route = setup.route(server).speaking(Speaks::H2);
    Ok(Plan::new(route, move |session| {
        curl_with(session, PLAIN_H2, 1, &["--header", "content-type: application/grpc"])
    }))
}

/// Requests that are to fail, on one connection, one after the other.
fn curl(session: &Session, protocol: &str, requests: usize) -> Result<()> {
    curl_with(session, protocol, requests, &[])
}

fn curl_with(session: &Session, protocol: &str, requests: usize, more: &[&str]) -> Result<()> {
    let secure = protocol != PLAIN_H2;
    let (scheme, port) = if secure { ("https", session.proxy.secure) } else { ("http", session.proxy.plain_h2) };
    let at = format!("{scheme}://secure.test:{port}");
    let resolve = format!("secure.test:{port}:127.0.0.1");
    let ca = session.world.certs.cert("ca");
    let mut args = vec!["--silent", "--show-error", "--max-time", "20", "--cacert", &ca, "--resolve", &resolve];
    args.extend([
        protocol,
        "--write-out",
        "%{http_code} %{http_version} %{local_ip}:%{local_port} %header{grpc-status}\n",
    ]);
    args.extend(more);
    let base = session.path("x");
    let paths: Vec<String> = (0..requests).map(|n| format!("{base}/{n}")).collect();
    let urls: Vec<String> = paths.iter().map(|path| format!("{at}{path}")).collect();
    for url in &urls {
        args.extend(["--output", "/dev/null", url]);
    }
    let said = tool("curl", &args)?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.len() == paths.len(), "curl said {said:?}");
    for (path, line) in paths.into_iter().zip(lines) {
        let mut words = line.split(' ');
        let mut word = || words.next().context("curl said too little");
        let (status, version, client) = (word()?, word()?, word()?);
        ensure!((version == "2") == (protocol != H1), "the proxy spoke HTTP/{version}");
        let answer = match word()? {
            "" => Answer::Status(status.parse()?),
            status => Answer::Grpc(status.parse()?),
        };
        session.note_exchange(Exchange { path, client: client.to_owned(), answer, secure, judged: true });
    }
    Ok(())
}
