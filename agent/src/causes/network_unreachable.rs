//! `network_unreachable`: there is no route.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "network_unreachable",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The proxy's network namespace has no route to the upstream.",
    proof: "ENETUNREACH from connect().",
    remedy: "Check the address and the routes of the proxy's namespace (ip route get ADDRESS).",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    // What a route of type blackhole gives; a wrong address family would be told by another errno.
    let blackhole = case.in_call && case.target().is_some() && case.failed_with(&[libc::EINVAL]);
    if !case.connecting() || !(blackhole || case.failed_with(&[libc::ENETUNREACH, libc::ENETDOWN])) {
        return Verdict::No;
    }
    let errno = text::errno(case.errno().unwrap_or(libc::ENETUNREACH));
    let ip = case.target().map_or_else(|| case.place(), |t| t.ip().to_string());
    let how = if blackhole {
        "as a route of type blackhole gives"
    } else if case.in_call {
        "there is no route"
    } else {
        "a router or the route says so"
    };
    Finding::new(format!("no way from {} to {}: {errno}, {how}", case.owner.name, case.place()))
        .fix(format!("check `ip route get {ip}` in the network namespace of {}", case.owner.name))
        .fixes(case.advise(Setting::Upstream, "check the address in {}"))
        .proven_if(!blackhole, "the route itself")
        .yes()
}
