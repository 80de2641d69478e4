//! `accept_queue_full`: the listener has no room for another connection.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "accept_queue_full",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The accept queue of the listener (or the backlog of a unix socket) is full: the application accepts too \
              slowly or not at all.",
    proof: "The queue at its limit at that moment, or the listen-overflow drop of that flow; EAGAIN on a unix \
              connect.",
    remedy: "Add workers, find why they are busy or stuck, or raise the backlog (and net.core.somaxconn) if bursts \
              are short.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let unix = case.is_unix() && case.connecting() && case.failed_with(&[libc::EAGAIN]);
    let overflow = case.drops().into_iter().find(|(_, p)| {
        p.reason.as_deref().is_some_and(|r| r.contains("LISTEN_OVERFLOW") || r.contains("LISTENOVERFLOW"))
    });
    let listener = case.listener();
    let full = listener.as_ref().is_some_and(|l| l.full());
    // Once its own end exists it had room.
    let outside = case.peer().is_none() && (case.unanswered() || case.refused() || case.gave_up());
    let tcp = !case.is_unix() && outside && (overflow.is_some() || full);
    if !unix && !tcp {
        return Verdict::No;
    }
    let owner = listener.as_ref().and_then(|l| l.pid);
    let who = owner.map_or_else(|| case.place(), |pid| format!("{} on {}", case.who(pid), case.place()));
    let figures = listener.as_ref().filter(|l| l.then && l.full());
    let queue = figures.map_or_else(String::new, |l| format!(": {} waiting, room for {}", l.queue, l.limit));
    let state = owner.and_then(|pid| super::response_timeout::state(case, pid));
    let doing = state.as_ref().map_or_else(String::new, |s| format!("; it is {s}"));
    let finding = Finding::new(format!("the accept queue of {who} is full{queue}{doing}"));
    let finding = match overflow {
        Some((at, packet)) => finding.note(
            at,
            "drop",
            format!(
                "the kernel dropped a connection request: {}",
                text::safe(packet.reason.as_deref().unwrap_or("full"))
            ),
        ),
        None => finding,
    };
    let shared = overflow.is_none() && listener.as_ref().is_some_and(|l| l.shared);
    let proven = unix || overflow.is_some() || listener.is_some_and(|l| l.exact);
    let service = owner.map_or_else(|| "the upstream".into(), |pid| case.service(pid));
    finding
        .fix(format!("{service} accepts too slowly: add workers, or find why they are busy"))
        .fixes(case.workers_of(owner))
        .fix("raise its backlog and net.core.somaxconn if it is only bursts")
        .unless_frozen(case, owner)
        .proven_if(!shared, "which of those that share the address it was meant for: others have room")
        .proven_if(proven, "the length of the queue at that moment")
        .of_process(owner)
        .yes()
}
