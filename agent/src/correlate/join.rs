//! Which attempts belong to an error of a client. The answer is a set.
//!
//! Bound at birth, confirmed by order, verified by content. Where the binding is measured exact it rules; where
//! goroutines move between threads it is a hint, and content rules. What cannot be told apart stays in the set.

use super::content::{Content, compare};
use super::pending::{Pending, Pendings};
use super::tries::{State, Tries, Try};
use crate::model::{Handover, Nanos};
use crate::proxies::Closes;
use crate::text::{MILLI, SECOND};

/// An attempt may seem to begin this much before its request: clocks are read on two CPUs.
const SLACK: Nanos = MILLI;
/// Where it is not known when the request began.
const BLIND: Nanos = 5 * SECOND;
/// Between the close of an attempt that was not bound and the write it led to.
const ADJACENT: Nanos = 5 * MILLI;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Attempts of this request, in the order in which they began.
    pub own: Vec<u64>,
    /// Others that could be meant as well.
    pub rivals: Vec<u64>,
    /// Why the join is not certain.
    pub doubt: Option<&'static str>,
}

pub fn join(pending: &Pending, tries: &Tries, others: &Pendings) -> Joined {
    let mut joined = if pending.exact() { exact(pending, tries) } else { hinted(pending, tries, others) };
    joined.own.sort_by_key(|seq| tries.get(*seq).map(|t| (t.began(), t.seq)));
    if joined.doubt.is_some() && joined.own.len() == 1 && !joined.rivals.is_empty() && agree(&joined, tries) {
        joined.doubt = None;
    }
    joined
}

/// Whether all that could be meant failed the same way: the cause is certain although the owner is not.
fn agree(joined: &Joined, tries: &Tries) -> bool {
    let mut kinds = joined.own.iter().chain(&joined.rivals).map(|seq| {
        let t = tries.get(*seq)?;
        match &t.state {
            State::Judged(Some((cause, _))) => Some((cause.id, &t.attempt.endpoint)),
            _ => None,
        }
    });
    let Some(Some(first)) = kinds.next() else { return false };
    kinds.all(|kind| kind == Some(first))
}

fn exact(pending: &Pending, tries: &Tries) -> Joined {
    let mut joined = Joined::default();
    for t in tries.of_client(pending.key()).filter(|t| !t.used) {
        let choices = t.attempt.bound.map_or(0, |b| b.choices);
        if choices > 1 && compare(&pending.error.conn, &t.attempt) == Content::Different {
            joined.doubt = Some("the request that went to the upstream looks different from the client's");
        }
        joined.own.push(t.seq);
    }
    if !joined.own.is_empty() {
        return joined;
    }
    // Pipelined requests may be counted differently by reads and by answers.
    if pending.error.conn.ahead {
        let (cookie, request) = pending.key();
        for near in [request.saturating_sub(1), request.saturating_add(1)] {
            let same = |t: &&Try| !t.used && compare(&pending.error.conn, &t.attempt) >= Content::Same;
            joined.own.extend(tries.of_client((cookie, near)).filter(same).map(|t| t.seq));
        }
    }
    if joined.own.is_empty() { unbound(pending, tries) } else { joined }
}

/// Attempts that the kernel side could not bind, of the thread that wrote the error.
fn unbound(pending: &Pending, tries: &Tries) -> Joined {
    let mut joined = Joined::default();
    let candidates = tries.of_process(pending.pid).filter(|t| t.attempt.bound.is_none() && t.tid == pending.tid);
    let mut unsure = Vec::new();
    for t in candidates.filter(|t| eligible(t, pending)) {
        match compare(&pending.error.conn, &t.attempt) {
            Content::Same | Content::Identical => joined.own.push(t.seq),
            Content::Unknown if pending.asked().is_some() && adjacent(t, pending) => unsure.push(t.seq),
            Content::Unknown | Content::Different => {}
        }
    }
    if joined.own.is_empty() && !unsure.is_empty() {
        joined.own.push(unsure.remove(0));
        joined.rivals = unsure;
        joined.doubt = Some("which request this attempt served could only be told by its time");
    }
    joined
}

