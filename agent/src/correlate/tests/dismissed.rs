//! What is no incident, and what is told once.

use super::*;

#[test]
fn a_client_that_left_first_is_nobodys_fault() {
    let mut w = World::new("nginx");
    w.see(Fact::ClientLeft { client: 7, request: 1 }).pass(50_000);
    let mut a = w.attempt();
    a.conn.closed_first = true;
    a.conn.asked = Some(w.now - 3 * SECOND);
    w.tell(a).pass(2 * SECOND);
    assert!(w.all().is_empty());
    assert!(w.failures().is_empty());
}

/// It said that it would send no more, and waited: the proxy went on and gave up by itself.
#[test]
fn a_client_that_closed_its_half_and_waits_is_told_its_error() {
    let status = |left: Nanos| {
        let mut w = World::new("haproxy");
        w.see(Fact::ClientLeft { client: 7, request: 1 }).pass(left);
        let mut a = w.attempt();
        a.conn.closed_first = true;
        a.conn.asked = Some(w.now - 3 * SECOND);
        a.conn.opened = a.conn.asked;
        a.peer = Some(w.peer());
        let mut e = w.error(ClientOutcome::Status(504));
        e.conn.asked = a.conn.asked;
        w.see(Fact::Client(e)).pass(20_000).tell(ended(a, 7)).pass(2 * SECOND);
        w.all().iter().map(|i| i.cause.clone()).collect::<Vec<_>>()
    };
    assert_eq!(status(2 * SECOND), ["response_timeout"]);
    assert!(status(MILLI).is_empty(), "the proxy put the pieces away");
}

#[test]
fn a_timeout_that_a_retry_rescued_counts_as_a_failure() {
    let mut w = World::new("nginx");
    let mut a = w.attempt();
    a.conn.closed_first = true;
    a.conn.asked = Some(w.now - 3 * SECOND);
    a.peer = Some(w.peer());
    w.tell(a);
    assert_eq!(w.failures(), ["response_timeout"]);
}

#[test]
fn a_health_check_is_no_attempt_of_a_request() {
    let mut w = World::new("nginx");
    let mut check = closed_early(&mut w, 7, "/health");
    check.bound = None;
    w.tell(check).pass(50_000).answered(503);
    let i = w.incident();
    assert_eq!(i.why.as_deref(), Some("no_attempt"));
    assert!(i.attempts.is_empty());
    assert_eq!(w.failures(), ["upstream_closed_early"]);
}

#[test]
fn an_unbound_attempt_with_the_same_request_is_found_by_its_content() {
    let mut w = World::new("nginx");
    let mut a = closed_early(&mut w, 7, "/api/cart");
    a.bound = None;
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_closed_early", Certain);
}

#[test]
fn an_unbound_attempt_that_shows_nothing_is_likely() {
    let mut w = World::new("nginx");
    let mut a = w.refused();
    a.bound = None;
    w.tell(a).pass(50_000).answered(502);
    let i = w.expect("no_listener", Likely);
    assert!(i.evidence.iter().any(|e| e.kind == "missing" && e.text.contains("could only be told by its time")));
}

#[test]
fn a_500_counts_only_when_the_proxy_made_it() {
    let mut w = World::new("lighttpd");
    let a = closed_early(&mut w, 7, "/api/cart");
    w.answered(500).pass(100_000).tell(a);
    w.expect("upstream_closed_early", Certain);

    let mut w = World::new("nginx");
    let mut own = w.attempt();
    own.handover = Handover::Asked;
    own.conn.phase = Phase::Answered;
    own.conn.status = Some(500);
    own.conn.reply_head = b"HTTP/1.1 500 Internal Server Error\r\n\r\n".to_vec();
    own.conn.reply_bytes = 38;
    w.answered(500).tell(own);
    assert!(w.all().is_empty());

    let mut w = World::new("nginx");
    w.answered(500);
    assert!(w.all().is_empty(), "the proxy's own 500 without an attempt");
}

