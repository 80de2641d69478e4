//! `syn_timeout`: connect() got no answer at all.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::{Group, Nanos};
use crate::proxies::Setting;
use crate::text::{self, MILLI};

/// No timeout is set shorter.
const LEAST: Nanos = 20 * MILLI;

pub static CAUSE: Cause = Cause {
    id: "syn_timeout",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: true,
    meaning: "No answer came to the connection request, and nothing on this host dropped it: the host is gone, or a \
              filter on the way drops.",
    proof: "SYNs sent, none answered, until the proxy or the kernel gave up.",
    remedy: "Check that the host is up and that no firewall or security group on the way drops the port.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    // Who gives up sooner had another reason.
    if !case.unanswered() || case.waited() < LEAST {
        return Verdict::No;
    }
    let syns = case.tcp().map(|t| u64::from(t.retransmits) + 1);
    let sent = syns.map_or_else(|| "SYN".into(), |n| text::count(n, "SYN"));
    let who = if case.errno() == Some(libc::ETIMEDOUT) { "the kernel".into() } else { case.owner.name.clone() };
    let waited = text::duration(case.waited());
    let timeout = case.advise(Setting::ConnectTimeout, "{} decides how long it waits");
    Finding::new(format!("no answer to {sent} to {} until {who} gave up after {waited}", case.place()))
        .fix(format!("check that {} is up, and firewalls and security groups on the way", case.place()))
        .fixes(timeout)
        .proven_if(!case.lossy(), "that nothing on this host dropped it: kernel records were lost")
        .yes()
}
