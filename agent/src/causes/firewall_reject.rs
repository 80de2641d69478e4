//! `firewall_reject`: a packet filter answered, not the upstream.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::{Group, Nanos};
use crate::text::{self, SECOND};

pub static CAUSE: Cause = Cause {
    id: "firewall_reject",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: false,
    meaning: "A packet filter refused the connection with a reset or an ICMP error; the upstream's own stack did not.",
    proof: "Refused, or an ICMP error, while a listener was there and its stack sent no reset; or the packet was \
              dropped by a filter as it was refused; or an ICMP message that says that it is prohibited.",
    remedy: "Find the rule (nft list ruleset, iptables-save) and allow this connection.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let icmp = case.connecting() && !case.in_call && case.failed_with(&[libc::EHOSTUNREACH, libc::EACCES, libc::EPERM]);
    let silenced = silenced(case);
    if case.is_unix() || !(case.refused() || icmp || silenced) {
        return Verdict::No;
    }
    let place = case.place();
    let dropped = super::firewall_drop::filtered(case);
    let errno = text::errno(case.errno().unwrap_or(libc::ECONNREFUSED));
    let fix = format!("find the rule that rejects {place}: `nft list ruleset`, `iptables-save`");
    if let Some((at, packet)) = dropped.first() {
        let inside = packet.location.and_then(|l| case.symbol(l)).map_or_else(String::new, |f| format!(" in {f}"));
        let finding = match silenced {
            true => Finding::new(format!(
                "a packet filter on this host rejects connections to {place}, this one without a word"
            ))
            .missing(
                "the error that it answers with: the kernel sends only so many a second (net.ipv4.icmp_ratelimit)",
            ),
            false => Finding::new(format!("a packet filter on this host rejected the connection to {place}: {errno}")),
        };
        let answered = if silenced { "" } else { " and answered with an error" };
        return finding.note(*at, "drop", format!("the SYN was dropped by a filter{inside}{answered}")).fix(fix).yes();
    }
    if icmp && case.failed_with(PROHIBITED) {
        return prohibited(case);
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

/// What ICMPv6 "administratively prohibited" becomes: no stack says that of a closed port.
const PROHIBITED: &[i32] = &[libc::EACCES, libc::EPERM];

fn prohibited(case: &Case<'_>) -> Verdict {
    let place = case.place();
    let (errno, waited) = (text::errno(case.errno().unwrap_or(libc::EACCES)), text::duration(case.waited()));
    let rules = "`nft list ruleset`, `ip6tables-save`";
    let fix = match case.is_local() {
        true => format!("find the rule that rejects {place}: {rules}"),
        false => format!("find the rule that rejects {place}: {rules}, here, on that host and on the routers between"),
    };
    Finding::new(format!("a packet filter answered that {place} is prohibited: {errno}, {waited} after the connect"))
        .fix(fix)
        .of_process(case.listener().and_then(|l| l.pid))
        .yes()
}

/// How long a rejection tells what the same rule does to the next ones. The kernel sends one error a second, and six at
/// once after a pause: who gets none for longer is dropped by another rule.
const SAME_RULE: Nanos = 5 * SECOND;

/// Dropped by a filter that rejected others to this address a moment ago: the errors it answers with are limited.
pub fn silenced(case: &Case<'_>) -> bool {
    if !case.unanswered() || super::firewall_drop::filtered(case).is_empty() {
        return false;
    }
    let mut failures = case.past.failures.of(case.owner.group, case.at);
    failures.any(|(endpoint, failed)| {
        let answered = failed.errored.is_some_and(|at| case.began().saturating_sub(at) <= SAME_RULE);
        Some(endpoint) == case.endpoint() && failed.cause == CAUSE.id && answered
    })
}

/// Somebody else's stack reset us: the packet was sent on to it (DNAT).
pub fn redirected(case: &Case<'_>) -> bool {
    let since = case.began();
    case.flow().is_some_and(|flow| case.past.flows.resets_toward(&flow, since).next().is_some())
}
