//! `upstream_starting`: the upstream was started again and does not listen yet.

use super::death;
use super::{Case, Cause, Finding, Scope, Verdict};
use crate::host::{ProcessFacts, alike, same_service};
use crate::model::{Group, Nanos};
use crate::text::MILLI;

pub static CAUSE: Cause = Cause {
    id: "upstream_starting",
    group: Group::Process,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The upstream was restarted: a new process of the same service is alive and does not listen yet.",
    proof: "A process of the same unit, container or program as the last listener is alive, younger than the loss of \
              the listener, and not listening.",
    remedy: "Wait, or restart without a gap: socket activation, a second instance, or a readiness check before the \
              old one stops.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(lost) = death::lost_listener(case) else { return Verdict::No };
    let closed = lost.closed.unwrap_or(case.at);
    let Some((pid, started)) = successor(case, lost.pid, closed) else { return Verdict::No };
    let meant = meant(case, lost.pid, pid);
    // A helper of the same unit or container is not the next one: the end of the last one says more, where it was seen.
    if !meant && !matches!(death::of(case), death::Search::None) {
        return Verdict::No;
    }
    let who = case.who(pid);
    let before = case.who(lost.pid);
    let service = case.service(pid);
    Finding::new(format!(
        "{who} was started {} and does not listen on {} yet; {before} stopped listening {}",
        case.ago(started),
        case.place(),
        case.ago(closed)
    ))
    .note(closed, "listener_closed", format!("{before} stopped listening on {}", case.place()))
    .note(started, "started", format!("{who} started"))
    .fix(format!("wait for {service} to listen; restart it without a gap (socket activation, a second instance)"))
    .proven_if(meant, "that it is to listen there: it is another program of the same service")
    .of_process(Some(pid))
    .yes()
}

/// Whether the younger process is what the last one was. A unit or container runs helpers, too: of a stop, of a health
/// check, of somebody who looks around in it.
fn meant(case: &Case<'_>, last: u32, next: u32) -> bool {
    let history = &case.past.history;
    let named = history.comm_of(last).is_some_and(|name| history.comm_of(next) == Some(name));
    match (case.process(last), case.process(next)) {
        (Some(last), Some(next)) => alike(&last, &next),
        _ => named,
    }
}

/// /proc tells the start of a process in hundredths of a second, rounded down.
const TICK: Nanos = 20 * MILLI;

/// A living process of the same service that is younger than the loss and listens nowhere.
fn successor(case: &Case<'_>, last: u32, closed: Nanos) -> Option<(u32, Nanos)> {
    let listeners = case.listeners();
    let listens = |pid: u32| listeners.iter().any(|l| l.pid == Some(pid));
    let last_facts = case.process(last);
    let from = closed.saturating_sub(TICK);
    let young =
        |p: &ProcessFacts| p.alive && p.pid != last && p.started >= from && p.started <= case.at && !listens(p.pid);
    let kin = |pid: u32| {
        case.process(pid)
            .zip(last_facts.as_ref())
            .is_some_and(|(p, last)| p.alive && p.pid != last.pid && same_service(last, &p))
    };
    // Seen as it started: nobody need be searched for. A supervisor may take its time before it starts the next.
    let name = case.past.history.comm_of(last).unwrap_or_default();
    let seen = case.past.history.executed(name, closed, case.at);
    if let Some(found) = seen.into_iter().find(|(pid, _)| !listens(*pid) && kin(*pid)) {
        return Some(found);
    }
    let known = last_facts.as_ref().and_then(|last| {
        let found = case.siblings(last).into_iter().filter(|p| young(p) && same_service(last, p));
        // Its main process, not a helper of it.
        found.min_by_key(|p| (!alike(last, p), p.started, p.pid)).map(|p| (p.pid, p.started))
    });
    let before = || {
        let pid = case.endpoint().and_then(|e| case.past.successor(e))?;
        case.process(pid).filter(|p| young(p)).map(|p| (p.pid, p.started))
    };
    known.or_else(before).or_else(|| {
        let history = &case.past.history;
        let dead = history.death_of(last)?;
        let parent = dead.life.parent.filter(|parent| *parent > 1)?;
        history.child_born(parent, &dead.life.comm, closed, case.at).filter(|(pid, _)| !listens(*pid))
    })
}
