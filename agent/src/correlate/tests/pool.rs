//! Requests of Envoy that wait for connections that were begun for others.

use super::*;

const TRIED: &str = "upstream connect error or disconnect/reset before headers. reset reason: ";

/// What Envoy answers by itself to this client, who asked so long ago.
fn answer(w: &mut World, client: Cookie, path: &str, asked: Nanos, words: &str) -> ClientError {
    let mut e = error(w, client, path, ClientOutcome::Status(503));
    e.conn.asked = Some(w.now - asked);
    e.conn.reply_head = format!("HTTP/1.1 503 Service Unavailable\r\nserver: envoy\r\n\r\n{words}").into_bytes();
    e.conn.reply_bytes = e.conn.reply_head.len() as u64;
    e
}

/// A request that was refused, and one that came while its connection was under way and has none of its own.
fn joins_a_waiting_one(second: &str) -> Vec<Incident> {
    let mut w = World::new("envoy");
    let mut a = refused(&mut w, 7);
    a.conn.opened = Some(w.now - 3 * MILLI);
    w.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(MILLI);
    let own = answer(&mut w, 7, "/shop/a", 5 * MILLI, &format!("{TRIED}remote connection failure"));
    w.see(Fact::Client(own)).pass(10_000);
    let other = answer(&mut w, 8, "/shop/b", 2 * MILLI, second);
    w.see(Fact::Client(other));
    w.all()
}

#[test]
fn a_request_shares_the_connection_that_it_waited_for() {
    let all = joins_a_waiting_one(&format!("{TRIED}remote connection failure"));
    let (first, second) = (of_client(&all, 7), of_client(&all, 8));
    assert_eq!((first.cause.as_str(), first.confidence), ("no_listener", Certain), "{first:#?}");
    assert_eq!((second.cause.as_str(), second.confidence), ("no_listener", Likely), "{second:#?}");
    assert_eq!(second.upstream.as_ref().map(|u| u.addr.as_str()), Some(UPSTREAM));
    assert!(second.evidence.iter().any(|e| e.text.contains("begun for another request")), "{second:#?}");
}

#[test]
fn what_the_answer_says_decides_whether_it_can_have_shared_one() {
    let cause = |words: &str| of_client(&joins_a_waiting_one(words), 8).cause.clone();
    assert_eq!(cause("no healthy upstream"), "no_live_upstream");
    assert_eq!(cause(&format!("{TRIED}overflow")), "proxy_limit");
    // It says that it tried one, which was connected: neither the failed connect nor the lack of one is the cause.
    assert_eq!(cause(&format!("{TRIED}connection termination")), "unattributed");
}

#[test]
fn connections_that_failed_in_different_ways_are_not_chosen_from() {
    let mut w = World::new("envoy");
    for (client, errno) in [(7, libc::ECONNREFUSED), (9, libc::ENETUNREACH)] {
        let mut a = refused(&mut w, client);
        a.conn.errno = Some(errno);
        if client == 9 {
            a.endpoint = Endpoint::Tcp(addr(OTHER));
            a.conn.flow.as_mut().unwrap().remote = addr(OTHER);
            a.conn.reset = None;
        }
        w.tell(a).pass(10_000);
        let own = answer(&mut w, client, "/shop/a", 5 * MILLI, &format!("{TRIED}remote connection failure"));
        w.see(Fact::Client(own)).pass(10_000);
    }
    let other = answer(&mut w, 8, "/shop/b", 2 * MILLI, &format!("{TRIED}remote connection failure"));
    w.see(Fact::Client(other));
    let all = w.all();
    let other = of_client(&all, 8);
    assert_eq!((other.cause.as_str(), other.why.as_deref()), ("unattributed", Some("ambiguous")), "{other:#?}");
    assert!(other.upstream.is_none());
}

/// Which of two connections is ready first is given to whoever waited longest.
#[test]
fn a_connection_may_carry_the_request_of_another() {
    let mut w = World::new("envoy");
    let bound = |client| Some(Bound { client, request: 1, choices: 1, retry: false, proven: false });
    let mut well = closed_early(&mut w, 8, "/a");
    (well.handover, well.bound) = (Handover::Asked, bound(8));
    well.conn.phase = Phase::Answered;
    let mut failed = closed_early(&mut w, 7, "/b");
    failed.bound = bound(7);
    w.tell(failed).pass(10_000);
    let e = answer(&mut w, 8, "/b", 5 * MILLI, &format!("{TRIED}connection termination"));
    w.see(Fact::Client(e)).pass(10_000).tell(well);
    let all = w.all();
    assert_eq!(of_client(&all, 8).cause, "upstream_closed_early", "{all:#?}");
}
