//! The join for streams of HTTP/2 that a proxy reads several at a time, and then begins a connection for each that needs
//! one, in the same order: Envoy.
//!
//! A stream for which there is a connection already begins none, and moves all behind it by one place. What was sent says
//! of many how far they moved; those between two that moved equally far moved no less and no more. Where that leaves one
//! place, it is the stream's own. Where it leaves several, which one nothing proves: then upstreams where requests of this
//! kind are known to go may tell, and what they tell is no more than likely.

use super::content::{Asked, Content, compare};
use super::failures::{Affinity, Failures, Route};
use super::hint::hinted;
use super::join::{Joined, within};
use super::pending::{Pending, Pendings};
use super::streams;
use super::tries::{End, Tries, Try};
use crate::model::{ClientOutcome, Nanos, Phase};
use crate::text::{MILLI, SECOND};

/// The numbers of a connection's streams go up by this much.
const STEP: u32 = 2;
/// How many errors that wait are looked at.
const LOOKED_AT: usize = 256;
/// What failed in the call is told to the requests that wait for it when the thread comes round again.
const ROUND: Nanos = 100 * MILLI;
/// What fails is tried again for so long: Envoy gives up a request after 15 s.
const UNDER_WAY: Nanos = 15 * SECOND;
/// The same on another upstream: Envoy waits for 250 ms at most, unless it is told otherwise.
const BACK_OFF: Nanos = SECOND;
const AGAIN: &str = "requests were tried again meanwhile, and nothing tells which of them";
const ORDER: &str = "several requests were read at once, and only their order tells which of them this attempt served";
const KNOWN: &str = "several requests were read at once and not each began a connection: only that requests like it failed \
                     with this upstream tells that this one did";
const ALIKE: &str = "several requests were read at once and not each began a connection: that all which failed then \
                     failed in this way is all that tells";

/// Which request has an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub client: u64,
    pub request: u32,
    pub asked: Nanos,
}

pub fn of_turn(pending: &Pending, tries: &Tries, others: &Pendings, failures: &Failures) -> Joined {
    if let Some(own) = own(pending, tries) {
        return tried_again(own, pending, tries);
    }
    let failed = unconnected(pending, tries);
    let mut meant = hinted(pending, tries, others, failures);
    let sent = |seq: &u64| tries.get(*seq).filter(|t| compare(&pending.error.conn, &t.attempt) >= Content::Same);
    if let Some(last) = meant.own.iter().filter_map(sent).next_back() {
        // Others that asked for the same may have sent it, and this one have failed before it sent anything.
        let enough = || asked_the_same(last, pending, others) < sent_the_same(pending, tries);
        if failed.iter().any(|t| !same(t, last)) && !enough() {
            meant.open = true;
            meant.doubt = Some(ALIKE);
        }
        return meant;
    }
    if failed.is_empty() {
        let mut joined = streams::in_turn(pending, tries, others, failures);
        streams::doubt(&mut joined, pending, tries);
        let sure = |seq: &u64| tries.get(*seq).is_some_and(|t| alone(t, pending));
        if !joined.own.iter().all(sure) {
            joined.doubt.get_or_insert(ORDER);
        }
        return joined;
    }
    likely(pending, &failed, tries, failures)
}

/// Other streams that may have sent this: those that wait for their cause, and those that were found none.
fn asked_the_same(sent: &Try, pending: &Pending, others: &Pendings) -> usize {
    let same = |p: &&Pending| p.key() != pending.key() && compare(&p.error.conn, &sent.attempt) >= Content::Same;
    let left = others.unserved(pending).filter(|conn| compare(conn, &sent.attempt) >= Content::Same).count();
    others.of_process(pending.pid).take(LOOKED_AT).filter(same).count() + left
}

/// Attempts that nobody has and that sent what this stream asked.
fn sent_the_same(pending: &Pending, tries: &Tries) -> usize {
    let asked = Asked::of(&pending.error.conn);
    let free = |t: &&Try| !t.used && within(t, pending) && !sent_nothing(t);
    tries.of_process(pending.pid).filter(free).filter(|t| asked.compare(&t.attempt) >= Content::Same).count()
}

/// No other stream waited with it, and in its turn no more was begun than was read.
fn alone(t: &Try, pending: &Pending) -> bool {
    let ordered = !t.attempt.conn.in_turn || pending.error.conn.begun_for.is_some();
    ordered && t.attempt.bound.is_some_and(|b| b.choices <= 1)
}

