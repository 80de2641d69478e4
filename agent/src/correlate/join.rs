//! Which attempts belong to an error of a client. The answer is a set.
//!
//! Bound at birth, confirmed by order, verified by content. Where the binding is measured exact it rules; where
//! goroutines move between threads it is a hint, and content rules. What cannot be told apart stays in the set.

use super::content::{Content, compare};
use super::failures::Failures;
use super::hint::hinted;
use super::late;
use super::lines;
use super::pending::{Pending, Pendings};
use super::pool;
use super::streams;
use super::tries::{End, State, Tries, Try};
use super::turns;
use crate::logs::{Format, LogError};
use crate::model::{Handover, Nanos, Phase, Seen};
use crate::proxies::Closes;
use crate::text::{MILLI, SECOND};

/// An attempt may seem to begin this much before its request: clocks are read on two CPUs.
const SLACK: Nanos = MILLI;
/// A line of a log is written this soon after what it tells.
const SAID: Nanos = 500 * MILLI;
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
    /// Nothing but chance would tell which attempt it is.
    pub open: bool,
    /// They were begun for other requests.
    pub shared: bool,
    /// Nothing but their time speaks for them.
    pub chance: bool,
}

impl Joined {
    /// Between two tries of a request the thread may check the health of upstreams, which looks like another try.
    pub fn drop_checks(&mut self, tries: &Tries, failures: &Failures) {
        let endpoint = |seq: &u64| tries.get(*seq).map(|t| t.attempt.endpoint.clone());
        let ends = [self.own.first().and_then(endpoint), self.own.last().and_then(endpoint)];
        self.own.retain(|seq| {
            tries.get(*seq).is_some_and(|t| {
                let retry = t.attempt.bound.is_some_and(|b| b.retry) && t.attempt.conn.phase == Phase::Connecting;
                !retry
                    || ends.contains(&Some(t.attempt.endpoint.clone()))
                    || !failures.checks(t.owner.group, &t.attempt.endpoint)
            })
        });
    }
}

pub fn join(pending: &Pending, tries: &Tries, others: &Pendings, failures: &Failures) -> Joined {
    let turns = pending.error.conn.stream && pending.owner.kind.pool.is_some() && !pending.logged;
    let mut joined = if turns {
        turns::of_turn(pending, tries, others, failures)
    } else {
        of_others(pending, tries, others, failures)
    };
    joined.own.sort_by_key(|seq| tries.get(*seq).map(|t| (t.began(), t.seq)));
    let moved = streams::moved(pending);
    joined.open |= moved && joined.own.is_empty();
    if joined.doubt.is_some() && !joined.rivals.is_empty() {
        if agree(&joined, tries) {
            joined.doubt = None;
        } else {
            joined.open = moved || joined.chance;
        }
    }
    if pending.error.conn.found && !passed_on(&joined, pending, tries) {
        joined.doubt.get_or_insert(FOUND);
    }
    joined
}

fn of_others(pending: &Pending, tries: &Tries, others: &Pendings, failures: &Failures) -> Joined {
    let late = pending.owner.kind.closes == Closes::AfterWrite;
    let stream = pending.error.conn.stream;
    let proven = if late && !pending.logged && !stream { late::proven(pending, tries) } else { None };
    let mut joined = match (proven, pending.owner.kind.retries_later, pending.exact()) {
        _ if pending.logged => logged(pending, tries),
        (Some(proven), _, _) => proven,
        (None, _, true) if stream => streams::in_turn(pending, tries, others, failures),
        (None, true, _) => late::guessed(pending, tries, others),
        (None, false, true) if pending.owner.kind.pool.is_some() => pool::of_pool(pending, tries, others, failures),
        (None, false, true) => exact(pending, tries),
        (None, false, false) => hinted(pending, tries, others, failures),
    };
    if stream && pending.exact() && !pending.logged {
        streams::doubt(&mut joined, pending, tries);
        if streams::moved(pending) && !joined.rivals.is_empty() && !agree(&joined, tries) {
            joined = hinted(pending, tries, others, failures);
        }
    }
    joined
}

/// An application that needs another service does what a proxy does: only a request that was passed on tells them apart.
const FOUND: &str = "it is known as a proxy only by what it does, and did not pass the request on";

fn passed_on(joined: &Joined, pending: &Pending, tries: &Tries) -> bool {
    let last = joined.own.last().and_then(|seq| tries.get(*seq));
    last.is_some_and(|t| compare(&pending.error.conn, &t.attempt) >= Content::Same)
}

