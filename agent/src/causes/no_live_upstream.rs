//! `no_live_upstream`: all upstreams were marked down.

use std::collections::BTreeMap;

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::correlate::failures::{Failed, Route};
use crate::logs::Hint;
use crate::model::{ClientOutcome, Endpoint, Group, Nanos};
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "no_live_upstream",
    group: Group::None,
    scope: Scope::NoAttempt,
    absence: true,
    meaning: "The proxy did not even try: it had marked all its upstreams down after failures before.",
    proof: "No attempt for this request; the failures before it are told. Without the proxy's own word it is likely, \
              not certain.",
    remedy: "Mend the failures that marked them down; they are in the evidence.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(client) = case.client else { return Verdict::No };
    let ClientOutcome::Status(status) = client.outcome else { return Verdict::No };
    let kind = case.owner.kind;
    // What was lost may have been the attempt.
    if !kind.none_left.contains(&status) || case.lossy() || case.says_tried() {
        return Verdict::No;
    }
    let said = case.said() == Some(&Hint::NoLiveUpstream);
    // Failures of other routes are no reason: a `return 502` would be blamed on them.
    let route = Route::of(&client.conn.request_head);
    // What an upstream answered by itself marks it down only where that was asked for: the proxy must say so.
    let marks = |f: &Failed| said || f.checked || f.cause != super::upstream_error::CAUSE.id;
    let failures = || case.past.failures.of(case.owner.group, case.at).filter(|(_, f)| marks(f));
    let mut own: Vec<Down<'_>> = failures().filter(|(_, f)| f.made_fail(route.as_ref())).collect();
    own.sort_by_key(|(_, f)| std::cmp::Reverse(f.before(case.at)));
    let enough = if kind.gives_up_last { 1 } else { 2 };
    if own.len() >= enough || (said && !own.is_empty()) {
        return of_route(case, &own, said).yes();
    }
    let mut checked: Vec<Down<'_>> = failures().filter(|(_, f)| f.checked && (said || kind.gives_up_last)).collect();
    checked.sort_by_key(|(_, f)| std::cmp::Reverse(f.before(case.at)));
    // Failed checks of some upstream do not make this request's: the proxy must say so, or have no words for it.
    let told = said || case.says_none_left().unwrap_or(!checked.is_empty());
    if told { by_its_word(case, &checked, said).yes() } else { Verdict::No }
}

type Down<'a> = (&'a Endpoint, &'a Failed);

/// Requests like this one failed there a short while ago.
fn of_route(case: &Case<'_>, failed: &[Down<'_>], said: bool) -> Finding {
    let name = &case.owner.name;
    let [(endpoint, last), ..] = failed else { return by_its_word(case, failed, said) };
    let others = match failed.len() {
        1 => String::new(),
        2 => ", and one more of its upstreams".into(),
        n => format!(", and {} more of its upstreams", n - 1),
    };
    let place = endpoint.place();
    let times = if last.count == 1 { "once,".into() } else { format!("{} times, last", last.count) };
    Finding::new(format!(
        "{name} made no attempt: its upstream {place} had failed {times} {} ({}){others}",
        case.ago(last.before(case.at)),
        last.cause
    ))
    .notes(notes(case, failed))
    .fix(format!("mend {} at {place}", last.cause))
    .fixes(case.advise(Setting::FailureCount, "{} decide when it is tried again"))
    .proven_if(said, "the proxy's own word (its log) that no upstream was left")
}

/// It says that it had none left; which ones it had is not known.
fn by_its_word(case: &Case<'_>, checked: &[Down<'_>], said: bool) -> Finding {
    let name = &case.owner.name;
    let names = unresolved(case);
    let word = if said || case.says_none_left() == Some(true) { " by its own word" } else { "" };
    let now = match (checked.len(), names.len()) {
        (0, 0) => String::new(),
        (0, n) => format!("; of the names it asks for, {n} did not resolve"),
        (n, 0) => format!("; {} failed checks at that time", text::count(n as u64, "upstream")),
        (n, m) => format!("; {} failed checks at that time, and {m} names did not resolve", {
            text::count(n as u64, "upstream")
        }),
    };
    Finding::new(format!("{name} made no attempt:{word} no upstream of this request was usable{now}"))
        .notes(notes(case, checked))
        .notes(names.into_iter().map(|(at, name)| super::Note {
            at,
            kind: "dns_answer",
            text: format!("{} did not resolve", text::clipped(&name, 100)),
        }))
        .fix(format!("see which upstreams this request has and why they are down: {name}'s log and statistics say"))
        .fixes(case.advise(Setting::FailureCount, "{} decide when one is tried again"))
        // Its own word is the proof; whose checks failed may be another backend's.
        .proven_if(said && !checked.is_empty(), "which upstreams this request had, and what marked them down")
}

fn notes(case: &Case<'_>, failed: &[Down<'_>]) -> Vec<super::Note> {
    let note = |(endpoint, f): &Down<'_>| super::Note {
        at: f.before(case.at),
        kind: "earlier_failure",
        text: format!("{}: {} ({}x)", text::clipped(&endpoint.to_string(), 100), f.summary, f.count),
    };
    failed.iter().take(6).map(note).collect()
}

/// Names that the proxy asks for in the background and got no address for, at most five.
fn unresolved(case: &Case<'_>) -> Vec<(Nanos, String)> {
    if !case.owner.kind.resolves_ahead {
        return Vec::new();
    }
    let failing: BTreeMap<String, Nanos> = super::dns_failure::failing(case).collect();
    failing.into_iter().map(|(name, at)| (at, name)).take(5).collect()
}
