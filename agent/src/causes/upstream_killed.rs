//! `upstream_killed`: somebody killed the upstream.

use super::death::{self, How, Search};
use super::{Case, Cause, Finding, Scope, Verdict};
use crate::correlate::history::SignalSeen;
use crate::model::Group;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "upstream_killed",
    group: Group::Process,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The upstream's process was ended by a signal that somebody sent: a deploy, a supervisor, an operator.",
    proof: "The signal sent to it, by whom, and the exit that followed; then its listener closed or its connection \
              broke.",
    remedy: "If it was a deploy or restart: take the upstream out of the proxy first, or let it finish its requests. \
              Else ask who sent the signal.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let (dead, link) = match death::of(case) {
        Search::Dead(dead, link) => (dead, link),
        Search::Wait(wait) => return Verdict::NotYet(wait),
        Search::Doomed { pid, signal } => return doomed(case, pid, signal),
        Search::None => return Verdict::No,
    };
    let How::Killed { signal, by } = death::how(case, dead) else { return Verdict::No };
    let who = case.who(dead.pid);
    let signal = text::signal(signal);
    let sender = by.map(|s| sender(s, dead.pid));
    let by_whom = sender.as_ref().map_or_else(String::new, |s| format!(" by {s}"));
    let during = if case.broken() { " while it had this request" } else { "" };
    Finding::new(format!("{who} was killed with {signal}{by_whom} {}{during}", case.ago(dead.at)))
        .notes(by.map(|s| sent(&who, dead.pid, s)))
        .note(dead.at, "exit", format!("{who} ended"))
        .notes(death::consequence(case, link).map(|(at, kind, text)| super::Note { at, kind, text }))
        .fixes(fixes(case, dead.pid, by))
        .proven_if(by.is_some(), "who sent the signal")
        .of_process(Some(dead.pid))
        .yes()
}

/// The signal was sent, the connection broke, and the exit was not seen in time.
fn doomed(case: &Case<'_>, pid: u32, signal: &SignalSeen) -> Verdict {
    let who = case.who(pid);
    let (name, sender) = (text::signal(signal.signal), sender(signal, pid));
    Finding::new(format!("{who} is being stopped: {sender} sent {name} {}", case.ago(signal.at)))
        .notes([sent(&who, pid, signal)])
        .fixes(fixes(case, pid, Some(signal)))
        .missing("the end of the process")
        .of_process(Some(pid))
        .yes()
}

fn sent(who: &str, pid: u32, signal: &SignalSeen) -> super::Note {
    let text = format!("{} sent {} to {who}", sender(signal, pid), text::signal(signal.signal));
    super::Note { at: signal.at, kind: "signal", text }
}

fn sender(signal: &SignalSeen, victim: u32) -> String {
    if signal.from_kernel {
        return "the kernel".into();
    }
    if signal.sender.pid == victim {
        return "itself".into();
    }
    format!("{} (pid {})", text::clipped(&signal.sender.comm, 32), signal.sender.pid)
}

/// Masters whose workers may go by another name.
fn manages(comm: &str) -> bool {
    comm.starts_with("php-fpm") || matches!(comm, "gunicorn" | "uwsgi")
}

fn fixes(case: &Case<'_>, pid: u32, by: Option<&SignalSeen>) -> Vec<String> {
    let service = case.service(pid);
    let manager = by.is_some_and(|s| s.sender.pid == 1);
    let sender = by.filter(|s| !s.from_kernel && s.sender.pid != pid);
    // A worker runs its master's program. What a shell or a script started has no master.
    let same = |s: &SignalSeen| case.name(pid).is_some_and(|name| name == s.sender.comm) || manages(&s.sender.comm);
    let known = case.past.history.parent_of(pid).is_some();
    let family = |s: &&SignalSeen| same(s) && (!known || case.past.history.descends(pid, s.sender.pid));
    let master = sender.filter(family).filter(|_| !manager);
    if let Some(master) = master {
        let name = text::clipped(&master.sender.comm, 32);
        let limit = match name.as_str() {
            fpm if fpm.starts_with("php-fpm") => "request_terminate_timeout",
            "gunicorn" => "--timeout",
            "uwsgi" => "harakiri",
            _ => "a limit on the time or the memory of a worker",
        };
        return vec![format!("its own master {name} ended it: look at the log of {service}, and at {limit}")];
    }
    let first = match manager {
        true => format!("{service} was stopped by its service manager: look at `journalctl -u {service}`"),
        false => format!("find out why it was sent to {service}"),
    };
    vec![first, "before a planned stop, take the upstream out of the proxy and let it finish its requests".into()]
}