/// Whether all that could be meant failed the same way: the cause is certain although the owner is not.
fn agree(joined: &Joined, tries: &Tries) -> bool {
    let mut kinds = joined.own.last().into_iter().chain(&joined.rivals).map(|seq| {
        let t = tries.get(*seq)?;
        match &t.state {
            State::Judged(Some((cause, _))) => Some((cause.id, &t.attempt.endpoint)),
            _ => None,
        }
    });
    let Some(Some(first)) = kinds.next() else { return false };
    kinds.all(|kind| kind == Some(first))
}

/// The attempts that a line of the log means: by process, upstream and time, and by what else the log says.
fn logged(pending: &Pending, tries: &Tries) -> Joined {
    let mut joined = Joined::default();
    let Some(line) = &pending.line else { return joined };
    let since = pending.at.saturating_sub(line.coarse_micros.saturating_mul(1_000)).saturating_sub(SAID);
    let meant = |t: &&Try| {
        !t.used && t.at >= since && t.at <= pending.at.saturating_add(SAID) && t.end != End::Well && is_meant(t, line)
    };
    let mut found = tries.of_process(pending.pid).filter(meant);
    // From the newest: the line is written when the attempt has failed.
    joined.own.extend(found.next().map(|t| t.seq));
    joined.rivals.extend(found.map(|t| t.seq));
    if !joined.rivals.is_empty() && line.upstream_local_port.is_none() && line.format != Format::Apache {
        joined.doubt = Some("its log names the upstream and the second, and several attempts on it failed then");
    }
    joined
}

fn is_meant(t: &Try, line: &LogError) -> bool {
    let there = lines::names(line, &t.attempt.endpoint);
    let port = |own: u16| t.attempt.conn.flow.is_some_and(|flow| flow.local.port() == own);
    let thread = line.format != Format::Apache || line.tid.is_none_or(|tid| tid == t.tid);
    there && thread && line.upstream_local_port.is_none_or(port)
}

pub(super) fn exact(pending: &Pending, tries: &Tries) -> Joined {
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
pub(super) fn unbound(pending: &Pending, tries: &Tries) -> Joined {
    let mut joined = Joined::default();
    let candidates = tries.unbound(pending.pid, pending.tid);
    let mut unsure = Vec::new();
    for t in candidates.filter(|t| eligible(t, pending)) {
        match compare(&pending.error.conn, &t.attempt) {
            Content::Same | Content::Identical => joined.own.push(t.seq),
            // One that looked well and shows nothing is a stranger's.
            Content::Unknown if t.end != End::Well && pending.asked().is_some() && adjacent(t, pending) => {
                unsure.push(t.seq);
            }
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

/// It lies within the time of the request, and nobody has it.
pub(super) fn eligible(t: &Try, pending: &Pending) -> bool {
    !t.used && within(t, pending)
}

/// It lies within the time of the request.
pub(super) fn within(t: &Try, pending: &Pending) -> bool {
    let from = match pending.asked() {
        Some(asked) => asked.saturating_sub(SLACK),
        None => pending.at.saturating_sub(BLIND),
    };
    // What looked well is handed over after the error, whenever it ended.
    let to = match pending.owner.kind.closes {
        Closes::BeforeWrite if t.attempt.handover != Handover::Asked => pending.at,
        _ => pending.until(),
    };
    t.began() >= from && t.began() <= pending.at && t.at <= to
}

/// Another error that waits has the better right to it.
pub(super) fn claimed(t: &Try, others: &Pendings) -> bool {
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
    if pending.seen == Seen::Inferred {
        return Err(until);
    }
    let last = joined.own.last().and_then(|seq| tries.get(*seq));
    let at = match (pending.owner.kind.closes, last) {
        (_, None) | (Closes::Either, _) => until,
        // Its own may still end.
        _ if joined.shared => until,
        (Closes::BeforeWrite, Some(_)) => pending.at + HANDED_OVER,
        (Closes::AfterWrite, Some(t)) if t.at >= pending.at || late::told_whole(t) => return Ok(()),
        (Closes::AfterWrite, Some(t)) if t.attempt.handover == Handover::Answered => pending.at + HANDED_OVER,
        (Closes::AfterWrite, Some(t)) if t.in_call => pending.at + IN_CALL,
        (Closes::AfterWrite, Some(_)) => until,
    };
    if now >= at { Ok(()) } else { Err(at) }
}
