//! `host_unreachable`: the host of the upstream cannot be reached.

use super::{Case, Cause, Finding, Note, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text::{self, SECOND};

pub static CAUSE: Cause = Cause {
    id: "host_unreachable",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: true,
    meaning: "Nobody answered for the upstream's address on its network, or a router said that it cannot be reached.",
    proof: "EHOSTUNREACH from connect(), at once or with the kernel's own word that no neighbour answered.",
    remedy: "Check that the host is up and the address right (ip neigh, ping), and filters on the way.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    if !case.connecting() || !case.failed_with(&[libc::EHOSTUNREACH, libc::EHOSTDOWN]) {
        return Verdict::No;
    }
    let waited = case.waited();
    let ip = case.target().map_or_else(|| case.place(), |t| t.ip().to_string());
    let neighbour =
        case.drops().into_iter().find(|(_, p)| p.reason.as_deref().is_some_and(|r| r.starts_with("NEIGH_")));
    // Nobody asks the neighbours for an address of this host: a filter said so, to a later SYN if the first answer was
    // one too many.
    let filtered = case.is_local() && !case.in_call && neighbour.is_none();
    // So does one of this host whose drop was not seen.
    let late = waited >= SECOND && !case.in_call && neighbour.is_none();
    let how = match (&neighbour, case.in_call) {
        (Some(_), _) => format!("after {}: no neighbour has that address", text::duration(waited)),
        (None, true) => "at once: this host's own routes say so".into(),
        (None, false) => format!("after {}: a router or a filter said so", text::duration(waited)),
    };
    let gave_up = neighbour.map(|(at, packet)| Note {
        at,
        kind: "drop",
        text: format!(
            "the kernel found no neighbour for {ip} and dropped the SYN ({})",
            text::safe(packet.reason.as_deref().unwrap_or_default())
        ),
    });
    let fix = match waited < SECOND && case.in_call {
        true => format!("check `ip route get {ip}` in the network namespace of {}", case.owner.name),
        false if filtered => {
            format!("find the rule that rejects {}: `nft list ruleset`, `iptables-save`", case.place())
        }
        false => format!("check that {ip} is up and right: `ip neigh show {ip}`, `ping {ip}`; then filters on the way"),
    };
    Finding::new(format!("{} cannot be reached: EHOSTUNREACH {how}", case.place()))
        .notes(gave_up)
        .fix(fix)
        .proven_if(!filtered, "that no filter on this host rejects it")
        .proven_if(filtered || !late, "who said so: a filter of this host answers to a later packet, too")
        .fixes(case.advise(Setting::Upstream, "check the address in {}"))
        .yes()
}
