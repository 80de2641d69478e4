//! Several attempts for one request.

use super::*;

#[test]
fn retries_are_told_in_order_and_the_last_one_counts() {
    let mut w = World::new("nginx");
    let first = refused(&mut w, 7);
    w.tell(first).pass(3 * MILLI);
    let second = closed_early(&mut w, 7, "/api/cart");
    w.tell(second).pass(50_000).answered(502);
    let i = w.expect("upstream_closed_early", Certain);
    let causes: Vec<_> = i.attempts.iter().map(|a| (a.upstream.as_str(), a.cause.as_str())).collect();
    assert_eq!(causes, [(UPSTREAM, "no_listener"), (OTHER, "upstream_closed_early")]);
    assert_eq!(i.upstream.as_ref().unwrap().addr, OTHER);
    assert!(i.evidence.iter().any(|e| e.kind == "earlier_attempt" && e.text.contains("no_listener")));
    assert_eq!(w.failures(), ["no_listener", "upstream_closed_early"]);
}

#[test]
fn a_retry_that_looked_well_is_handed_over_after_the_error_and_wins() {
    let mut w = World::new("nginx");
    let first = refused(&mut w, 7);
    w.tell(first).pass(3 * MILLI);
    let mut last = closed_early(&mut w, 7, "/api/cart");
    last.handover = Handover::Asked;
    last.conn.phase = Phase::Answered;
    last.conn.reply_head = b"HTTP/1.1 200 OK\r\nConte".to_vec();
    last.conn.reply_bytes = 22;
    w.answered(502).pass(30_000).tell(last);
    w.expect("response_truncated", Certain);
}

#[test]
fn a_request_that_a_retry_rescued_is_a_failure_and_no_incident() {
    let mut w = World::new("nginx");
    let a = refused(&mut w, 7);
    w.tell(a).pass(SECOND);
    assert!(w.all().is_empty());
    assert_eq!(w.failures(), ["no_listener"]);
}

/// Of several requests whose connections failed in the call, each has those right before its error.
#[test]
fn what_failed_in_the_call_belongs_to_the_error_that_follows() {
    let mut w = World::new("haproxy");
    let fail = |w: &mut World, client: Cookie, endpoint: &str, errno: i32| {
        for _ in 0..2 {
            let bound = Some(Bound { client, request: 1, choices: 1, retry: false, proven: false });
            let a = w.attempt();
            w.pass(20_000).see(Fact::ConnectFailed(ConnectFailed {
                endpoint: Endpoint::Tcp(addr(endpoint)),
                netns: 7,
                comm: a.conn.comm,
                cgroup: 5,
                cookie: None,
                bound,
                in_turn: false,
                errno,
                listener: ListenerSeen::Unknown,
            }));
        }
    };
    // Their births were taken for each other.
    for (client, endpoint, errno) in [(7, UPSTREAM, libc::ENETUNREACH), (8, OTHER, libc::EADDRNOTAVAIL)] {
        fail(&mut w, 15 - client, endpoint, errno);
        let mut e = error(&mut w, client, "/a", ClientOutcome::Status(503));
        e.conn.after_call = true;
        w.pass(20_000).see(Fact::Client(e));
    }
    let all = w.all();
    for (client, cause) in [(7, "network_unreachable"), (8, "port_exhaustion")] {
        let i = of_client(&all, client);
        assert_eq!((i.cause.as_str(), i.confidence, i.attempts.len()), (cause, Certain, 2), "{i:#?}");
    }
}

/// HAProxy's close was seen to follow the error of another request: whose it was taken for at birth says nothing.
#[test]
fn the_close_behind_an_error_overrules_the_birth() {
    let mut w = World::new("haproxy");
    let (refused, closed) = (refused(&mut w, 7), closed_early(&mut w, 8, "/b"));
    for (client, path, a) in [(7, "/b", closed), (8, "/a", refused)] {
        let e = error(&mut w, client, path, ClientOutcome::Status(503));
        w.see(Fact::Client(e)).pass(20_000).tell(ended(a, client)).pass(20_000);
    }
    let all = w.all();
    assert_eq!(of_client(&all, 7).cause, "upstream_closed_early");
    assert_eq!(of_client(&all, 8).cause, "no_listener");
}

/// A thread may turn to another connection in the same go: what began before the request was somebody else's.
#[test]
fn what_began_before_the_request_did_not_lead_to_its_error() {
    let mut w = World::new("haproxy");
    let mut stranger = refused(&mut w, 7);
    stranger.conn.opened = Some(w.now - 3 * SECOND);
    let mut e = error(&mut w, 7, "/a", ClientOutcome::Status(503));
    e.conn.asked = Some(w.now - MILLI);
    w.see(Fact::Client(e)).pass(20_000).tell(ended(stranger, 7)).pass(SECOND);
    let i = w.incident();
    assert_eq!((i.cause.as_str(), i.attempts.len()), ("unattributed", 0), "{i:#?}");
}