#[test]
fn closed_without_an_answer_needs_a_failed_attempt_and_a_whole_request() {
    let closed = |change: &dyn Fn(&mut World, &mut ClientError, &mut Attempt)| {
        let mut w = World::new("haproxy");
        let mut a = closed_early(&mut w, 7, "/api/cart");
        let mut e = error(&mut w, 7, "/api/cart", ClientOutcome::Closed);
        change(&mut w, &mut e, &mut a);
        w.see(Fact::Client(e)).pass(60_000).tell(a);
        w.all()
    };
    let all = closed(&|_, _, _| {});
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].status, all[0].seen, all[0].cause.as_str()), (None, Seen::Closed, "upstream_closed_early"));
    assert_eq!(all[0].status_word(), "closed");

    let part = b"GET /api/cart HTT".to_vec();
    assert!(
        closed(&|_, e, _| (e.conn.request_head, e.conn.request_bytes) = (part.clone(), 17)).is_empty(),
        "half a request"
    );
    assert!(closed(&|_, _, a| a.conn.request_head = get("/other")).is_empty(), "another's attempt");
    let stop = |w: &mut World, _: &mut ClientError, _: &mut Attempt| {
        w.signal(PROXY.pid, libc::SIGTERM, proc(1, "systemd"));
    };
    assert!(closed(&stop).is_empty(), "a proxy that is being stopped closes everything");
}

#[test]
fn garbage_that_was_passed_on_needs_an_upstream_that_sent_it() {
    let mut w = World::new("nginx");
    let mut a = w.attempt();
    a.handover = Handover::Answered;
    a.conn.reply_head = b"SSH-2.0-x\r\n".to_vec();
    a.conn.reply_bytes = 11;
    let e = error(&mut w, 7, "/api/cart", ClientOutcome::Garbled);
    w.tell(a).pass(50_000).see(Fact::Client(e));
    let i = w.expect("invalid_response", Certain);
    assert_eq!((i.status_word().as_str(), i.seen), ("garbled", Seen::Garbled));

    let mut w = World::new("nginx");
    let e = error(&mut w, 7, "/api/cart", ClientOutcome::Garbled);
    w.see(Fact::Client(e));
    assert!(w.all().is_empty());
}

#[test]
fn one_error_told_twice_is_one_incident() {
    let mut w = World::new("nginx");
    let a = refused(&mut w, 7);
    w.tell(a).pass(50_000).answered(502).pass(MILLI).answered(502);
    w.expect("no_listener", Certain);
    assert_eq!(w.engine.counters().duplicates, 1);
}

#[test]
fn a_failing_connect_and_its_close_are_one_attempt() {
    let mut w = World::new("haproxy");
    w.connect_failed(Endpoint::Tcp(addr(UPSTREAM)), libc::ENETUNREACH).pass(20_000);
    let mut a = w.refused();
    a.conn.errno = None;
    a.conn.reset = None;
    w.tell(a).pass(50_000);
    let mut e = w.error(ClientOutcome::Status(503));
    e.conn.after_call = true;
    w.see(Fact::Client(e));
    let i = w.expect("network_unreachable", Certain);
    assert_eq!(i.attempts.len(), 1);
}

#[test]
fn lost_records_leave_an_error_without_attempt_unexplained() {
    let mut w = World::new("nginx");
    let at = w.now;
    w.engine.lost(at, 1);
    w.answered(502);
    assert_eq!(w.incident().why.as_deref(), Some("events_lost"));
}

#[test]
fn a_connection_from_before_the_agent_says_so() {
    let mut w = World::new("nginx");
    let mut e = w.error(ClientOutcome::Status(502));
    e.conn.old = true;
    e.conn.asked = None;
    w.see(Fact::Client(e));
    assert_eq!(w.incident().why.as_deref(), Some("agent_started_later"));
}
