//! `proxy_limit`: the proxy reached a limit of its own.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::correlate::Counted;
use crate::logs::Hint;
use crate::model::{ClientOutcome, Group, Nanos};
use crate::proxies::Setting;
use crate::text::{self, MILLI};
use crate::wire::http;

/// No proxy takes that long to see that it has no upstream.
const QUEUED: Nanos = 150 * MILLI;

pub static CAUSE: Cause = Cause {
    id: "proxy_limit",
    group: Group::None,
    scope: Scope::Both,
    absence: false,
    meaning: "The proxy ran out of file descriptors, memory or connections itself, or a limit in its configuration \
              (requests a second, connections) refused the request.",
    proof: "EMFILE, ENFILE, ENOBUFS or ENOMEM at its call, or its open descriptors at their limit when it failed the \
              request without an attempt; or its own word, in its log or its answer.",
    remedy: "Raise the limit of the proxy, and find what holds its descriptors or connections.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let name = &case.owner.name;
    let advice = case.advise(Setting::Limit, "raise {}");
    if case.attempt.is_some() {
        if !case.connecting() || !case.failed_with(&[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM]) {
            return Verdict::No;
        }
        let errno = text::errno(case.errno().unwrap_or(libc::EMFILE));
        return Finding::new(format!("{name} reached a limit of its own on the way to {}: {errno}", case.place()))
            .fixes(advice)
            .yes();
    }
    let Some(counted) = case.descriptors(case.owner.pid).filter(Counted::full) else { return queued(case) };
    let fds = counted.facts;
    Finding::new(format!("{name} (pid {}) has {} of {} descriptors open", case.owner.pid, fds.open, fds.limit))
        .note(case.at, "descriptors", format!("{} of {} descriptors open", fds.open, fds.limit))
        .fixes(advice)
        .fix(format!("see what holds them: ls -l /proc/{}/fd", case.owner.pid))
        .proven_if(counted.within, "their number at that very moment: it is from just before the request")
        .yes()
}

/// A rule of the proxy's own configuration, as its log says.
fn refused(case: &Case<'_>, rate: bool) -> Verdict {
    let name = &case.owner.name;
    let (what, directive) = match rate {
        true => ("requests come faster than its rule allows", "limit_req (rate, burst) and limit_req_status"),
        false => ("there are more connections than its rule allows", "limit_conn and limit_conn_status"),
    };
    Finding::new(format!("{name} refused the request by a rule of its own: {what}, says its log"))
        .fix(format!("{name}: see {directive}; no upstream had a part in it"))
        .yes()
}

/// What is refused for want of an upstream is refused at once. A request that waited for one and then got the error
/// without an attempt stood in the proxy's own queue.
fn queued(case: &Case<'_>) -> Verdict {
    let said = match case.said() {
        Some(Hint::Refused { rate }) => return refused(case, *rate),
        Some(Hint::QueueTimeout) => Some("the request waited in its queue for a free connection until it gave up"),
        Some(Hint::ProxyLimit) => Some("it reached a limit of its own"),
        // It says why itself, and that is no limit.
        Some(_) => return Verdict::No,
        None => None,
    };
    if let Some(said) = said {
        return Finding::new(format!("{} never tried an upstream: {said}, says its log", case.owner.name))
            .fixes(case.advise(Setting::Limit, "raise {}"))
            .fix("or find what keeps the connections that are allowed busy")
            .missing("the limit itself")
            .yes();
    }
    let Some(client) = case.client else { return Verdict::No };
    let answer = &client.conn.reply_head;
    let own = case.owner.kind.limit_word.filter(|w| answer.windows(w.len()).any(|bytes| bytes == w.as_bytes()));
    if let Some(word) = own {
        let name = &case.owner.name;
        return Finding::new(format!("{name} never tried an upstream: it had as many requests under way as it may"))
            .note(case.at, "own_answer", format!("{name} answered by itself: {word}"))
            .fixes(case.advise(Setting::Limit, "raise {}"))
            .fix("or find what keeps the connections that are allowed busy")
            .yes();
    }
    let ClientOutcome::Status(status) = client.outcome else { return Verdict::No };
    let waited = client.conn.asked.map_or(0, |asked| case.at.saturating_sub(asked));
    // A body may have taken that long to come.
    let small = http::request(&client.conn.request_head).is_some_and(|r| matches!(r.method.as_str(), "GET" | "HEAD"));
    let ahead = case.owner.kind.resolves_ahead;
    let resolving = !ahead && case.past.names.of(case.owner.pid, case.began()).next().is_some();
    // One that answers 502 (nginx) has no queue: what it held the request for was an upstream that is not seen, or was
    // one of HTTP/2 that answered so itself.
    let queues = case.owner.kind.none_left.contains(&status) && status != 502;
    if waited < QUEUED || !small || resolving || case.lossy() || !queues {
        return Verdict::No;
    }
    let name = &case.owner.name;
    let waited = text::duration(waited);
    Finding::new(format!("{name} held the request for {waited} and never tried an upstream: it waited for room"))
        .fixes(case.advise(Setting::Limit, "raise {}"))
        .fix("or find what keeps the connections that are allowed busy")
        .missing("the limit itself")
        .yes()
}
