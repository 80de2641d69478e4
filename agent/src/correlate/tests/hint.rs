//! Dials of Go that failed: they show no request, and the thread that made them need not be the request's.

use super::*;

/// A dial that failed now, each upstream in its own way.
fn dial(w: &mut World, hint: Option<Cookie>, other: bool) -> Attempt {
    let mut a = refused(w, 0);
    a.bound = hint.map(|client| Bound { client, request: 1, choices: 2, retry: false, proven: false });
    if other {
        a.endpoint = Endpoint::Tcp(addr(OTHER));
        a.conn.flow.as_mut().unwrap().remote = addr(OTHER);
        (a.conn.errno, a.conn.reset) = (Some(libc::ENETUNREACH), None);
    }
    a
}

fn fails(w: &mut World, client: Cookie, path: &str) {
    let mut e = error(w, client, path, ClientOutcome::Status(502));
    e.conn.asked = Some(w.now - MILLI);
    w.see(Fact::Client(e)).pass(10_000);
}

/// Two requests at once, whose dials come in with these hints.
fn two_at_once(w: &mut World, hints: [Option<Cookie>; 2]) -> [Incident; 2] {
    for (hint, other) in hints.into_iter().zip([false, true]) {
        let a = dial(w, hint, other);
        w.tell(a).pass(10_000);
    }
    fails(w, 11, "/shop/x");
    fails(w, 12, "/news/y");
    let all = w.all();
    [11, 12].map(|client| of_client(&all, client).clone())
}

#[test]
fn requests_are_known_by_where_others_like_them_failed() {
    for hints in [[Some(12), Some(11)], [None, None]] {
        let mut w = World::new("caddy");
        // One at a time there is no doubt.
        for (client, path, other) in [(7, "/shop/a", false), (8, "/news/b", true)] {
            let a = dial(&mut w, Some(client), other);
            w.tell(a).pass(10_000);
            fails(&mut w, client, path);
            w.pass(SECOND);
        }
        let [shop, news] = two_at_once(&mut w, hints);
        assert_eq!((shop.cause.as_str(), news.cause.as_str()), ("no_listener", "network_unreachable"), "{hints:?}");
    }
}

#[test]
fn nothing_is_told_where_only_the_time_would_choose() {
    let mut w = World::new("caddy");
    for one in two_at_once(&mut w, [None, None]) {
        assert_eq!((one.cause.as_str(), one.why.as_deref()), ("unattributed", Some("ambiguous")), "{one:#?}");
    }
}

#[test]
fn what_was_asked_in_http2_corrects_a_wrong_hint() {
    let mut w = World::new("caddy");
    for (hint, path, status) in [(12, "/shop/x", 502), (11, "/news/y", 503)] {
        let mut a = w.attempt();
        a.handover = Handover::Answered;
        (a.conn.phase, a.conn.stream, a.conn.status) = (Phase::Answered, true, Some(status));
        a.conn.request_head = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        a.stream_head = format!("GET {path} HTTP/2\r\n\r\n").into_bytes();
        a.bound = Some(Bound { client: hint, request: 1, choices: 2, retry: false, proven: false });
        w.tell(a).pass(10_000);
    }
    fails(&mut w, 11, "/shop/x");
    fails(&mut w, 12, "/news/y");
    let all = w.all();
    for (client, said) in [(11, "itself answered 502"), (12, "itself answered 503")] {
        let one = of_client(&all, client);
        assert!(one.summary.contains(said), "{one:#?}");
        assert_eq!((one.cause.as_str(), one.confidence), ("upstream_error", Certain));
    }
}
