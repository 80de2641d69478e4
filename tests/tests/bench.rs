//! The price of watching, held: the programs on a send and a receive, in programs that do nothing, all in one run.
//! A ratio that grew by more than its noise is a regression; no figure here depends on how fast the machine is.
//!
//! Needs root, and a kernel that has these hooks (6.3).

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use trace502_tests::bench::hooks::Price;

/// What was reached, in programs that do nothing: see docs/performance.md. Lower one after an improvement.
const HELD: [(&str, f64); 3] = [("untracked", 1.2), ("flow", 3.1), ("turns", 5.6)];
/// How much a busy machine adds to the least of many.
const NOISE: f64 = 1.35;
/// A run among others that compile and boot machines may be off as a whole: the best of some counts.
const TRIES: usize = 4;

#[test]
fn the_price_of_the_hooks_has_not_grown() {
    let mut best = [f64::MAX; HELD.len()];
    for last in (0..TRIES).map(|done| done + 1 == TRIES) {
        let price = match Price::take(30) {
            Ok(price) => price,
            // Another agent that starts at the same time brings programs of the same names.
            Err(error) => {
                assert!(!last, "{error:#}");
                continue;
            }
        };
        for (best, (_, floors)) in best.iter_mut().zip(price.floors()) {
            *best = best.min(floors);
        }
        if over(&best).is_empty() {
            return;
        }
    }
    panic!("watching costs more than it did, in programs that do nothing: {}", over(&best).join(", "));
}

/// What costs more than it may.
fn over(best: &[f64; HELD.len()]) -> Vec<String> {
    let each = HELD.iter().zip(best);
    let over = each.filter(|((_, held), now)| **now > held * NOISE);
    over.map(|((name, held), now)| format!("{name} {now:.1}, was {held}")).collect()
}
