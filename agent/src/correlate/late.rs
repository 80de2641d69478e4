//! The join for proxies that end an attempt in the go in which they write its error: HAProxy and lighttpd.
//!
//! The kernel side saw what the thread did right behind the error, or right before it, with nothing between: that is
//! proof. What an attempt was bound to at its birth is only a hint: a request that is tried again a second later finds
//! its thread busy with others.

use super::content::{Content, compare};
use super::join::{Joined, claimed, eligible, unbound};
use super::pending::{Pending, Pendings};
use super::tries::{Tries, Try};
use crate::model::{ClientOutcome, Endpoint, Handover, Nanos, Seen};
use crate::text::MILLI;

/// The calls of a thread that follow one another with nothing else between lie this close on a busy machine.
const AT_ONCE: Nanos = 50 * MILLI;
/// An attempt may seem to begin this much before its request: clocks are read on two CPUs.
const SLACK: Nanos = MILLI;

/// The attempts that an error is proven to come from.
pub fn proven(pending: &Pending, tries: &Tries) -> Option<Joined> {
    let last = ended(pending, tries)
        .or_else(|| passed_on(pending, tries))
        .or_else(|| in_call(pending, tries))
        .or_else(|| ended_before(pending, tries))?;
    let mut own = before(pending, last, tries);
    own.push(last.seq);
    Some(Joined { own, ..Joined::default() })
}

/// What the thread closed right behind the error.
fn ended<'a>(pending: &Pending, tries: &'a Tries) -> Option<&'a Try> {
    // What began before the request was somebody else's.
    let since = pending.asked().unwrap_or(0).saturating_sub(SLACK);
    let proven = |t: &&Try| !t.used && t.attempt.bound.is_some_and(|b| b.proven) && t.began() >= since;
    tries.of_client(pending.key()).filter(proven).max_by_key(|t| t.seq)
}

/// The upstream's own answer, that the proxy handed on.
fn passed_on<'a>(pending: &Pending, tries: &'a Tries) -> Option<&'a Try> {
    let ClientOutcome::Status(status) = pending.error.outcome else { return None };
    let answered = tries.of_process(pending.pid).filter(|t| {
        let told = t.attempt.handover == Handover::Answered && t.attempt.conn.status == Some(status);
        told && t.at <= pending.at && !of_another(t, pending) && eligible(t, pending)
    });
    let mut own = answered
        .map(|t| (compare(&pending.error.conn, &t.attempt), t.key() == Some(pending.key()), t))
        .filter(|(content, bound, _)| *content >= Content::Same || *bound && *content == Content::Unknown);
    let first = own.next()?;
    // Of several that look the same, the one that was bound.
    let (_, _, best) = own.fold(first, |best, other| if (other.0, other.1) > (best.0, best.1) { other } else { best });
    Some(best)
}

/// What failed in the call right before the error.
fn in_call<'a>(pending: &Pending, tries: &'a Tries) -> Option<&'a Try> {
    if !pending.error.conn.after_call {
        return None;
    }
    let near = |t: &&Try| {
        let before = t.seq < pending.seq && pending.at.saturating_sub(t.at) <= AT_ONCE;
        t.in_call && !t.used && t.tid == pending.tid && before
    };
    tries.of_process(pending.pid).filter(near).max_by_key(|t| t.seq)
}

/// What the thread closed right before the error, unless it is another request's by its birth or its content.
fn ended_before<'a>(pending: &Pending, tries: &'a Tries) -> Option<&'a Try> {
    let cookie = pending.error.conn.after?.get();
    let own = |t: &&Try| {
        let closed = t.attempt.conn.cookie == cookie && t.seq < pending.seq;
        let bound = t.key() == Some(pending.key()) || compare(&pending.error.conn, &t.attempt) >= Content::Same;
        closed && bound && eligible(t, pending) && compare(&pending.error.conn, &t.attempt) != Content::Different
    };
    tries.of_process(pending.pid).find(own)
}

/// Earlier tries of the same request, as far as they are known: those bound to it on the same upstream, and those of
/// one go with the last.
fn before(pending: &Pending, last: &Try, tries: &Tries) -> Vec<u64> {
    let earlier = |t: &&Try| t.seq != last.seq && !t.used && t.began() <= last.began();
    if last.in_call {
        let mut next = last.at;
        let mut go: Vec<&Try> = tries.of_process(pending.pid).filter(|t| t.in_call && t.tid == last.tid).collect();
        go.sort_by_key(|t| std::cmp::Reverse(t.seq));
        let one_go = go.into_iter().filter(|t| t.seq < last.seq).take_while(|t| {
            let close = next.saturating_sub(t.at) <= AT_ONCE;
            next = t.at;
            close && !t.used && t.key() == last.key()
        });
        return one_go.map(|t| t.seq).collect();
    }
    let own = tries.of_client(pending.key()).filter(earlier);
    let same = own.filter(|t| t.attempt.endpoint == last.attempt.endpoint && !of_another(t, pending));
    same.filter(|t| compare(&pending.error.conn, &t.attempt) != Content::Different).map(|t| t.seq).collect()
}

/// It is proven to belong to another request.
fn of_another(t: &Try, pending: &Pending) -> bool {
    t.attempt.bound.is_some_and(|b| b.proven && (b.client, b.request) != pending.key())
}

/// Without proof: the error was seen where the kernel side could not see it (TLS, HTTP/2, a log), or the proxy made
/// it without any attempt.
pub fn guessed(pending: &Pending, tries: &Tries, others: &Pendings) -> Joined {
    let key = pending.key();
    let near: Vec<(Content, &Try)> = tries
        .of_process(pending.pid)
        .filter(|t| eligible(t, pending) && !of_another(t, pending))
        .map(|t| (compare(&pending.error.conn, &t.attempt), t))
        .filter(|(content, _)| *content != Content::Different)
        .collect();
    let own = |t: &Try| t.key() == Some(key);
    let same: Vec<u64> = near
        .iter()
        .filter(|(content, t)| *content >= Content::Same && (own(t) || !claimed(t, others)))
        .map(|(_, t)| t.seq)
        .collect();
    if !same.is_empty() {
        return Joined { own: same, ..Joined::default() };
    }
    // Where the end would have been seen, what ended at another time is none of it.
    if matches!(pending.seen, Seen::Wire | Seen::Tls | Seen::Closed | Seen::Garbled)
        && near.iter().all(|(_, t)| !is_unix(t))
    {
        return Joined::default();
    }
    let bound: Vec<u64> = near.iter().filter(|(_, t)| own(t)).map(|(_, t)| t.seq).collect();
    match bound.is_empty() {
        true => unbound(pending, tries),
        false => Joined { own: bound, doubt: Some("it was not seen to end with this error"), ..Joined::default() },
    }
}

/// Nothing more will be told of it.
pub fn told_whole(t: &Try) -> bool {
    t.attempt.bound.is_some_and(|b| b.proven) || t.attempt.handover == Handover::Asked && is_unix(t)
}

/// There is no hook at the end of a unix connection.
fn is_unix(t: &Try) -> bool {
    matches!(t.attempt.endpoint, Endpoint::Unix(_)) && !t.in_call
}
