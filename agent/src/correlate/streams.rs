//! The join of streams of HTTP/2. Those of a connection are read several at once: some proxies serve them in that order,
//! of others content alone says whose an attempt is.

use super::content::{Content, compare};
use super::failures::Failures;
use super::hint::hinted;
use super::join::{Joined, within};
use super::pending::{Pending, Pendings};
use super::tries::{Tries, Try};
use crate::model::{ClientOutcome, Handover};
use crate::proxies::{Birth, Closes};

/// Streams whose order their proxy does not keep: without content, which is which is chance. Envoy begins connections in
/// that order, and writes to those that it has only when it comes round again.
pub fn moved(pending: &Pending) -> bool {
    let kind = pending.owner.kind;
    let shuffled =
        kind.streams_move || kind.closes == Closes::AfterWrite || kind.birth == Birth::Hint || kind.pool.is_some();
    pending.error.conn.stream && shuffled
}

/// Served in the order in which they were read, save those that need no upstream: where there was a choice, content must
/// confirm it. Where the order is not kept, content comes first.
pub fn in_turn(pending: &Pending, tries: &Tries, others: &Pendings, failures: &Failures) -> Joined {
    if moved(pending) {
        let meant = hinted(pending, tries, others, failures);
        let sent =
            |seq: &u64| tries.get(*seq).is_some_and(|t| compare(&pending.error.conn, &t.attempt) >= Content::Same);
        if meant.own.iter().any(sent) {
            return meant;
        }
    }
    let mut joined = Joined::default();
    for t in tries.of_client(pending.key()).filter(|t| !t.used) {
        match compare(&pending.error.conn, &t.attempt) {
            Content::Different if !rewritten(pending, t) => {}
            Content::Different => {
                joined.own.push(t.seq);
                joined.doubt = Some("the request that went to the upstream looks different from the client's");
            }
            _ => joined.own.push(t.seq),
        }
    }
    if joined.own.is_empty() { hinted(pending, tries, others, failures) } else { joined }
}

/// Whether a request that looks different may be this one all the same, as a proxy that rewrites it sends it: there
/// was no other to serve, and what came of it is what the client got.
pub fn rewritten(pending: &Pending, t: &Try) -> bool {
    let alone = t.attempt.bound.is_none_or(|b| b.choices <= 1 && !b.retry);
    let passed_on = match (t.attempt.handover, pending.error.outcome, t.attempt.conn.status) {
        (Handover::Answered, ClientOutcome::Status(got), Some(said)) => got == said,
        _ => true,
    };
    alone && passed_on
}

/// Where nothing was sent to an upstream, only their order tells the streams of a connection apart.
pub fn doubt(joined: &mut Joined, pending: &Pending, tries: &Tries) {
    let own: Vec<&Try> = joined.own.iter().filter_map(|seq| tries.get(*seq)).collect();
    let unknown = |t: &Try| compare(&pending.error.conn, &t.attempt) == Content::Unknown;
    let alone = |t: &&Try| t.attempt.bound.is_some_and(|b| b.choices <= 1 || b.retry);
    if own.is_empty() || own.iter().any(|t| !unknown(t)) || own.iter().all(alone) {
        return;
    }
    let client = pending.error.conn.cookie;
    let other = |t: &&Try| t.attempt.bound.is_none_or(|b| b.client == client && b.request != pending.key().1);
    let near = tries.of_process(pending.pid).filter(other).filter(|t| within(t, pending) && unknown(t));
    joined.rivals = near.map(|t| t.seq).filter(|seq| !joined.own.contains(seq)).collect();
    if !joined.rivals.is_empty() {
        joined.doubt = Some("several requests were read at once, and nothing was sent to the upstream");
    }
}
