//! When an error is out, and what is kept how long.

use super::*;

#[test]
fn an_error_is_out_within_fifty_milliseconds() {
    for (comm, status) in [("nginx", 502), ("haproxy", 503), ("envoy", 503), ("caddy", 502), ("squid", 503)] {
        let mut w = World::new(comm);
        let a = refused(&mut w, 7);
        if comm == "haproxy" {
            w.answered(status).pass(50_000).tell(ended(a, 7));
        } else {
            w.tell(a).pass(50_000).answered(status);
        }
        let late = w.now + 50 * MILLI;
        w.engine.tick(late, &mut w.host);
        w.notices.extend(w.engine.drain());
        assert!(w.notices.iter().any(|n| matches!(n, Notice::Incident(_))), "{comm}");
        // The time by which HAProxy's close had to come stays, for nothing.
        assert!(w.engine.next_deadline().is_none() || comm == "haproxy", "{comm}");
    }
}

#[test]
fn haproxy_is_told_at_once_when_its_close_came() {
    let mut w = World::new("haproxy");
    let a = closed_early(&mut w, 7, "/api/cart");
    w.answered(502);
    assert!(w.notices.is_empty());
    w.host.processes.get_mut(&SERVER).unwrap().alive = true;
    w.pass(60_000).tell(ended(a, 7)).pass(11 * MILLI);
    let now = w.now;
    w.engine.tick(now, &mut w.host);
    assert!(w.engine.drain().iter().any(|n| matches!(n, Notice::Incident(_))));
}

#[test]
fn a_process_that_lives_on_is_not_waited_for_for_ever() {
    let mut w = World::new("nginx");
    for client in 0..100 {
        let broken = closed_early(&mut w, client, "/");
        w.tell(broken).pass(SECOND);
    }
    w.all();
    assert!(w.engine.exits.is_empty(), "{:?}", w.engine.exits);
}

#[test]
fn a_flood_of_losses_does_not_make_the_earlier_ones_forgotten() {
    let mut w = World::new("nginx");
    let first = w.now;
    w.engine.lost(first, 1);
    for batch in 1..2_000 {
        w.engine.lost(first + 60 * SECOND + batch * MILLI, 100);
    }
    assert!(w.engine.past.lossy(first, first));
    assert!(w.engine.past.lossy(first + 61 * SECOND, first + 61 * SECOND));
    assert!(!w.engine.past.lossy(first + 30 * SECOND, first + 31 * SECOND));
}

#[test]
fn everything_is_bounded_and_counted() {
    let mut w = World::new("nginx");
    for client in 0..40_000 {
        let mut a = refused(&mut w, client);
        a.conn.cookie = 100_000 + client;
        w.pass(10_000).tell(a);
        w.notices.clear();
    }
    assert!(w.engine.counters().attempts_overflow >= 7_000);
    w.answered(502);
    assert_eq!(w.all().len(), 1);
}
