//! `firewall_drop`: a packet filter of this host dropped the packets.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::{Group, Nanos, Packet};
use crate::text;

/// Drop reasons of the kernel that mean that somebody's rule did it.
const FILTERS: [&str; 8] = [
    "NETFILTER_DROP",
    "TC_INGRESS",
    "TC_EGRESS",
    "TC_RECLASSIFY_LOOP",
    "XDP",
    "BPF_CGROUP_EGRESS",
    "SOCKET_FILTER",
    "XFRM_POLICY",
];

pub static CAUSE: Cause = Cause {
    id: "firewall_drop",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: false,
    meaning: "A packet filter on this host (nftables, iptables, tc, XDP or a BPF program) dropped packets of this \
              connection.",
    proof: "The drop of that flow's packet, with the kernel's reason.",
    remedy: "Find the rule (nft list ruleset, iptables-save) and allow this connection.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let stalled = case.gave_up() && case.tcp().is_some_and(|t| t.retransmits > 0 || t.unacked > 0);
    if !case.unanswered() && !stalled || super::firewall_reject::silenced(case) {
        return Verdict::No;
    }
    let drops = filtered(case);
    let Some((at, first)) = drops.first() else { return Verdict::No };
    let reason = first.reason.as_deref().map_or("no reason given", |r| r);
    let function = first.location.and_then(|l| case.symbol(l));
    let inside = function.map_or_else(String::new, |f| format!(" in {f}"));
    let incoming = case.target() == Some(first.flow.local);
    let what = match (case.unanswered(), incoming) {
        (true, false) => "the SYN",
        (true, true) => "the answer to the SYN",
        (false, false) => "packets",
        (false, true) => "packets of the answer",
    };
    let way = if incoming { "from" } else { "to" };
    let (place, waited) = (case.place(), text::duration(case.waited()));
    let times = if drops.len() > 1 { format!(", {} times", drops.len()) } else { String::new() };
    Finding::new(format!(
        "a packet filter on this host dropped {what} {way} {place} ({}{inside}{times}); {} gave up after {waited}",
        text::safe(reason),
        case.owner.name
    ))
    .notes(drops.iter().take(4).map(|(at, p)| super::Note {
        at: *at,
        kind: "drop",
        text: format!(
            "dropped {} > {}: {}",
            p.flow.local,
            p.flow.remote,
            text::safe(p.reason.as_deref().unwrap_or("?"))
        ),
    }))
    .fix(match reason {
        "XFRM_POLICY" => format!("find the IPsec policy that drops {way} {place}: `ip xfrm policy`"),
        _ => format!("find the rule that drops {way} {place}: `nft list ruleset`, `iptables-save`, `tc filter show`"),
    })
    .fix(format!("the first drop was {}", case.ago(*at)))
    .yes()
}

/// Packets of this flow that a filter dropped.
pub fn filtered<'a>(case: &Case<'a>) -> Vec<(Nanos, &'a Packet)> {
    let by_filter = |p: &Packet| p.reason.as_deref().is_some_and(|r| FILTERS.contains(&r));
    let mut drops: Vec<_> = case.drops().into_iter().filter(|(_, p)| by_filter(p)).collect();
    drops.sort_by_key(|(at, _)| *at);
    drops
}
