//! The join where a binding is no more than a hint: goroutines change threads, and streams do.
//!
//! Content decides where there is any. A dial that failed shows none: then its upstream tells, where requests like
//! this one are known to fail, the hint helps, and what is left stays in the set.

use super::content::{Asked, Content};
use super::failures::{Affinity, Failures, Route};
use super::join::{Joined, claimed, within};
use super::pending::{Pending, Pendings};
use super::streams;
use super::tries::{Tries, Try};
use crate::model::Nanos;
use crate::proxies::Birth;
use crate::text::MILLI;

/// Failures that lie closer together could as well have come in another order.
const MOMENT: Nanos = 10 * MILLI;

pub fn hinted(pending: &Pending, tries: &Tries, others: &Pendings, failures: &Failures) -> Joined {
    let key = pending.key();
    let near = near(pending, tries, failures);
    let of = |content: Content| near.iter().filter(move |n| n.content == content);
    let identical: Vec<u64> = of(Content::Identical).filter(|n| !n.one.used).map(|n| n.one.seq).collect();
    if !identical.is_empty() {
        return Joined { own: identical, ..Joined::default() };
    }
    for (content, doubt, certain_alone) in [
        (Content::Same, "several requests that look the same were under way", true),
        (Content::Unknown, "which request this attempt served could only be told by its time", false),
    ] {
        let bound: Vec<&Near> = of(content).filter(|n| !n.one.used && n.one.key() == Some(key)).collect();
        let hint = !bound.is_empty();
        let unclaimed = |n: &&Near| n.affinity == Affinity::Own || !claimed(n.one, others);
        let free = || of(content).find(|n| !n.one.used && unclaimed(n));
        let chosen = if hint { bound } else { free().into_iter().collect() };
        let Some(last) = chosen.last() else { continue };
        let at = last.one.at;
        let alike = of(content).any(|n| n.one.seq != last.one.seq && n.one.at.abs_diff(at) <= MOMENT);
        let chance = content == Content::Unknown && !hint && last.affinity != Affinity::Own && alike;
        let own: Vec<u64> = chosen.iter().map(|n| n.one.seq).collect();
        let mut rivals: Vec<u64> = of(content).map(|n| n.one.seq).filter(|seq| !own.contains(seq)).collect();
        if content == Content::Unknown && own.len() > 1 {
            // What the thread began for it need not be another try: it may be what another request needed.
            rivals.extend(&own);
        }
        let unsure = !rivals.is_empty() || !(hint || certain_alone);
        return Joined { own, rivals, doubt: unsure.then_some(doubt), chance, ..Joined::default() };
    }
    let alone = |n: &&Near| {
        !n.one.used && n.one.key() == Some(key) && n.one.attempt.bound.is_some_and(|bound| bound.choices <= 1)
    };
    let fits = |n: &&Near| !pending.error.conn.stream || streams::rewritten(pending, n.one);
    let mapped: Vec<u64> = of(Content::Different).filter(alone).filter(fits).map(|n| n.one.seq).collect();
    let doubt =
        (!mapped.is_empty()).then_some("the request that went to the upstream looks different from the client's");
    Joined { own: mapped, doubt, ..Joined::default() }
}

/// An attempt within the time of a request.
struct Near<'a> {
    content: Content,
    /// Where it shows no request.
    affinity: Affinity,
    one: &'a Try,
}

/// Go hands an answer that broke off to the goroutine that waits for it, and closes its connection in another: that may
/// come behind the error.
fn right_behind(one: &Try, pending: &Pending) -> bool {
    let by_go = pending.owner.kind.birth == Birth::Hint;
    by_go && one.at > pending.at && one.at <= pending.until() && pending.asked().is_none_or(|at| one.began() >= at)
}

/// From the newest: nearest to the error first. Those that another incident has may still be ours.
fn near<'a>(pending: &Pending, tries: &'a Tries, failures: &Failures) -> Vec<Near<'a>> {
    let route = Route::of(&pending.error.conn.request_head);
    let asked = Asked::of(&pending.error.conn);
    let meant = |one: &'a Try| {
        let content = asked.compare(&one.attempt);
        let known = failures.affinity(one.owner.group, &one.attempt.endpoint, route.as_ref());
        Near { content, affinity: if content == Content::Unknown { known } else { Affinity::Unknown }, one }
    };
    let in_time = |t: &&Try| t.began() <= pending.at && (within(t, pending) || right_behind(t, pending));
    let all = tries.of_process(pending.pid).filter(in_time).map(meant);
    let meant = |n: &Near| within(n.one, pending) || n.content >= Content::Same && right_behind(n.one, pending);
    let mut near: Vec<Near<'_>> = all.filter(meant).collect();
    let unknown = near.iter().filter(|n| n.content == Content::Unknown);
    let best = unknown.map(|n| n.affinity).max().unwrap_or(Affinity::Unknown);
    // An upstream that no request like this one has met before may be its own all the same, if the hint says so.
    let key = Some(pending.key());
    let fits = |n: &Near| n.affinity == best || n.affinity == Affinity::Unknown && n.one.key() == key;
    near.retain(|n| n.content != Content::Unknown || fits(n));
    near
}
