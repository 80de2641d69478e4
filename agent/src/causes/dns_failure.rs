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
    // Who waits for an answer fails as it comes; others of this proxy may ask at the same time.
    let fits = |l: &Lookup| match l.answer {
        Some(answer) if case.at.saturating_sub(answer.at) <= AT_ONCE => 2,
        None => 1,
        Some(_) => 0,
    };
    if let Some(last) = during.iter().max_by_key(|l| fits(l)).filter(|_| !ahead) {
        let one = during.iter().all(|l| l.name == last.name);
        let inside = asked.is_some_and(|asked| last.at >= asked || last.answer.is_some_and(|a| a.at >= asked));
        let at_once = last.answer.is_none_or(|a| case.at.saturating_sub(a.at) <= AT_ONCE);
        return found(case, last)
            .proven_if(one, "which of several names was this request's")
            .proven_if(inside, "that the question was asked for this request")
            .proven_if(at_once, "that the error followed the answer at once")
            .yes();
    }
    if let Some(Hint::NoResolver { name }) = case.said() {
        let name = text::clipped(name, 100);
        let proxy = &case.owner.name;
        return Finding::new(format!("{proxy} knows no DNS server to ask for {name}, says its log"))
            .fixes(case.advise(Setting::Resolver, "set {}: a name that is put together at run time needs it"))
            .fix(format!("or write the name as it is, so that {proxy} resolves it when it starts"))
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
    // Its own words may say something else, and upstreams that fail their checks are as good a reason.
    let others = case.past.failures.of(case.owner.group, case.at).any(|(_, failed)| failed.checked);
    if !ahead || !none_left || others || case.says_none_left() == Some(false) {
        return Verdict::No;
    }
    let lookups = unresolved(case);
    let Some(last) = lookups.last() else { return Verdict::No };
    let mut others: Vec<&str> = lookups.iter().map(|l| l.name.as_str()).filter(|name| *name != last.name).collect();
    others.sort_unstable();
    others.dedup();
    let others = others.iter().take(5).map(|name| super::Note {
        at: last.at,
        kind: "dns_answer",
        text: format!("{} does not resolve either", text::clipped(name, 100)),
    });
    found(case, last).notes(others).missing("that this request needed that name").yes()
}

/// Look-ups of the last minute that failed. One that was resolved since is no reason.
fn unresolved<'a>(case: &Case<'a>) -> Vec<&'a Lookup> {
    let since = case.at.saturating_sub(BACKGROUND);
    let before: Vec<&Lookup> = case.past.names.of(case.owner.pid, since).filter(|l| l.at <= case.at).collect();
    let resolved = |name: &str| before.iter().any(|l| l.name == name && l.answer.is_some_and(|a| a.records > 0));
    before.iter().filter(|l| failed(l, case.at) && !resolved(&l.name)).copied().collect()
}

/// Names that the proxy asks for in the background and got no address for, and when it asked last.
pub fn failing(case: &Case<'_>) -> impl Iterator<Item = (String, Nanos)> {
    unresolved(case).into_iter().map(|lookup| (lookup.name.clone(), lookup.at))
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
