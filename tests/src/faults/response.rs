//! Connected and asked, and what comes back is of no use.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Fault, Plan, Setup, fault};
use crate::client::Answer;
use crate::guard::until;
use crate::proxies::Kind;
use crate::route::Speaks;
use crate::service::Draft;
use crate::world::{HOST, Place};

const BROKEN: &str = "502 502 502 502 503 -";
const NO_HTTP: &str = "garbled 502 garbled|200 502 502 -";
const CERTIFICATE: &str = "502 503 500 502 503 -";
/// What Go's library tells of any certificate that it does not like.
const ALERTED: &str = "alert bad_certificate was sent";
/// Envoy's library asks a function of Envoy's own, which tells nobody why.
const ENDED: &str = "it was verified, and not accepted";

/// What an upstream of HTTP/2 that fails is answered with.
const H2: &str = "502 502 502|503 502 503 -";

pub const FAULTS: &[Fault] = &[
    fault("close-early", BROKEN, &["upstream_closed_early"], |s| shared(s, "close-early")),
    fault("close-early-host", BROKEN, &["upstream_closed_early"], |s| shared_host(s, "close-early")),
    fault("close-early-post", BROKEN, &["upstream_closed_early"], |s| shared_post(s, "close-early")),
    // The second request of a client's connection: two proxies leave it unanswered.
    fault("close-early-second", "502 closed closed 502 503 -", &["upstream_closed_early"], |s| {
        second(s, "close-early")
    }),
    fault("forwarder", BROKEN, &["upstream_closed_early"], |s| shared(s, &format!("forward:{}", s.world.port())))
        .says(&["its own connection to", "ECONNREFUSED"]),
    fault("reset", BROKEN, &["upstream_reset"], |s| shared(s, "reset")),
    fault("reset-second", "502 closed closed 502 503 -", &["upstream_reset"], |s| second(s, "reset")),
    fault("reset-unread", BROKEN, &["upstream_reset"], |s| shared(s, "close-unread")),
    fault("reset-unread-host", BROKEN, &["upstream_reset"], |s| shared_host(s, "close-unread")),
    fault("reset-at-accept", "502 503|502 503|502 502 503 -", &["upstream_reset"], |s| shared(s, "reset-at-accept")),
    fault("half-head-fin", "502 502 502 502 502 -", &["response_truncated"], |s| shared(s, "truncate-fin")),
    fault("half-head-reset", "502 502 502 502 502|503 -", &["response_truncated"], |s| shared(s, "truncate-rst")),
    fault("ssh", NO_HTTP, &["invalid_response"], |s| shared(s, "ssh")).says(&["ssh"]),
    fault("smtp", NO_HTTP, &["invalid_response"], |s| shared(s, "smtp")).says(&["smtp"]),
    fault("redis", NO_HTTP, &["invalid_response"], |s| shared(s, "redis")).says(&["redis"]),
    fault("nul-in-head", "502 502 - - 502 -", &["invalid_response"], |s| shared(s, "nul")).likely(),
    fault("bad-length", "- 502 502 502 502 -", &["invalid_response"], |s| shared(s, "bad-length")).likely(),
    fault("bad-chunk", "- 502 502 - - -", &["invalid_response"], |s| shared(s, "bad-chunk")).likely(),
    // These two read past their limit: whether the end of the header was among it is not kept.
    fault("big-head", "502 502 502 - 502 -", &["header_too_big"], |s| shared(s, "big-header"))
        .likely_behind(&[Kind::Apache, Kind::Envoy]),
    fault("own-502", "502 502 502 502 502 -", &["upstream_error"], |s| shared(s, "answer:502")),
    fault("own-503", "503 503 503 503 503 -", &["upstream_error"], |s| shared(s, "answer:503")),
    fault("own-504", "504 504 504 504 504 -", &["upstream_error"], |s| shared(s, "answer:504")),
    fault("idle-raced", "502 502|closed 502|closed 502 503 -", &["keepalive_race"], idle_raced),
    fault("idle-forgotten", "502 502|closed 502|closed 502 503 -", &["stale_connection"], idle_forgotten),
    fault("plain-to-tls", "502|garbled 502 502|garbled|200 502 502|503 -", &["tls_mismatch"], |s| {
        shared(s, "tls-alert")
    }),
    // These two say nothing at all to a client that does not speak TLS.
    fault("plain-to-openssl", BROKEN, &["upstream_closed_early", "upstream_reset", "tls_mismatch"], plain_to_openssl)
        .likely(),
    fault("plain-to-node-tls", BROKEN, &["upstream_closed_early", "upstream_reset", "tls_mismatch"], |s| {
        shared(s, "node:https-good")
    }),
    fault("tls-to-plain", CERTIFICATE, &["tls_mismatch"], |s| tls(s, "node:http", true)),
    fault("certificate-expired", CERTIFICATE, &["tls_handshake_failed"], |s| tls(s, "node:https-expired", true))
        .reasons(["it has expired", "it has expired", "it has expired", ALERTED, ENDED, ""]),
    fault("certificate-self", CERTIFICATE, &["tls_handshake_failed"], |s| tls(s, "node:https-self", true)).reasons([
        "it is self-signed",
        "it is self-signed",
        "it is self-signed",
        ALERTED,
        ENDED,
        "",
    ]),
    // Apache compares names by itself, and tells its log alone.
    fault("certificate-name", CERTIFICATE, &["tls_handshake_failed"], |s| tls(s, "node:https-other", true))
        .likely_behind(&[Kind::Apache])
        .reasons(["it is for another name", "most often of the name", "about its certificate", ALERTED, ENDED, ""]),
    fault("tls-versions", CERTIFICATE, &["tls_handshake_failed"], |s| tls(s, "node:https-ancient", true)).reasons([
        "before TLS 1.2",
        "before TLS 1.2",
        "before TLS 1.2",
        "alert protocol_version",
        "alert handshake_failure",
        "",
    ]),
    fault("h1-to-h2", "garbled|502|closed 502 502|garbled|200 502 502|503 -", &["h2_mismatch"], |s| {
        shared(s, "node:h2")
    }),
    fault("h2-upstream-closed", H2, &["upstream_closed_early"], |s| h2(s, "h2-closes")),
    // HAProxy and Caddy keep the connection, and only what ends is told of.
    fault("h2-upstream-reset", "502 - 502 - 503 -", &["upstream_reset"], |s| h2(s, "h2-resets"))
        .says(&["INTERNAL_ERROR"]),
    fault("h2-upstream-goaway", H2, &["upstream_closed_early"], |s| h2(s, "h2-goes")).says(&["ENHANCE_YOUR_CALM"]),
    fault("h2-upstream-own-502", "502 502 502 502 502 -", &["upstream_error"], |s| h2(s, "h2-502")),
    fault("h2-upstream-own-503", "503 503 503 503 503 -", &["upstream_error"], |s| h2(s, "h2-503")),
    // Its connection is used once more: the status is an entry of the table by then.
    fault("h2-upstream-own-504", "504 504 504 504 504 -", &["upstream_error"], h2_again),
    fault("h2-to-h1", "502 503 503 502 502|503 -", &["h2_mismatch"], h2_to_h1),
];