/// HAProxy closed it, and wrote the error with nothing between.
#[test]
fn what_was_closed_right_before_an_error_led_to_it_if_it_is_that_requests() {
    for (client, cause) in [(7, "upstream_closed_early"), (8, "unattributed")] {
        let mut w = World::new("haproxy");
        let closed = closed_early(&mut w, 7, "/a");
        let cookie = closed.conn.cookie;
        w.tell(closed).pass(30_000);
        let mut e = error(&mut w, client, if client == 7 { "/a" } else { "/b" }, ClientOutcome::Status(503));
        e.conn.after = std::num::NonZero::new(cookie);
        w.see(Fact::Client(e)).pass(SECOND);
        assert_eq!(w.incident().cause, cause);
    }
}

/// An error behind which nothing was closed was made without an attempt, whatever failed at that time.
#[test]
fn haproxy_without_a_close_made_no_attempt() {
    let mut w = World::new("haproxy");
    let stranger = refused(&mut w, 7);
    w.tell(stranger).pass(50_000).answered(500).pass(SECOND);
    assert!(w.all().is_empty());
}

#[test]
fn a_health_check_between_two_tries_is_none_of_them() {
    let mut w = World::new("haproxy");
    let other = |a: &mut Attempt| {
        a.endpoint = Endpoint::Tcp(addr(OTHER));
        a.conn.flow.as_mut().unwrap().remote = addr(OTHER);
    };
    let mut checks = [w.refused(), w.refused()];
    for check in &mut checks {
        check.bound = None;
        check.conn.check = true;
        other(check);
    }
    let [one, two] = checks;
    w.tell(one).pass(SECOND);
    let first = refused(&mut w, 7);
    w.tell(first).pass(300 * MILLI);
    w.tell(two).pass(700 * MILLI);
    let last = ended(refused(&mut w, 7), 7);
    let mut e = error(&mut w, 7, "/a", ClientOutcome::Status(503));
    e.conn.asked = Some(w.now - 2 * SECOND);
    w.see(Fact::Client(e)).pass(50_000).tell(last);
    let i = w.expect("no_listener", Certain);
    assert_eq!(i.attempts.iter().map(|a| a.upstream.as_str()).collect::<Vec<_>>(), [UPSTREAM, UPSTREAM]);
}

#[test]
fn tries_a_second_later_go_to_the_request_that_failed_there() {
    let mut w = World::new("haproxy");
    let on = |w: &mut World, client: Cookie, endpoint: &str, retry: bool| {
        let mut a = refused(w, client);
        a.endpoint = Endpoint::Tcp(addr(endpoint));
        a.conn.flow.as_mut().unwrap().remote = addr(endpoint);
        a.bound.as_mut().unwrap().retry = retry;
        a
    };
    for (client, endpoint) in [(7, UPSTREAM), (8, OTHER)] {
        let first = on(&mut w, client, endpoint, false);
        w.tell(first).pass(100 * MILLI);
    }
    w.pass(800 * MILLI);
    // The thread failed for client 8 last, and takes both for it.
    for (client, endpoint) in [(7, UPSTREAM), (8, OTHER)] {
        let last = ended(on(&mut w, 8, endpoint, true), client);
        let mut e = error(&mut w, client, "/a", ClientOutcome::Status(503));
        e.conn.asked = Some(w.now - 2 * SECOND);
        w.see(Fact::Client(e)).pass(50_000).tell(last).pass(100 * MILLI);
    }
    let all = w.all();
    for (client, endpoint) in [(7, UPSTREAM), (8, OTHER)] {
        let tried: Vec<_> = of_client(&all, client).attempts.iter().map(|a| a.upstream.as_str()).collect();
        assert_eq!(tried, [endpoint, endpoint]);
    }
}

#[test]
fn an_attempt_after_the_error_is_a_health_check() {
    let mut w = World::new("haproxy");
    let first = ended(refused(&mut w, 7), 7);
    w.answered(503).tell(first).pass(SECOND);
    let mut check = refused(&mut w, 7);
    check.bound.as_mut().unwrap().retry = true;
    w.tell(check).pass(SECOND);
    let mut e = error(&mut w, 8, "/other", ClientOutcome::Status(503));
    e.conn.asked = Some(w.now - MILLI);
    w.see(Fact::Client(e));
    let all = w.all();
    assert_eq!(all[0].attempts.len(), 1);
    assert_eq!(of_client(&all, 8).cause, "no_live_upstream");
}

#[test]
fn a_reset_that_the_proxy_sent_by_itself_is_its_own_giving_up() {
    let mut w = World::new("haproxy");
    let mut a = w.attempt();
    a.conn.errno = Some(libc::ECONNRESET);
    a.conn.asked = Some(w.now - SECOND);
    a.conn.closed_first = true;
    a.peer = Some(w.peer());
    let mut e = error(&mut w, 7, "/api/cart", ClientOutcome::Status(504));
    e.conn.asked = Some(w.now - SECOND - MILLI);
    w.see(Fact::Client(e)).pass(60_000).tell(a);
    w.expect("response_timeout", Certain);
}
