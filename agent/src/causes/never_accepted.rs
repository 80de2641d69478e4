//! `never_accepted`: the application never accepted the connection.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "never_accepted",
    group: Group::Wait,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The kernel completed the handshake, but the application never accepted the connection.",
    proof: "The connection still in the accept queue when the proxy gave up.",
    remedy: "All workers are busy or stuck, or the accept loop has stopped: look at what the process is doing.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    if !case.gave_up() || !case.no_answer() {
        return Verdict::No;
    }
    let listener = case.listener();
    let waiting = listener.as_ref().filter(|l| l.then && l.queue > 0);
    let proven = case.peer().is_some_and(|p| !p.accepted && p.closed_by.is_none());
    // Where its own end could not be seen, a queue that is not empty makes it likely.
    let likely = case.peer().is_none() && case.is_unix() && waiting.is_some();
    if !proven && !likely {
        return Verdict::No;
    }
    let owner = listener.as_ref().and_then(|l| l.pid);
    let who = owner.map_or_else(|| case.place(), |pid| case.who(pid));
    let queue = waiting.map_or_else(String::new, |l| format!(" ({} waiting, room for {})", l.queue, l.limit));
    let state = owner.and_then(|pid| super::response_timeout::state(case, pid));
    let doing = state.as_ref().map_or_else(String::new, |s| format!("; it is {s}"));
    let service = owner.map_or_else(|| "the upstream".into(), |pid| case.service(pid));
    let waited = text::duration(case.waited());
    let limit = if case.mute_to_tls() { Setting::HandshakeTimeout } else { Setting::ResponseTimeout };
    Finding::new(format!(
        "{who} never accepted the connection{queue}; {} gave up after {waited}{doing}",
        case.owner.name
    ))
    .fix(format!(
        "{service}: all workers busy or stuck, or its accept loop stopped; add workers or look at a stack dump"
    ))
    .fixes(case.workers_of(owner))
    .fixes(case.advise(limit, "{} decides how long it waits"))
    .unless_frozen(case, owner)
    .proven_if(proven, "that this connection was one of those waiting")
    .of_process(owner)
    .yes()
}