/// It may be what this answer is about.
fn fits(t: &Try, pending: &Pending) -> bool {
    let unconnected = t.attempt.conn.phase == Phase::Connecting;
    // A connection that never was cannot have brought a bad answer.
    let possible = !unconnected || matches!(pending.error.outcome, ClientOutcome::Status(503 | 504));
    let shown = compare(&pending.error.conn, &t.attempt);
    possible && (shown != Content::Different || alone(t, pending) && streams::rewritten(pending, t))
}

/// The attempt that is this stream's beyond doubt.
fn own<'a>(pending: &Pending, tries: &'a Tries) -> Option<&'a Try> {
    let free = |t: &&Try| !t.used && t.tid == pending.tid && fits(t, pending);
    let sure = |t: &&Try| is_own(t, pending, tries) && !(sent_nothing(t) && served_by_another(pending, tries));
    tries.of_client(pending.key()).filter(free).find(sure)
}

/// It is bound to this stream, which waited alone, or as many connections were begun as streams were read with it.
fn is_own(t: &Try, pending: &Pending, tries: &Tries) -> bool {
    let each = pending.error.conn.begun_for.is_some_and(|count| count.get() == 1) && t.attempt.conn.in_turn;
    t.key() == Some(pending.key()) && (each || alone(t, pending)) && !may_be_again(t, tries)
}

/// What it asked was sent on another connection: one on which nothing was sent is not its own.
fn served_by_another(pending: &Pending, tries: &Tries) -> bool {
    sent_the_same(pending, tries) > 0
}

/// A connection that was begun in a turn may be another try for a request that another attempt failed, as long as nobody
/// was told of that: then it took the place of a stream that began none.
fn may_be_again(t: &Try, tries: &Tries) -> bool {
    let Some(opened) = t.attempt.conn.opened.filter(|_| t.attempt.conn.in_turn) else { return false };
    let since = |before: &Try| match before.attempt.endpoint == t.attempt.endpoint {
        true => opened.saturating_sub(UNDER_WAY),
        false => opened.saturating_sub(BACK_OFF),
    };
    let other = |before: &&Try| before.seq != t.seq && before.tid == t.tid && failed(before);
    let open = |before: &Try| before.told.is_none_or(|told| told > opened);
    let meant = |before: &Try| before.at <= opened && before.at >= since(before) && open(before);
    tries.of_process(t.pid).filter(other).any(meant)
}

fn sent_nothing(t: &Try) -> bool {
    matches!(t.attempt.conn.phase, Phase::Connecting | Phase::Open)
}

/// The attempt that stands where this stream's should stand, by what others sent. No proof: of several connections to one
/// upstream the first that is ready carries the first request that waits.
fn placed<'a>(pending: &Pending, tries: &'a Tries) -> Option<&'a Try> {
    let (least, most) = moved(pending, tries)?;
    let (client, request) = pending.key();
    let place = request.checked_sub(least).filter(|_| least == most)?;
    let free = |t: &&Try| !t.used && t.attempt.conn.in_turn && t.tid == pending.tid && fits(t, pending);
    tries.of_client((client, place)).find(free)
}

/// What was begun in its turn and could be this stream's by the order: bound to it, or to one of those right before it. What
/// is begun in a turn is begun behind all that is read in it.
fn in_reach(t: &Try, pending: &Pending) -> bool {
    let (client, request) = pending.key();
    let (Some(count), Some(asked)) = (pending.error.conn.begun_for, pending.asked()) else { return false };
    let first = request.saturating_sub(STEP * (u32::from(count.get()) - 1));
    let near = t.key().is_some_and(|key| key.0 == client && (first..=request).contains(&key.1));
    near && t.attempt.conn.in_turn && t.tid == pending.tid && t.attempt.conn.opened > Some(asked)
}

