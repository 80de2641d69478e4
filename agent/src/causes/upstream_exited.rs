//! `upstream_exited`: the upstream ended by itself.

use super::death::{self, How, Search};
use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;

pub static CAUSE: Cause = Cause {
    id: "upstream_exited",
    group: Group::Process,
    scope: Scope::Attempt,
    absence: true,
    meaning: "The process that served, or listened for, this upstream ended by itself with an exit status.",
    proof: "Its exit without a signal, and its listener closed or its connection broken by it.",
    remedy: "Look at the log of the service for why it ended, and let a supervisor start it again.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let (dead, link) = match death::of(case) {
        Search::Dead(dead, link) => (dead, link),
        Search::Wait(wait) => return Verdict::NotYet(wait),
        Search::Doomed { .. } | Search::None => return Verdict::No,
    };
    let How::Exited(code) = death::how(case, dead) else { return Verdict::No };
    let who = case.who(dead.pid);
    let during = if case.broken() { " while it had this request" } else { "" };
    Finding::new(format!("{who} ended by itself with exit status {code} {}{during}", case.ago(dead.at)))
        .note(dead.at, "exit", format!("{who} exited with status {code}"))
        .notes(death::consequence(case, link).map(|(at, kind, text)| super::Note { at, kind, text }))
        .fix(format!("look at the log of {} for why it ended; let a supervisor start it again", case.service(dead.pid)))
        .of_process(Some(dead.pid))
        .behind(case)
        .yes()
}