fn adjacent(t: &Try, pending: &Pending) -> bool {
    match pending.owner.kind.closes {
        Closes::BeforeWrite => t.at <= pending.at && pending.at - t.at <= ADJACENT,
        Closes::AfterWrite => t.at >= pending.at || t.in_call,
        Closes::Either => t.at.abs_diff(pending.at) <= ADJACENT,
    }
}

/// It lies within the time of the request.
fn eligible(t: &Try, pending: &Pending) -> bool {
    let from = match pending.asked() {
        Some(asked) => asked.saturating_sub(SLACK),
        None => pending.at.saturating_sub(BLIND),
    };
    !t.used && t.began() >= from && t.at <= pending.until()
}

fn hinted(pending: &Pending, tries: &Tries, others: &Pendings) -> Joined {
    let key = pending.key();
    let mut by_hint = Vec::new();
    let mut by_content = Vec::new();
    let mut unknown = (Vec::new(), Vec::new());
    let mut mapped = Vec::new();
    for t in tries.of_process(pending.pid).filter(|t| eligible(t, pending)) {
        let content = compare(&pending.error.conn, &t.attempt);
        let bound = t.key() == Some(key);
        match content {
            Content::Identical => by_hint.push(t.seq),
            Content::Same if bound => by_hint.push(t.seq),
            Content::Same if !claimed(t, others) => by_content.push(t.seq),
            Content::Unknown if bound => unknown.0.push(t.seq),
            Content::Unknown if !claimed(t, others) => unknown.1.push(t.seq),
            Content::Different if bound && t.attempt.bound.is_some_and(|b| b.choices <= 1) => mapped.push(t.seq),
            _ => {}
        }
    }
    if !by_hint.is_empty() {
        return Joined { own: by_hint, ..Joined::default() };
    }
    // `of_process` goes from the newest: nearest to the error first.
    if !by_content.is_empty() {
        let own = vec![by_content.remove(0)];
        let doubt = (!by_content.is_empty()).then_some("several requests that look the same were under way");
        return Joined { own, rivals: by_content, doubt };
    }
    if !unknown.0.is_empty() {
        let doubt =
            (!unknown.1.is_empty()).then_some("several attempts failed at that time, and none shows its request");
        return Joined { own: unknown.0, rivals: unknown.1, doubt };
    }
    if !mapped.is_empty() {
        let doubt = Some("the request that went to the upstream looks different from the client's");
        return Joined { own: mapped, rivals: unknown.1, doubt };
    }
    if unknown.1.is_empty() {
        return Joined::default();
    }
    let own = vec![unknown.1.remove(0)];
    Joined { own, rivals: unknown.1, doubt: Some("which request this attempt served could only be told by its time") }
}

/// Another error that waits has the better right to it.
fn claimed(t: &Try, others: &Pendings) -> bool {
    let owner = t.key().and_then(|key| others.of_client(key));
    owner.is_some_and(|p| compare(&p.error.conn, &t.attempt) >= Content::Unknown)
}

/// When everything is there that can come; `Err` says when to look again.
pub fn complete(pending: &Pending, joined: &Joined, tries: &Tries, now: Nanos) -> Result<(), Nanos> {
    use super::pending::{HANDED_OVER, IN_CALL};
    let until = pending.until();
    if now >= until {
        return Ok(());
    }
    let last = joined.own.last().and_then(|seq| tries.get(*seq));
    let at = match (pending.owner.kind.closes, last) {
        (_, None) | (Closes::Either, _) => until,
        (Closes::BeforeWrite, Some(_)) => pending.at + HANDED_OVER,
        (Closes::AfterWrite, Some(t)) if t.at >= pending.at || t.attempt.handover == Handover::Asked => return Ok(()),
        (Closes::AfterWrite, Some(t)) if t.attempt.handover == Handover::Answered => pending.at + HANDED_OVER,
        (Closes::AfterWrite, Some(t)) if t.in_call => pending.at + IN_CALL,
        (Closes::AfterWrite, Some(_)) => until,
    };
    if now >= at { Ok(()) } else { Err(at) }
}