/// How far this stream's connection may lie ahead of it in the order of its turn, at least and at most, in numbers of
/// streams.
fn moved(pending: &Pending, tries: &Tries) -> Option<(u32, u32)> {
    let (client, request) = pending.key();
    let asked = pending.asked()?;
    let (mut least, mut most) = (0, STEP * (u32::from(pending.error.conn.begun_for?.get()) - 1));
    let begun = |t: &&Try| t.tid == pending.tid && t.attempt.conn.in_turn;
    let begun: Vec<&Try> = tries.of_process(pending.pid).filter(begun).collect();
    let last = begun.iter().filter(|t| in_reach(t, pending)).filter_map(|t| t.attempt.conn.opened).max();
    for t in begun {
        let Some(served) = t.served.filter(|served| served.client == client) else { continue };
        let Some((_, bound)) = t.key().filter(|(to, _)| *to == client) else { continue };
        let far = served.request.checked_sub(bound)?;
        if served.request < request && t.attempt.conn.opened > Some(asked) {
            least = least.max(far);
        } else if served.request > request && last > Some(served.asked) {
            most = most.min(far);
        }
    }
    // Otherwise what is taken for an order is none.
    (least <= most).then_some((least, most))
}

/// With what was tried for the same request later. Envoy waits for a moment before it tries again, and has done other
/// things by then: what is begun without a turn may be for any that failed.
fn tried_again(own: &Try, pending: &Pending, tries: &Tries) -> Joined {
    let later = |t: &&Try| t.seq != own.seq && !t.used && !t.attempt.conn.in_turn && t.began() >= own.at;
    let meant = |t: &&Try| t.tid == pending.tid && failed(t) && within(t, pending) && fits(t, pending);
    let again: Vec<&Try> = tries.of_process(pending.pid).filter(later).filter(meant).collect();
    let sent = |t: &Try| compare(&pending.error.conn, &t.attempt) >= Content::Same;
    let mine = again.iter().filter(|t| t.key() == Some(pending.key()) || sent(t)).map(|t| t.seq);
    let doubt = again.iter().any(|t| !same(t, own)).then_some(AGAIN);
    Joined { own: std::iter::once(own.seq).chain(mine).collect(), doubt, ..Joined::default() }
}

fn failed(t: &Try) -> bool {
    t.end != End::Well && !t.attempt.conn.check
}

fn same(a: &Try, b: &Try) -> bool {
    a.attempt.endpoint == b.attempt.endpoint && a.cause() == b.cause()
}

/// What failed before anything was sent on it while this stream waited, from the newest: whoever waits for a connection
/// to an upstream fails with any that is begun to it.
fn unconnected<'a>(pending: &Pending, tries: &'a Tries) -> Vec<&'a Try> {
    let Some(asked) = pending.asked() else { return Vec::new() };
    let meant = |t: &&Try| {
        let since = if t.in_call { asked.saturating_sub(ROUND) } else { asked };
        let waited_for = t.tid == pending.tid && t.at >= since && t.at <= pending.at;
        waited_for && failed(t) && sent_nothing(t) && fits(t, pending)
    };
    tries.of_process(pending.pid).filter(meant).collect()
}

/// One of several that failed: by its place, by what is known of such requests, or because all failed alike.
fn likely(pending: &Pending, failed: &[&Try], tries: &Tries, failures: &Failures) -> Joined {
    let route = Route::of(&pending.error.conn.request_head);
    let affinity = |t: &Try| failures.affinity(t.owner.group, &t.attempt.endpoint, route.as_ref());
    let own: Vec<&Try> = failed.iter().copied().filter(|t| affinity(t) == Affinity::Own).collect();
    if let Some(t) = placed(pending, tries).filter(|t| own.is_empty() || own.iter().all(|one| same(one, t))) {
        return Joined { own: vec![t.seq], doubt: Some(ORDER), shared: true, ..Joined::default() };
    }
    let met = |t: &Try| failures.made_fail(t.owner.group, &t.attempt.endpoint, &route);
    let own = if own.is_empty() { failed.iter().copied().filter(|t| met(t)).collect() } else { own };
    let (from, doubt) = if own.is_empty() { (failed, ALIKE) } else { (own.as_slice(), KNOWN) };
    // A request of which nothing is known, and that began none, may be one that Envoy answered by itself.
    let possible = !own.is_empty() || failed.iter().any(|t| in_reach(t, pending));
    let agree = possible && from.iter().all(|t| same(t, from[0]));
    // The one that is bound to it, or else one that nobody has.
    let best = from.iter().max_by_key(|t| (t.key() == Some(pending.key()), !t.used));
    let own = best.filter(|_| agree).map(|t| t.seq).into_iter().collect();
    Joined { own, doubt: Some(doubt), open: !agree, shared: true, ..Joined::default() }
}
