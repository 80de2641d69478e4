//! `upstream_closed_early`: the upstream closed without an answer.

use super::upstream_reset::{ELSEWHERE, GREETED};
use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::text;
use crate::wire::Looks;
use crate::wire::h2::Refusal;

pub static CAUSE: Cause = Cause {
    id: "upstream_closed_early",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: true,
    meaning: "The upstream closed the connection in good order before the first byte of an answer, and its process \
              lives.",
    proof: "An orderly close before the first byte of the answer, by a process that lives on.",
    remedy: "Look at the log of the upstream for that request: a worker timeout, an unhandled error, a limit on \
              requests.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(conn) = case.conn() else { return Verdict::No };
    let tls = case.sent() == Looks::Tls && case.answered() == Looks::Tls && !case.no_answer();
    let greeted = case.only_greeted();
    let who = case.server_name();
    let whose = if who == "the upstream" { case.place() } else { who };
    if let Some(Refusal::Connection(error)) = case.refusal().filter(|_| case.broken() || case.gave_up()) {
        return Finding::new(format!("{whose} ended the connection instead of an answer: GOAWAY {error}"))
            .note(case.at, "goaway", format!("it said GOAWAY {error} and nothing of the request"))
            .fix(format!("look at the log of {whose} for this request: a shutdown, a limit of its own, or a fault"))
            .yes();
    }
    if !case.was_closed() || !(case.no_answer() || tls || greeted.is_some()) {
        return Verdict::No;
    }
    let closed = case.peer().and_then(|p| p.closed).or(conn.fin).unwrap_or(case.at);
    let when = match conn.asked {
        Some(asked) if asked <= closed => format!("{} after the request", text::duration(closed - asked)),
        Some(_) => "before the request reached it".into(),
        None => "before a request".into(),
    };
    let hello = case.sent() == Looks::Tls && case.answered() == Looks::Nothing;
    let hint = if hello { "; the request was a TLS hello: it may not speak TLS" } else { "" };
    let log = case.server().map_or_else(|| case.place(), |pid| case.service(pid));
    // One that could not be watched may have died.
    let alive = case.server().is_some_and(|pid| case.process(pid).is_some_and(|p| p.alive));
    Finding::new(format!("{whose} closed the connection without an answer, {when}{hint}"))
        .fix(format!("look at the log of {log} for this request: worker timeout, unhandled error, request limit"))
        .proven_if(greeted != Some(false), GREETED)
        .proven_if(!tls, "what the TLS connection carried")
        .proven_if(alive, if case.is_local() { "which process closed it, and that it lives" } else { ELSEWHERE })
        .behind(case)
        .yes()
}
