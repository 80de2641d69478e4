//! The join for a proxy whose requests wait for any connection to their upstream: Envoy.
//!
//! One that does not come about fails all that wait for it. The connections that were begun for those go on, and the
//! next request waits for them instead of beginning another. So a request may fail with a connection that was begun
//! for somebody else, and have none of its own; and which of several is ready first may be given to whoever waited
//! longest.

use super::content::{Content, compare};
use super::failures::{Failures, Route};
use super::join::{Joined, claimed, exact, within};
use super::pending::{Pending, Pendings};
use super::tries::{End, Tries, Try};
use crate::model::{ClientOutcome, Connection, Nanos, Phase};
use crate::proxies::{Pool, Proxy};
use crate::text::MILLI;

/// What failed in the call is told to the requests that wait for it when the thread comes round again.
const ROUND: Nanos = 100 * MILLI;
const SHARED: &str = "it shared one that was begun for another request like it";

pub fn of_pool(pending: &Pending, tries: &Tries, others: &Pendings, failures: &Failures) -> Joined {
    let joined = exact(pending, tries);
    let last = joined.own.last().and_then(|seq| tries.get(*seq));
    if last.is_some_and(|t| compare(&pending.error.conn, &t.attempt) != Content::Different) {
        return joined;
    }
    let swapped = swapped(pending, tries, others);
    if !swapped.is_empty() {
        return Joined { own: swapped, ..Joined::default() };
    }
    match last {
        Some(_) => joined,
        None => shared(pending, tries, failures),
    }
}

/// What was begun for another request, and then carried this one.
fn swapped(pending: &Pending, tries: &Tries, others: &Pendings) -> Vec<u64> {
    let key = Some(pending.key());
    let same = |t: &&Try| compare(&pending.error.conn, &t.attempt) >= Content::Same;
    let here = tries.of_process(pending.pid).filter(|t| t.tid == pending.tid && !t.used && within(t, pending));
    here.filter(same).filter(|t| t.key() == key || !claimed(t, others)).map(|t| t.seq).collect()
}

/// What did not come about while this request waited, on an upstream where requests like it fail.
fn shared(pending: &Pending, tries: &Tries, failures: &Failures) -> Joined {
    let (kind, conn) = (pending.owner.kind, &pending.error.conn);
    let (Some(pool), Some(asked)) = (&kind.pool, conn.asked) else { return Joined::default() };
    let none_left = matches!(pending.error.outcome, ClientOutcome::Status(s) if kind.none_left.contains(&s));
    if !none_left || !may_be_unconnected(conn, kind, pool) {
        return Joined::default();
    }
    let route = Route::of(&conn.request_head);
    let meant = |t: &&Try| {
        let since = if t.in_call { asked.saturating_sub(ROUND) } else { asked };
        let waited_for = t.at >= since && t.at <= pending.at;
        let unconnected = t.attempt.conn.phase == Phase::Connecting && t.end != End::Well && !t.attempt.conn.check;
        t.tid == pending.tid
            && waited_for
            && unconnected
            && failures.made_fail(t.owner.group, &t.attempt.endpoint, &route)
    };
    let found: Vec<&Try> = tries.of_process(pending.pid).filter(meant).collect();
    let Some(last) = found.first() else { return Joined::default() };
    let agree = found.iter().all(|t| t.attempt.endpoint == last.attempt.endpoint && t.cause() == last.cause());
    Joined { own: vec![last.seq], doubt: Some(SHARED), open: !agree, shared: true, ..Joined::default() }
}

/// Whether its own answer leaves room for a connection that did not come about.
fn may_be_unconnected(conn: &Connection, kind: &Proxy, pool: &Pool) -> bool {
    let said = |words: &str| conn.says(words) == Some(true);
    match conn.says(pool.tried) {
        Some(true) => pool.unconnected.iter().any(|words| said(words)),
        Some(false) => false,
        None => !kind.none_word.into_iter().chain(kind.limit_word).any(said),
    }
}
