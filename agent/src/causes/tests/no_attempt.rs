//! Errors that no attempt explains.

use super::*;

#[test]
fn all_upstreams_were_marked_down() {
    let mut w = World::new("nginx");
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502).pass(SECOND);
    let mut error = w.error(ClientOutcome::Status(502));
    error.conn.cookie = 8;
    w.see(Fact::Client(error));
    let all = w.all();
    assert_eq!((all[1].cause.as_str(), all[1].confidence), ("no_live_upstream", Likely), "{:#?}", all[1]);
    assert!(all[1].summary.contains("127.0.0.1:8000 had failed once"), "{}", all[1].summary);
    assert!(all[1].attempts.is_empty() && all[1].upstream.is_none());
}

#[test]
fn an_answer_that_the_proxy_made_by_itself() {
    let mut w = World::new("nginx");
    w.answered(502);
    let i = w.expect("unattributed", Unknown);
    assert_eq!(i.why.as_deref(), Some("no_attempt"));
}

#[test]
fn what_a_proxy_answers_by_itself_has_a_why_of_its_own_once_failures_would_have_been_seen() {
    let why = |proxy: &str, watched: Nanos, route: &str| {
        let mut w = World::new(proxy);
        let a = w.refused();
        w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502).pass(watched);
        let mut error = w.error(ClientOutcome::Status(503));
        error.conn.cookie = 8;
        error.conn.request_head = get(route);
        w.see(Fact::Client(error));
        w.all()[1].why.clone().unwrap()
    };
    assert_eq!(why("nginx", 601 * SECOND, "/maintenance"), "own_answer");
    assert_eq!(why("nginx", 599 * SECOND, "/maintenance"), "no_attempt", "a failure may have come before the start");
    assert_eq!(why("caddy", 601 * SECOND, "/maintenance"), "no_attempt", "its attempts may be another thread's");
    // A minute is not long for some settings: what failed before may still be given up.
    let mut w = World::new("nginx");
    w.answered(503).pass(550 * SECOND);
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502).pass(100 * SECOND);
    let mut error = w.error(ClientOutcome::Status(502));
    error.conn.cookie = 8;
    w.see(Fact::Client(error));
    assert_eq!(w.all()[2].why.as_deref(), Some("no_attempt"));
}

#[test]
fn a_rate_limit_after_failures_is_not_blamed_on_them() {
    let mut w = World::new("nginx");
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502).pass(SECOND);
    let mut error = w.error(ClientOutcome::Status(503));
    error.conn.cookie = 8;
    w.see(Fact::Client(error));
    let all = w.all();
    assert_eq!(all[1].why.as_deref(), Some("no_attempt"));
}

#[test]
fn an_error_of_another_route_is_not_blamed_on_failures_before() {
    let mut w = World::new("nginx");
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(502).pass(SECOND);
    let mut error = w.error(ClientOutcome::Status(502));
    error.conn.cookie = 8;
    error.conn.request_head = get("/maintenance");
    w.see(Fact::Client(error));
    assert_eq!(w.all()[1].why.as_deref(), Some("no_attempt"));
}

#[test]
fn failed_health_checks_leave_no_upstream() {
    let mut w = World::new("haproxy");
    let mut check = w.refused();
    check.bound = None;
    w.stack_reset(&check, Some("NO_SOCKET")).tell(check).pass(SECOND).answered(503);
    w.expect("no_live_upstream", Likely);
}

#[test]
fn a_name_that_does_not_resolve() {
    for (proxy, status) in [("nginx", 502), ("apache2", 500)] {
        let mut w = World::new(proxy);
        let (ask, answer) = (dns(&w, false, 0, "api.internal"), dns(&w, true, 3, "api.internal"));
        w.see(ask).pass(MILLI).see(answer).pass(MILLI).answered(status);
        let i = w.expect("dns_failure", Certain);
        assert!(i.summary.ends_with("could not resolve api.internal: NXDOMAIN from 127.0.0.53:53"), "{}", i.summary);
    }
}

#[test]
fn a_name_that_resolves_is_no_failure() {
    let mut w = World::new("nginx");
    let (ask, answer) = (dns(&w, false, 0, "api.internal"), dns(&w, true, 0, "api.internal"));
    w.see(ask).pass(MILLI).see(answer).pass(MILLI).answered(502);
    w.expect("unattributed", Unknown);
}

#[test]
fn no_descriptors_left() {
    let mut w = World::new("nginx");
    w.host.descriptors.insert(PROXY.pid, DescriptorFacts { open: 1_024, limit: 1_024 });
    w.answered(500);
    w.expect("proxy_limit", Certain);
}

#[test]
fn a_request_that_stood_in_the_proxys_own_queue() {
    let mut w = World::new("haproxy");
    error_after(&mut w, SECOND, ClientOutcome::Status(503));
    let i = w.expect("proxy_limit", Likely);
    assert!(i.summary.contains("held the request for 1 s"), "{}", i.summary);
}

#[test]
fn a_server_that_reads_the_head_of_a_tls_record_and_closes() {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(Peer { unread: 47 - 5, ..w.closed_peer(SERVER) });
    w.tell(a).pass(50_000).answered(502);
    w.expect("tls_mismatch", Likely);
}

#[test]
fn a_goodbye_that_was_lost_makes_a_connection_stale() {
    let mut w = nginx();
    let mut a = reused(&mut w);
    a.conn.reset = Some(w.now - 50_000);
    a.peer = Some(Peer { closed: a.conn.asked.map(|at| at - 60 * MILLI), ..w.closed_peer(SERVER) });
    w.tell(a).pass(50_000).answered(502);
    w.expect("stale_connection", Certain);
}

#[test]
fn a_close_inside_tls_before_an_answer() {
    let mut w = nginx();
    let mut a = w.attempt();
    a.conn.request_head = HELLO.to_vec();
    a.conn.reply_head = b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c".to_vec();
    a.conn.application = true;
    a.conn.fin = Some(w.now - 50_000);
    a.peer = Some(w.closed_peer(SERVER));
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_closed_early", Certain);
}
