//! What a storm of errors costs: in memory, and in looks at what is remembered. Counted, not timed.

use std::ops::RangeInclusive;

use super::*;

const STORM: u64 = 6_000;

fn storm() -> World {
    let mut w = World::new("nginx");
    errors(&mut w, 1..=STORM);
    assert_eq!(w.all().len() as u64, STORM);
    w
}

/// One error a millisecond for each of these clients, each with its attempt.
fn errors(w: &mut World, clients: RangeInclusive<u64>) {
    for client in clients {
        let attempt = refused(w, client);
        w.tell(attempt).pass(80_000);
        let error = error(w, client, "/api/cart", ClientOutcome::Status(502));
        w.see(Fact::Client(error)).pass(MILLI);
    }
}

#[test]
fn an_error_looks_at_no_more_attempts_when_many_are_remembered() {
    let mut w = World::new("nginx");
    let mut looks = |clients: RangeInclusive<u64>| {
        let (before, count) = (w.engine.tries.looked_at.get(), clients.clone().count() as u64);
        errors(&mut w, clients);
        (w.engine.tries.looked_at.get() - before) / count
    };
    let few = looks(1..=400);
    looks(401..=5_000);
    let many = looks(5_001..=5_400);
    assert!(many <= few + few / 4 + 1, "{few} looks for an error, then {many}");
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
