//! Upstreams that speak TLS: what they do to a request is seen inside the proxy, as on the wire.

use anyhow::Result;

use super::{Fault, Plan, Setup, fault};
use crate::proxies::Kind;
use crate::route::{Route, Speaks};
use crate::service::Draft;
use crate::world::Place;

const BROKEN: &str = "502 502 502 502 503 -";

pub const FAULTS: &[Fault] = &[
    fault("tls-upstream-closed", BROKEN, &["upstream_closed_early"], |s| get(s, "tls-closes")),
    fault("tls12-upstream-closed", BROKEN, &["upstream_closed_early"], |s| get(s, "tls12-closes")),
    fault("tls-upstream-reset", BROKEN, &["upstream_reset"], |s| get(s, "tls-resets")),
    fault("tls-upstream-silent", "504 504 502 504 504 -", &["response_timeout"], |s| get(s, "tls-silent")),
    fault("tls-upstream-half-head", "502 502 502 502 502 -", &["response_truncated"], |s| get(s, "tls-half")),
    // See `big-head`: Apache reads past its limit, and Envoy what there is.
    fault("tls-upstream-big-head", "502 502 502 - 502 -", &["header_too_big"], |s| get(s, "tls-big"))
        .likely_behind(&[Kind::Apache, Kind::Envoy]),
    fault("tls-upstream-own-502", "502 502 502 502 502 -", &["upstream_error"], |s| get(s, "tls-502")),
    fault("tls-upstream-ssh", "garbled 502 garbled|200 502 502|503 -", &["invalid_response"], |s| get(s, "tls-ssh"))
        .says(&["ssh"]),
    fault("tls-upstream-raced", "502 502|closed 502|closed 502 503 -", &["keepalive_race"], raced),
    fault("tls-upstream-wants-cert", "502 502|503 502 502 503 -", &["tls_handshake_failed"], wants_certificate)
        .says(&["certificate"]),
    fault("tls-upstream-h2-closed", "502 502 503 502 503 -", &["upstream_closed_early"], |s| h2(s, "h2s-closes")),
    fault("tls-upstream-h2-own-502", "502 502 502 502 502 -", &["upstream_error"], |s| h2(s, "h2s-502")),
    fault("tls-upstream-h2-own-503", "503 503 503 503 503 -", &["upstream_error"], |s| h2(s, "h2s-503")),
    // HAProxy and Caddy keep the connection, and only what ends is told of.
    fault("tls-upstream-h2-reset", "502 - 502 - 503 -", &["upstream_reset"], |s| h2(s, "h2s-resets"))
        .says(&["INTERNAL_ERROR"]),
    // Apache has not read that before it is reset.
    fault("tls-upstream-h2-goaway", "502 502 - 502 503 -", &["upstream_closed_early", "upstream_reset"], |s| {
        h2(s, "h2s-goes")
    })
    .reasons(["ENHANCE_YOUR_CALM", "ENHANCE_YOUR_CALM", "ENHANCE_YOUR_CALM", "", "ENHANCE_YOUR_CALM", ""]),
];

/// An upstream that speaks HTTP/2 inside TLS.
fn h2(setup: &Setup, conduct: &str) -> Result<Plan> {
    let at = setup.world.shared_at(Place::Loopback, &format!("node:{conduct}"));
    Ok(Plan::get(setup.route(at).speaking(Speaks::SecureH2)))
}

fn speaking(setup: &Setup, conduct: &str) -> Route {
    let at = setup.world.shared_at(Place::Loopback, &format!("node:{conduct}"));
    setup.route(at).speaking(speaks(setup))
}

/// Apache verifies the certificate for the address that it dials.
fn speaks(setup: &Setup) -> Speaks {
    Speaks::Tls { verify: setup.kind != Kind::Apache }
}

fn get(setup: &Setup, conduct: &str) -> Result<Plan> {
    Ok(Plan::get(speaking(setup, conduct)))
}

/// The upstream closes an idle connection just as the proxy uses it again.
fn raced(setup: &Setup) -> Result<Plan> {
    Ok(Plan::new(speaking(setup, "tls-raced").keepalive(), |session| {
        let mut client = session.connect()?;
        session.well_on(&mut client, session.get())?;
        // Not to be repeated by the proxy.
        session.fail_on(&mut client, session.post(10))
    }))
}

/// The upstream wants a certificate of the proxy, which has none. With TLS 1.3 it says so once the request is sent.
fn wants_certificate(setup: &Setup) -> Result<Plan> {
    let at = format!("127.0.0.1:{}", setup.world.port());
    let (cert, key) = (setup.world.certs.cert("good"), setup.world.certs.key("good"));
    let ca = setup.world.certs.cert("ca");
    let args = ["s_server", "-accept", &at, "-cert", &cert, "-key", &key, "-CAfile", &ca, "-Verify", "1", "-quiet"];
    let name = setup.service("mutual");
    let service = Draft::program(&setup.world, &setup.world.proxies, &name, "/usr/bin/openssl", &args).start()?;
    Ok(Plan::new(setup.route(at.clone()).speaking(speaks(setup)), move |session| {
        service.listening(&at)?;
        session.fail(session.get())
    }))
}
