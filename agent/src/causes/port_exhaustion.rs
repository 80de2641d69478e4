//! `port_exhaustion`: no local port was free for that destination.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "port_exhaustion",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The proxy had no free local port for that destination: too many connections to it, most of them in \
              TIME_WAIT.",
    proof: "EADDRNOTAVAIL from connect() to an IPv4 address, or a connect that ended before the kernel had given it a local port.",
    remedy: "Keep upstream connections open (keepalive), widen net.ipv4.ip_local_port_range, or use more addresses.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    // A TCP connect() says EAGAIN on older kernels.
    let full = case.failed_with(&[libc::EADDRNOTAVAIL]) || (!case.is_unix() && case.failed_with(&[libc::EAGAIN]));
    if !case.connecting() || !(full || portless(case)) {
        return Verdict::No;
    }
    let errno = case.errno().map_or_else(|| "the kernel gave it none".into(), text::errno);
    let finding = match full && case.target().is_some_and(|target| target.is_ipv6()) {
        true => Finding::new(format!("{} had no local address or port for {}: {errno}", case.owner.name, case.place()))
            .missing("that ports had run out: where IPv6 is switched off, no address is there to begin with")
            .fix(
                "see `ip -6 addr` in the proxy's network namespace: if IPv6 is off, dial the IPv4 address (127.0.0.1)",
            ),
        false => Finding::new(format!("{} had no free local port for {}: {errno}", case.owner.name, case.place())),
    };
    finding
        .fix("keep upstream connections open instead of one per request (keepalive)")
        .fix("widen net.ipv4.ip_local_port_range; see `ss -tan state time-wait | wc -l`")
        .fixes(case.advise(Setting::SourceAddress, "{}"))
        .yes()
}

/// Where the error of the call cannot be seen: the connect began, and ended before it had a port. It begins with the
/// search for one, and nothing else comes before that is over.
fn portless(case: &Case<'_>) -> bool {
    !case.in_call && case.unanswered() && case.flow().is_some_and(|flow| flow.local.port() == 0)
}
