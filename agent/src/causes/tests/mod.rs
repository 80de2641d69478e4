//! Each cause with a story that has it and one that looks alike and has not; and the tables held together.

mod connect;
mod connected;
mod no_attempt;
mod processes;
mod secured;

use std::collections::BTreeSet;

use super::*;
use crate::correlate::fixture::*;
use crate::host::{Activity, DescriptorFacts, ListenerFacts, MemoryFacts, PathFacts};
use crate::model::Confidence::{Certain, Likely, Unknown};
use crate::model::*;
use crate::text::{MILLI, SECOND};

const IDS: [&str; 37] = [
    "upstream_oom_killed",
    "upstream_crashed",
    "upstream_killed",
    "upstream_exited",
    "upstream_starting",
    "upstream_crash_loop",
    "no_listener",
    "wrong_interface",
    "firewall_reject",
    "firewall_drop",
    "syn_timeout",
    "accept_queue_full",
    "host_unreachable",
    "network_unreachable",
    "port_exhaustion",
    "permission_denied",
    "socket_missing",
    "refused_remote",
    "never_accepted",
    "request_not_read",
    "response_timeout",
    "send_timeout",
    "upstream_reset",
    "upstream_closed_early",
    "keepalive_race",
    "stale_connection",
    "response_truncated",
    "invalid_response",
    "header_too_big",
    "tls_mismatch",
    "h2_mismatch",
    "tls_handshake_failed",
    "upstream_error",
    "no_live_upstream",
    "dns_failure",
    "proxy_limit",
    "unattributed",
];

const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

pub(super) fn here() -> Endpoint {
    Endpoint::Tcp(addr(UPSTREAM))
}

pub(super) fn nginx() -> World {
    let mut world = World::new("nginx");
    world.listening(here(), SERVER).pass(10 * SECOND);
    world
}

pub(super) fn elsewhere(mut a: Attempt) -> Attempt {
    let remote = addr("10.9.0.2:8000");
    a.endpoint = Endpoint::Tcp(remote);
    a.conn.flow = Some(Flow { local: addr("10.9.0.1:40001"), remote, netns: 7 });
    a.listener = ListenerSeen::Unknown;
    a
}

pub(super) fn drop_of(w: &mut World, a: &Attempt, reason: &str) {
    let mut p = packet(a.conn.flow.unwrap(), Some(reason));
    p.tcp_flags = 2;
    w.see_at(a.conn.opened.unwrap(), Some(PROXY), Fact::Dropped(p));
}

pub(super) fn unanswered(w: &mut World, waited: Nanos) -> Attempt {
    let mut a = elsewhere(w.refused());
    a.conn.errno = None;
    a.conn.reset = None;
    a.conn.closed_first = true;
    a.conn.opened = Some(w.now - waited);
    a.tcp.as_mut().unwrap().retransmits = 2;
    a
}

pub(super) fn error_after(w: &mut World, waited: Nanos, outcome: ClientOutcome) {
    let mut error = w.error(outcome);
    error.conn.asked = Some(w.now - waited - 3 * MILLI);
    w.see(Fact::Client(error));
}

pub(super) fn dns(w: &World, received: bool, rcode: u8, name: &str) -> Fact {
    let _ = w;
    Fact::Dns(Dns {
        server: addr("127.0.0.53:53"),
        local: addr("127.0.0.1:33333"),
        received,
        message: crate::wire::dns::tests::build(7, received, rcode, name, 1, u16::from(received && rcode == 0)),
    })
}

fn reused(w: &mut World) -> Attempt {
    let mut a = w.attempt();
    a.conn.reused = true;
    a.conn.request = 3;
    a.conn.opened = Some(w.now - 9 * SECOND);
    a.conn.asked_before = Some(w.now - 5 * SECOND - MILLI);
    a
}

#[test]
fn the_table_and_the_public_ids_are_the_same() {
    let table: BTreeSet<&str> = CAUSES.iter().map(|c| c.id).collect();
    let public: BTreeSet<&str> = IDS.into_iter().collect();
    assert_eq!(table, public);
    assert_eq!(CAUSES.len(), table.len(), "an id stands twice");
    for cause in CATALOGUE {
        assert!(by_id(cause.id).is_some());
        for text in [cause.meaning, cause.proof, cause.remedy] {
            assert!(text.len() > 20 && text.ends_with('.'), "{}: {text}", cause.id);
        }
    }
}
