//! `proxy_limit`: the proxy reached a limit of its own.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "proxy_limit",
    group: Group::None,
    scope: Scope::Both,
    meaning: "The proxy ran out of file descriptors, memory or connections itself.",
    proof: "EMFILE, ENFILE, ENOBUFS or ENOMEM at its call, or its open descriptors at their limit when it failed the \
              request without an attempt.",
    remedy: "Raise the limit of the proxy, and find what holds the descriptors.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let name = &case.owner.name;
    let advice = case.advise(Setting::Limit, "raise {}");
    if case.attempt.is_some() {
        if !case.connecting() || !case.failed_with(&[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM]) {
            return Verdict::No;
        }
        let errno = text::errno(case.errno().unwrap_or(libc::EMFILE));
        return Finding::new(format!("{name} reached a limit of its own on the way to {}: {errno}", case.place()))
            .fixes(advice)
            .yes();
    }
    let Some(fds) = case.descriptors(case.owner.pid) else { return Verdict::No };
    // A few may have been freed between the failure and the question.
    if fds.limit == 0 || fds.open + 2 < fds.limit {
        return Verdict::No;
    }
    Finding::new(format!("{name} (pid {}) has {} of {} descriptors open", case.owner.pid, fds.open, fds.limit))
        .note(case.at, "descriptors", format!("{} of {} descriptors open", fds.open, fds.limit))
        .fixes(advice)
        .fix(format!("see what holds them: ls -l /proc/{}/fd", case.owner.pid))
        .yes()
}
