//! A process that is known as a proxy only by what it does: it may be an application that needs others.

use super::*;

/// An application of this name answers 503 after this attempt of its own.
fn answered_after(found: bool, attempt: impl Fn(&mut World) -> Attempt) -> World {
    let mut w = World::new("shopd");
    let mut a = attempt(&mut w);
    a.conn.found = found;
    w.tell(a).pass(MILLI);
    let mut e = w.error(ClientOutcome::Status(503));
    e.conn.found = found;
    w.see(Fact::Client(e));
    w
}

#[test]
fn what_it_needed_is_likely_where_only_the_order_tells() {
    let refused = |w: &mut World| w.refused();
    let i = answered_after(true, refused).expect("no_listener", Likely);
    assert!(i.evidence.iter().any(|e| e.text.contains("known as a proxy only by what it does")), "{i:#?}");
    answered_after(false, refused).expect("no_listener", Certain);
}

#[test]
fn a_request_that_it_passed_on_is_proof() {
    let passed_on = |w: &mut World| {
        let mut a = closed_early(w, 7, "/api/cart");
        a.bound = Some(Bound { client: 7, request: 1, choices: 1, retry: false, proven: false });
        a
    };
    answered_after(true, passed_on).expect("upstream_closed_early", Certain);
}

#[test]
fn what_it_answers_by_itself_is_blamed_on_nobody() {
    for (found, cause) in [(true, "unattributed"), (false, "no_live_upstream")] {
        let mut w = answered_after(found, |w| w.refused());
        w.pass(2 * SECOND);
        let mut e = w.error(ClientOutcome::Status(503));
        (e.conn.request, e.conn.found) = (2, found);
        w.see(Fact::Client(e));
        let all = w.all();
        assert_eq!(all.iter().map(|i| i.cause.as_str()).collect::<Vec<_>>(), ["no_listener", cause], "{all:#?}");
    }
}
