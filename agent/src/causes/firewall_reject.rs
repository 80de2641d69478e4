//! `firewall_reject`: a packet filter answered, not the upstream.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "firewall_reject",
    group: Group::Connect,
    scope: Scope::Attempt,
    meaning: "A packet filter refused the connection with a reset or an ICMP error; the upstream's own stack did not.",
    proof: "Refused, or an ICMP error, while a listener was there and its stack sent no reset; or the packet was \
              dropped by a filter as it was refused.",
    remedy: "Find the rule (nft list ruleset, iptables-save) and allow this connection.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let icmp = case.connecting() && !case.in_call && case.failed_with(&[libc::EHOSTUNREACH, libc::EACCES, libc::EPERM]);
    if case.is_unix() || !(case.refused() || icmp) {
        return Verdict::No;
    }
    let place = case.place();
    let dropped = super::firewall_drop::filtered(case);
    let errno = text::errno(case.errno().unwrap_or(libc::ECONNREFUSED));
    let fix = format!("find the rule that rejects {place}: `nft list ruleset`, `iptables-save`");
    if let Some((at, packet)) = dropped.first() {
        let inside = packet.location.and_then(|l| case.symbol(l)).map_or_else(String::new, |f| format!(" in {f}"));
        return Finding::new(format!("a packet filter on this host rejected the connection to {place}: {errno}"))
            .note(*at, "drop", format!("the SYN was dropped by a filter{inside} and answered with an error"))
            .fix(fix)
            .yes();
    }
    let Some(listener) = case.listener() else { return Verdict::No };
    // The stack itself refused, or another one to which the packet was redirected.
    if !case.resets_received().is_empty() || redirected(case) {
        return Verdict::No;
    }
    let who = listener.pid.map_or_else(|| "somebody".into(), |pid| case.who(pid));
    Finding::new(format!("a packet filter refused {place} ({errno}): {who} listens there, and its stack sent no reset"))
        .fix(fix)
        .proven_if(listener.before, "that it listened before the connection was tried")
        .proven_if(!case.lossy(), "that no reset was sent: kernel records were lost")
        .of_process(listener.pid)
        .yes()
}

/// Somebody else's stack reset us: the packet was sent on to it (DNAT).
pub fn redirected(case: &Case<'_>) -> bool {
    let since = case.began();
    case.flow().is_some_and(|flow| case.past.flows.resets_toward(flow.local, since).next().is_some())
}
