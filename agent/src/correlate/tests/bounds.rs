//! What a storm of errors costs: in memory, and in looks at what is remembered. Counted, not timed.

use super::*;

const STORM: u64 = 6_000;

/// So many errors, one a millisecond, each with its attempt.
fn storm() -> World {
    let mut w = World::new("nginx");
    for client in 1..=STORM {
        let attempt = refused(&mut w, client);
        w.tell(attempt).pass(80_000);
        let error = error(&mut w, client, "/api/cart", ClientOutcome::Status(502));
        w.see(Fact::Client(error)).pass(MILLI);
    }
    assert_eq!(w.all().len() as u64, STORM);
    w
}

#[test]
fn errors_that_no_log_told_are_not_compared_with_each_other() {
    assert_eq!(storm().engine.lines.looked_at.get(), 0);
}

#[test]
fn what_incidents_have_makes_room_for_what_still_waits() {
    let w = storm();
    assert!(w.engine.tries.len() <= 4_096, "{} attempts are kept", w.engine.tries.len());
    assert_eq!(w.engine.counters().attempts_overflow, 0, "none was forgotten that anybody waited for");
}