fn shared(setup: &Setup, conduct: &str) -> Result<Plan> {
    Ok(Plan::get(setup.route(setup.world.shared_at(Place::Loopback, conduct))))
}

fn shared_host(setup: &Setup, conduct: &str) -> Result<Plan> {
    Ok(Plan::get(setup.route(setup.world.shared_at(Place::Host, conduct))))
}

fn shared_post(setup: &Setup, conduct: &str) -> Result<Plan> {
    let route = setup.route(setup.world.shared_at(Place::Loopback, conduct));
    Ok(Plan::new(route, |session| session.fail(session.post(100))))
}

/// A request that goes well, then one that does not, on one client connection.
fn second(setup: &Setup, conduct: &str) -> Result<Plan> {
    let port = setup.world.port();
    let at = format!("127.0.0.1:{port}");
    let name = setup.service("fickle");
    let spec = format!("{at}=second-{conduct}");
    let service = Draft::upstream(&setup.world, &setup.world.proxies, &name, &[&spec])?.start()?;
    Ok(Plan::new(setup.route(at.clone()), move |session| {
        service.listening(&at)?;
        let mut client = session.connect()?;
        session.well_on(&mut client, session.get())?;
        session.fail_on(&mut client, session.get())
    }))
}

/// The upstream closes an idle connection just as the proxy uses it again.
fn idle_raced(setup: &Setup) -> Result<Plan> {
    let route = setup.route(setup.world.shared_at(Place::Loopback, "race-reset")).keepalive();
    Ok(Plan::new(route, |session| {
        let mut client = session.connect()?;
        session.well_on(&mut client, session.get())?;
        // Not to be repeated by the proxy.
        session.fail_on(&mut client, session.post(10))
    }))
}

