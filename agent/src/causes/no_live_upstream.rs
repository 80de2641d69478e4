//! `no_live_upstream`: all upstreams were marked down.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::correlate::failures::Route;
use crate::logs::Hint;
use crate::model::{ClientOutcome, Group};
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
    // What was lost may have been the attempt.
    if !case.owner.kind.none_left.contains(&status) || case.lossy() {
        return Verdict::No;
    }
    // Failures of other routes are no reason: a `return 502` would be blamed on them.
    let route = Route::of(&client.conn.request_head);
    let failures = case.past.failures.of(case.owner.group, case.at);
    let mut failed: Vec<_> = failures.filter(|(_, f)| f.concerns(route.as_ref())).collect();
    failed.sort_by_key(|(_, f)| std::cmp::Reverse(f.before(case.at)));
    let name = &case.owner.name;
    let said = case.said() == Some(&Hint::NoLiveUpstream);
    let Some((endpoint, last)) = failed.first() else {
        if !said {
            return Verdict::No;
        }
        return Finding::new(format!("{name} made no attempt: it had no upstream left to try"))
            .fixes(case.advise(Setting::FailureCount, "{} decide when one is tried again"))
            .missing("the failures that marked its upstreams down")
            .yes();
    };
    let others = match failed.len() {
        1 => String::new(),
        2 => ", and one more of its upstreams".into(),
        n => format!(", and {} more of its upstreams", n - 1),
    };
    let place = text::clipped(&endpoint.to_string(), 140);
    let times = if last.count == 1 { "once,".into() } else { format!("{} times, last", last.count) };
    Finding::new(format!(
        "{name} made no attempt: its upstream {place} had failed {times} {} ({}){others}",
        case.ago(last.before(case.at)),
        last.cause
    ))
    .notes(failed.iter().take(6).map(|(endpoint, f)| super::Note {
        at: f.before(case.at),
        kind: "earlier_failure",
        text: format!("{}: {} ({}x)", text::clipped(&endpoint.to_string(), 100), f.summary, f.count),
    }))
    .fix(format!("mend {} at {place}", last.cause))
    .fixes(case.advise(Setting::FailureCount, "{} decide when it is tried again"))
    .proven_if(said, "the proxy's own word (its log) that no upstream was left")
    .yes()
}
