//! `dns_failure`: the name of the upstream did not resolve.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::correlate::names::Lookup;
use crate::logs::Hint;
use crate::model::{ClientOutcome, Group, Nanos};
use crate::proxies::Setting;
use crate::text::{self, MILLI, SECOND};
use crate::wire::dns;

/// How long a failed name may hold a proxy that resolves in the background.
const BACKGROUND: Nanos = 60 * SECOND;
/// Between an answer and the error that it leads to.
const AT_ONCE: Nanos = 50 * MILLI;
/// A question that is open for less may still be answered.
const PATIENCE: Nanos = 500 * MILLI;

pub static CAUSE: Cause = Cause {
    id: "dns_failure",
    group: Group::None,
    scope: Scope::NoAttempt,
    absence: true,
    meaning: "The proxy asked DNS for the name of its upstream and got no address.",
    proof: "The question and its answer (NXDOMAIN, SERVFAIL, ...) or its absence, in the time of the request, with \
              no attempt after it.",
    remedy: "Check the name and the resolver that the proxy uses.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let asked = case.client.and_then(|c| c.conn.asked);
    let since = asked.unwrap_or_else(|| case.at.saturating_sub(PATIENCE));
    let names = &case.past.names;
    let pid = case.owner.pid;
    let ahead = case.owner.kind.resolves_ahead;
    let during: Vec<&Lookup> =
        names.of(pid, since).filter(|l| failed(l, case.at)).filter(|l| l.at <= case.at).collect();
    // Where names are resolved in the background, one that failed meanwhile says no more than one that failed before.
    if let Some(last) = during.last().filter(|_| !ahead) {
        let one = during.iter().all(|l| l.name == last.name);
        let inside = asked.is_some_and(|asked| last.at >= asked || last.answer.is_some_and(|a| a.at >= asked));
        // Who waits for an answer fails as it comes; others of this proxy may wait at the same time.
        let at_once = last.answer.is_none_or(|a| case.at.saturating_sub(a.at) <= AT_ONCE);
        return found(case, last)
            .proven_if(one, "which of several names was this request's")
            .proven_if(inside, "that the question was asked for this request")
            .proven_if(at_once, "that the error followed the answer at once")
            .yes();
    }
    if let Some(Hint::Unresolved { name }) = case.said() {
        let name = text::clipped(name, 100);
        return Finding::new(format!("{} could not resolve {name}, says its log", case.owner.name))
            .fix(format!("check the name: `dig {name}`"))
            .fixes(case.advise(Setting::Resolver, "check {}"))
            .missing("the question to a DNS server and its answer")
            .yes();
    }
    let status = case.client.map(|c| c.outcome);
    let none_left = matches!(status, Some(ClientOutcome::Status(s)) if case.owner.kind.none_left.contains(&s));
    if !ahead || !none_left {
        return Verdict::No;
    }
    // One that was resolved since is no reason.
    let before: Vec<&Lookup> = names.of(pid, case.at.saturating_sub(BACKGROUND)).filter(|l| l.at <= case.at).collect();
    let resolved = |name: &str| before.iter().any(|l| l.name == name && l.answer.is_some_and(|a| a.records > 0));
    let failing = before.iter().rev().find(|l| failed(l, case.at) && !resolved(&l.name));
    match failing {
        Some(lookup) => {
            let mut names: Vec<&str> = before
                .iter()
                .filter(|l| failed(l, case.at) && l.name != lookup.name)
                .map(|l| l.name.as_str())
                .collect();
            names.sort_unstable();
            names.dedup();
            let others = names.iter().take(5).map(|name| super::Note {
                at: lookup.at,
                kind: "dns_answer",
                text: format!("{} does not resolve either", text::clipped(name, 100)),
            });
            let down = case.past.failures.of(case.owner.group, case.at).filter(|(_, failed)| failed.checked);
            let down = down.take(3).map(|(endpoint, failed)| super::Note {
                at: failed.before(case.at),
                kind: "earlier_failure",
                text: format!("or it was to go to {}: {}", text::clipped(&endpoint.to_string(), 100), failed.summary),
            });
            found(case, lookup).notes(others).notes(down).missing("that this request needed that name").yes()
        }
        None => Verdict::No,
    }
}

fn failed(lookup: &Lookup, at: Nanos) -> bool {
    match lookup.answer {
        Some(answer) => answer.rcode != 0 && answer.at <= at,
        None => at.saturating_sub(lookup.at) >= PATIENCE,
    }
}

fn found(case: &Case<'_>, lookup: &Lookup) -> Finding {
    let name = text::clipped(&lookup.name, 100);
    let (kind, server) = (&lookup.kind, lookup.server);
    let outcome = match lookup.answer {
        Some(answer) => format!("{} from {server}", dns::rcode(answer.rcode)),
        None => format!("no answer from {server}"),
    };
    let end = lookup.answer.map_or(case.at, |a| a.at);
    Finding::new(format!("{} could not resolve {name}: {outcome}", case.owner.name))
        .note(lookup.at, "dns_query", format!("{} asked {server} for {name} ({kind})", case.owner.name))
        .note(end, "dns_answer", outcome)
        .fix(format!("check the name: `dig {name} @{}`", server.ip()))
        .fixes(case.advise(Setting::Resolver, "check {}"))
}