/// The upstream's reset is lost on the way, as when a middlebox forgets: the proxy keeps a connection that nobody has.
fn idle_forgotten(setup: &Setup) -> Result<Plan> {
    let world = setup.world.clone();
    let port = world.port();
    let name = setup.service("forget");
    let spec = format!("0.0.0.0:{port}=idle-reset:300");
    let service = Draft::upstream(&world, &world.host, &name, &[&spec])?.start()?;
    let at = format!("{HOST}:{port}");
    let route = setup.route(at.clone()).keepalive();
    let table = format!("forget_{port}");
    Ok(Plan::new(route, move |session| {
        service.listening(&at)?;
        session.world.host.nft(&format!(
            "table inet {table} {{\n chain out {{\n type filter hook output priority 0; policy accept;\n \
             tcp sport {port} tcp flags rst drop\n }}\n}}\n"
        ))?;
        let mut client = session.connect()?;
        session.well_on(&mut client, session.get())?;
        let gone = until(Duration::from_secs(5), || (!established(service.pid(), port)).then_some(()));
        session.world.host.run("nft", &["delete", "table", "inet", &table])?;
        gone.context("the upstream does not give up its idle connection")?;
        session.fail_on(&mut client, session.post(10))
    }))
}

/// Has the namespace of this process a connection at this local port?
fn established(pid: u32, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&wanted)) && fields.nth(1) == Some("01")
    })
}

fn tls(setup: &Setup, conduct: &str, verify: bool) -> Result<Plan> {
    let at = setup.world.shared_at(Place::Loopback, conduct);
    Ok(Plan::get(setup.route(at).speaking(Speaks::Tls { verify })))
}

fn plain_to_openssl(setup: &Setup) -> Result<Plan> {
    let at = format!("127.0.0.1:{}", setup.world.port());
    let (cert, key) = (setup.world.certs.cert("good"), setup.world.certs.key("good"));
    let args = ["s_server", "-accept", &at, "-cert", &cert, "-key", &key, "-quiet"];
    let name = setup.service("ossl");
    let service = Draft::program(&setup.world, &setup.world.proxies, &name, "/usr/bin/openssl", &args).start()?;
    Ok(Plan::new(setup.route(at.clone()), move |session| {
        service.listening(&at)?;
        session.fail(session.get())
    }))
}

/// A server of HTTP/2 that behaves like this.
fn h2(setup: &Setup, conduct: &str) -> Result<Plan> {
    let at = setup.world.shared_at(Place::Loopback, &format!("node:{conduct}"));
    Ok(Plan::get(setup.route(at).speaking(Speaks::H2)))
}

fn h2_again(setup: &Setup) -> Result<Plan> {
    let at = setup.world.shared_at(Place::Loopback, "node:h2-504");
    Ok(Plan::new(setup.route(at).speaking(Speaks::H2), |session| {
        let mut client = session.connect()?;
        session.fail_on(&mut client, session.get())?;
        session.fail_on(&mut client, session.get())?;
        session.fail(session.get())
    }))
}

fn h2_to_h1(setup: &Setup) -> Result<Plan> {
    let at = setup.world.shared_at(Place::Loopback, "node:http");
    Ok(Plan::get(setup.route(at).speaking(Speaks::H2)))
}

/// Real servers close keepalive connections by the clock; the request comes when the proxy cannot know it yet.
pub fn stalled_race(session: &super::Session, timeout: Duration) -> Result<()> {
    let mut client = session.connect()?;
    session.well_on(&mut client, session.get())?;
    let ask = session.post(10);
    let (path, local) = (ask.path.clone(), client.local().map(|a| a.to_string()).unwrap_or_default());
    // The proxy is held while the request and then the upstream's FIN arrive: it sees them in that order.
    session.proxy.signal_workers(libc::SIGSTOP);
    let sent = client.send(&ask.bytes());
    std::thread::sleep(timeout);
    session.proxy.signal_workers(libc::SIGCONT);
    anyhow::ensure!(sent, "the client could not send");
    let answer = client.answer(Duration::from_secs(10));
    anyhow::ensure!(answer != Answer::Silence, "no answer after the proxy went on");
    session.note(path, local, answer, true);
    Ok(())
}
