//! `upstream_crashed`: the upstream died of its own defect.

use super::death::{self, How, Search};
use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "upstream_crashed",
    group: Group::Process,
    scope: Scope::Attempt,
    absence: true,
    meaning: "The upstream's process died of SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGSYS or SIGTRAP.",
    proof: "Its exit with that signal, then its listener closed or its connection broke.",
    remedy: "Look at the core dump (coredumpctl) or the log of the service. If one request does it, its path is in \
              the incident.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let (dead, link) = match death::of(case) {
        Search::Dead(dead, link) => (dead, link),
        Search::Wait(wait) => return Verdict::NotYet(wait),
        Search::Doomed { .. } | Search::None => return Verdict::No,
    };
    let How::Crash { signal, core } = death::how(case, dead) else { return Verdict::No };
    let who = case.who(dead.pid);
    let signal = text::signal(signal);
    let core = if core { " (core dumped)" } else { "" };
    let during = if case.broken() { " while it had this request" } else { "" };
    let look = if core.is_empty() { "the log" } else { "the core dump (coredumpctl) and the log" };
    Finding::new(format!("{who} crashed with {signal}{core} {}{during}", case.ago(dead.at)))
        .note(dead.at, "exit", format!("{who} died of {signal}{core}"))
        .notes(death::consequence(case, link).map(|(at, kind, text)| super::Note { at, kind, text }))
        .fix(format!("look at {look} of {}", case.service(dead.pid)))
        .of_process(Some(dead.pid))
        .yes()
}
