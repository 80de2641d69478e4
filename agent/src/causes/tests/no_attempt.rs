//! Errors that no attempt explains.

use super::*;

#[test]
fn all_upstreams_were_marked_down() {
    let mut w = World::new("envoy");
    let a = w.refused();
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(50_000).answered(503).pass(SECOND);
    let mut error = w.error(ClientOutcome::Status(503));
    error.conn.cookie = 8;
    w.see(Fact::Client(error));
    let all = w.all();
    assert_eq!((all[1].cause.as_str(), all[1].confidence), ("no_live_upstream", Likely), "{:#?}", all[1]);
    assert!(all[1].summary.contains("127.0.0.1:8000 had failed once"), "{}", all[1].summary);
    assert!(all[1].attempts.is_empty() && all[1].upstream.is_none());
}

/// nginx never gives up an only upstream: it made this answer for another reason.
#[test]
fn an_only_upstream_of_nginx_is_never_marked_down() {
    for (servers, cause) in [(1, "unattributed"), (2, "no_live_upstream")] {
        let mut w = World::new("nginx");
        for server in 0..servers {
            let mut a = w.refused();
            let remote = addr(&format!("127.0.0.1:800{server}"));
            a.endpoint = Endpoint::Tcp(remote);
            a.conn.flow.as_mut().unwrap().remote = remote;
            a.bound.as_mut().unwrap().request = server + 1;
            let mut error = w.error(ClientOutcome::Status(502));
            error.conn.request = server + 1;
            w.tell(a).pass(50_000).see(Fact::Client(error)).pass(SECOND);
        }
        let mut error = w.error(ClientOutcome::Status(502));
        error.conn.cookie = 8;
        w.see(Fact::Client(error));
        assert_eq!(w.all().last().unwrap().cause, cause);
    }
}

/// The checks of one backend fail; what the proxy says by itself is of another.
#[test]
fn failed_checks_do_not_explain_an_answer_that_says_something_else() {
    let answers: [(&[u8], &str); 3] = [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "unattributed"),
        (
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 107\r\n\r\n<html><body><h1>503 Service Unavailable\
              </h1>\nNo server is available to handle this request.\n</body></html>\n",
            "no_live_upstream",
        ),
        // Its bytes are not kept: nothing contradicts.
        (b"", "no_live_upstream"),
    ];
    for (answer, cause) in answers {
        let mut w = World::new("haproxy");
        let mut check = w.refused();
        check.bound = None;
        check.conn.check = true;
        w.stack_reset(&check, Some("NO_SOCKET")).tell(check).pass(SECOND);
        let mut error = w.error(ClientOutcome::Status(503));
        error.conn.reply_head = answer.to_vec();
        error.conn.reply_bytes = answer.len() as u64;
        w.see(Fact::Client(error));
        let i = w.incident();
        assert_eq!(i.cause, cause, "{i:#?}");
        assert!(!i.summary.contains("had failed"), "no upstream is blamed: {}", i.summary);
    }
}

#[test]
fn a_rule_of_the_proxy_is_told_from_its_log() {
    let mut w = World::new("nginx");
    w.answered(503);
    let at = w.now;
    let line = format!(
        "1970/01/01 00:00:00 [error] {}#1: *4 limiting requests, excess: 1.0 by zone \"z\", client: 10.0.0.1, \
         server: s, request: \"GET /api/cart HTTP/1.1\", host: \"shop.example\"",
        PROXY.pid
    );
    let mut error = crate::logs::Parser::new(crate::logs::Format::Nginx).read(line.as_bytes(), 0).unwrap();
    error.time_micros = None;
    error.client = None;
    // We were held up: the line is read long after its deadline, but before anything that was told after that.
    w.engine.log(at + 250 * MILLI, &error, &mut w.host);
    w.pass(SECOND).see(Fact::ClientLeft { client: 9, request: 1 });
    let i = w.incident();
    assert_eq!((i.cause.as_str(), i.confidence), ("proxy_limit", Certain), "{i:#?}");
    assert!(i.fix[0].contains("limit_req"), "{:?}", i.fix);
}

#[test]
fn a_name_without_a_resolver_is_told_from_the_log() {
    let mut w = World::new("nginx");
    w.answered(502);
    let at = w.now;
    let line = format!(
        "1970/01/01 00:00:00 [error] {}#1: *4 no resolver defined to resolve api.internal, client: 10.0.0.1, server: s, \
         request: \"GET /api/cart HTTP/1.1\", host: \"shop.example\"",
        PROXY.pid
    );
    let mut error = crate::logs::Parser::new(crate::logs::Format::Nginx).read(line.as_bytes(), 0).unwrap();
    error.time_micros = None;
    error.client = None;
    w.engine.log(at + MILLI, &error, &mut w.host);
    let i = w.incident();
    assert_eq!(i.cause, "dns_failure", "{i:#?}");
    assert!(i.fix[0].contains("set resolver"), "{:?}", i.fix);
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
    check.conn.check = true;
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

/// Another name of the same proxy had its answer long before this error.
#[test]
fn a_name_without_an_answer_comes_before_one_that_was_answered_long_ago() {
    let mut w = World::new("apache2");
    let mute = dns(&w, false, 0, "mute.internal");
    let (ask, answer) = (dns(&w, false, 0, "nx.internal"), dns(&w, true, 3, "nx.internal"));
    let asked = w.now - MILLI;
    w.see(mute).pass(MILLI).see(ask).pass(MILLI).see(answer).pass(SECOND);
    let mut error = w.error(ClientOutcome::Status(500));
    error.conn.asked = Some(asked);
    w.see(Fact::Client(error));
    let i = w.expect("dns_failure", Likely);
    assert!(i.summary.contains("mute.internal"), "{}", i.summary);
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
fn nginx_has_no_queue_of_its_own() {
    let mut w = World::new("nginx");
    error_after(&mut w, SECOND, ClientOutcome::Status(502));
    w.expect("unattributed", Unknown);
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
